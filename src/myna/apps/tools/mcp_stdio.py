"""MCP over a child's stdin and stdout, for servers nobody trusts: a line has a most, what is printed on stderr is kept short and
told when the server dies, and whatever the server began ends with it. (The SDK's own transport reads a line of any length.)"""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import Process

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

MOST_LINE = 4 << 20  # bytes of one message
KEPT = 2000  # bytes of stderr
INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")  # no keys of ours
GRACE = 2.0  # seconds to leave by itself, and then to heed SIGTERM


class Said:
    """The end of what the server printed on stderr, and why the connection ended."""

    def __init__(self) -> None:
        self.tail, self.why = b"", ""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.why, self.tail.decode(errors="replace").strip())))


@asynccontextmanager
async def stdio(command: tuple[str, ...], env: Mapping[str, str], said: Said) -> "AsyncIterator[TransportStreams]":
    """The streams that the SDK's client talks through. Raises OSError when the command cannot be started."""
    own = {name: os.environ[name] for name in INHERITED if name in os.environ}
    process = await anyio.open_process(
        list(command), env=own | dict(env), stderr=subprocess.PIPE, start_new_session=True
    )
    to_us, read = anyio.create_memory_object_stream[Any](0)
    write, to_server = anyio.create_memory_object_stream[Any](0)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_listen, process, to_us, said)
            group.start_soon(_speak, process, to_server, to_us)
            group.start_soon(_keep, process, said)
            try:
                yield read, write
            finally:
                with anyio.CancelScope(shield=True):
                    await _end(process)
                group.cancel_scope.cancel()
    finally:
        for stream in (to_us, read, write, to_server):
            stream.close()


async def _listen(process: Process, to_us: Any, said: Said) -> None:
    """Each line a message. A line beyond the most ends the connection: nobody knows where the next one would begin."""
    from mcp.shared.message import SessionMessage
    from mcp.types import jsonrpc_message_adapter

    assert process.stdout
    buffer = bytearray()
    async with to_us:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            while True:
                buffer += await process.stdout.receive()
                *lines, rest = buffer.split(b"\n") if b"\n" in buffer else (buffer,)
                if max(map(len, (rest, *lines))) > MOST_LINE:
                    said.why = f"it sent a message of more than {MOST_LINE} bytes"
                    return
                buffer = bytearray(rest)
                for line in filter(None, lines):
                    try:
                        await to_us.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))
                    except ValueError as e:
                        await to_us.send(e)
        said.why = said.why or "it ended"


async def _speak(process: Process, to_server: Any, to_us: Any) -> None:
    assert process.stdin
    try:
        async with to_server:
            async for one in to_server:
                line = one.message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(line.encode(errors="replace") + b"\n")
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        to_us.close()  # so that nobody waits for an answer


async def _keep(process: Process, said: Said) -> None:
    assert process.stderr
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
        while True:
            said.tail = (said.tail + await process.stderr.receive())[-KEPT:]


async def _end(process: Process) -> None:
    """Closes its stdin, which asks it to leave; then SIGTERM, then SIGKILL, to it and all it began."""
    assert process.stdin
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()
    for how in (None, signal.SIGTERM, signal.SIGKILL):
        if how is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, how)
        with anyio.move_on_after(GRACE):
            while process.returncode is None:
                await anyio.sleep(0.01)
        if process.returncode is not None and how is not signal.SIGTERM:
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with anyio.move_on_after(GRACE):
        await process.aclose()
