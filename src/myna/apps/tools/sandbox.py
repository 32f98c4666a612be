"""Python that a model wrote, run in a process that can do little: no network, no file but a small temporary directory and Python's
own, bounded in CPU, memory, processes, open files, disk, output and time. Linux. Nothing runs it unless you make the tool:

    desk = Dispatcher((python_tool(),), ask=at_terminal)

What it is made of is in jail.py: namespaces and rlimits, no seccomp filter; a hole in the kernel is a hole in it.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from myna.apps.tools.tool import Tool, tool
from myna.records import MynaError, ToolError

Mode = Literal["namespaces", "weak"]

JAIL = Path(__file__).with_name("jail.py")
# What Python needs to start: its libraries and the loader's list of them. Only what exists is shown, and never written to.
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache")
START = 20.0  # seconds for the jail to be built, which count for no code
CHUNK = 1 << 16
LEFT = 2.0  # seconds for what was killed to be gone


class SandboxUnavailable(MynaError):
    """This machine lets nobody be locked in. The message says what is missing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    seconds    of wall clock, from outside
    cpu        seconds of CPU
    memory     bytes of address space, per process
    disk       bytes of the temporary directory, which is memory, and of any one file
    files      open at once
    processes  and threads; not limited in weak mode
    output     characters of stdout and stderr that are kept, each; sixteen times as many end it
    code       characters of code
    """

    seconds: float = 10.0
    cpu: int = 10
    memory: int = 512 << 20
    disk: int = 32 << 20
    files: int = 64
    processes: int = 16
    output: int = 20_000
    code: int = 100_000


@dataclass(frozen=True, slots=True)
class Ran:
    """What the code did. `code` is its exit code, 128 + n where signal n ended it. `stopped` is why we ended it, or "".
    `left_out` counts the bytes of output that are not here."""

    out: str
    err: str
    code: int
    stopped: str
    left_out: int
    mode: Mode


async def run_python(code: str, limits: Limits = Limits(), mode: Mode = "namespaces") -> Ran:
    """Run the code to its end or to a limit. Raises SandboxUnavailable where it cannot be locked in as `mode` says: "weak" has the
    limits but the network and your files too. Raises ToolError when the code is too long."""
    if len(code) > limits.code:
        raise ToolError(f"The code has {len(code)} characters; {limits.code} are the most.")
    if sys.platform != "linux":
        raise SandboxUnavailable("the Python sandbox is made of what Linux offers, and this is not Linux")
    with tempfile.TemporaryDirectory(prefix="myna-python-") as root:
        told, say = os.pipe()
        process = None
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(JAIL), str(say)),
                pass_fds=(say,),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                cwd=root,
            )
            os.close(say)
            say = -1
            return await _watch(process, told, _order(code, limits, mode, root), limits, mode)
        finally:
            if process is not None:
                _kill(process)
                await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=LEFT)
            for fd in {told, say} - {-1}:
                os.close(fd)


def _order(code: str, limits: Limits, mode: Mode, root: str) -> bytes:
    python = os.path.realpath(sys.executable)
    own = [sys.base_prefix] if not sys.base_prefix.startswith("/usr") else []
    text = code.encode(errors="backslashreplace").decode()
    order = asdict(limits) | {"code": text, "weak": mode == "weak", "root": root, "python": python}
    return json.dumps(order | {"seen": [*SYSTEM, *own]}).encode()


async def _watch(process: asyncio.subprocess.Process, told: int, order: bytes, limits: Limits, mode: Mode) -> Ran:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    full = asyncio.Event()
    out, err = _Kept(limits.output), _Kept(limits.output)
    reading = [
        asyncio.create_task(kept.read(pipe, full)) for kept, pipe in ((out, process.stdout), (err, process.stderr))
    ]
    try:
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(order)
            process.stdin.close()
        status = await asyncio.to_thread(_line, told)
        if status != "ready":
            raise SandboxUnavailable(_unavailable(status))
        stopped = await _until(process, full, limits.seconds)
        _kill(process)
        await asyncio.wait(reading, timeout=LEFT)  # in weak mode, who left the group may hold the pipes open for ever
        code = process.returncode if process.returncode is not None else 128 + signal.SIGKILL
        left_out = out.left + err.left
        return Ran(out.text, err.text, code if code >= 0 else 128 - code, stopped, left_out, mode)
    finally:
        _kill(process)
        for task in reading:
            task.cancel()


def _unavailable(status: str) -> str:
    return (
        f"Python cannot be locked in here: {status or 'the jail did not start'}. User namespaces may be turned off "
        "(sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces), as in many containers. "
        'mode="weak" has the limits alone: the code then reads your files and reaches the network.'
    )


def _line(fd: int) -> str:
    """What the jail says of itself: "ready", or why not. Nothing where it died or took longer than START."""
    import select

    ready, _, _ = select.select([fd], [], [], START)
    return (
        os.read(fd, 500).decode(errors="replace").split("\n")[0] if ready else f"it took longer than {START:g} seconds"
    )


async def _until(process: asyncio.subprocess.Process, full: asyncio.Event, seconds: float) -> str:
    """Why it has to be ended, or "" when it ended by itself."""
    ends = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(full.wait())]
    try:
        done, _ = await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
    if not done:
        return f"it ran longer than {seconds:g} seconds"
    return "it wrote too much" if full.is_set() else ""


@dataclass(slots=True)
class _Kept:
    """The first `most` characters of a pipe."""

    most: int
    data: bytearray = field(default_factory=bytearray)
    dropped: int = 0

    async def read(self, pipe: asyncio.StreamReader, full: asyncio.Event) -> None:
        """Reads on to the end, so nobody blocks on a full pipe."""
        while chunk := await pipe.read(CHUNK):
            room = max(0, 4 * self.most - len(self.data))
            self.data += chunk[:room]
            self.dropped += len(chunk) - len(chunk[:room])
            if self.dropped > 16 * self.most:
                full.set()

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")[: self.most]

    @property
    def left(self) -> int:
        """Bytes that are not in `text`."""
        return self.dropped + len(self.data.decode(errors="replace")[self.most :].encode())


def _kill(process: asyncio.subprocess.Process) -> None:
    """The whole group, even when its leader has ended; who left the group ends with the first process of its namespace."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def python_tool(limits: Limits = Limits(), mode: Mode = "namespaces", name: str = "python") -> Tool:
    """A tool that runs Python for the model. Its effect is danger, so each piece of code is shown to somebody first."""

    @tool(effect="danger", timeout=limits.seconds + START + 5, cap=2 * limits.output + 500, name=name)
    async def python(code: str) -> str:
        """Run Python 3 code and see what it prints. Only the standard library is there, no network, and no files but those that
        the code writes itself; nothing is kept between calls.

        Args:
            code: A whole program. What it prints is the result.
        """
        return told(await run_python(code, limits, mode))

    return python


def told(ran: Ran) -> str:
    """What the model is shown. Raises ToolError where the code was ended by a limit."""
    parts = [ran.out, f"[stderr]\n{ran.err}" if ran.err else ""]
    parts += [f"[{ran.left_out} bytes of output are not shown]"] if ran.left_out else []
    if ran.stopped:
        raise ToolError("\n".join([f"The code was ended: {ran.stopped}.", *filter(None, parts)]))
    parts += [f"[it ended with code {ran.code}]"] if ran.code else []
    return "\n".join(filter(None, parts)) or "[it printed nothing]"
