"""Server-sent events: `data: ...` and a blank line. https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from collections.abc import AsyncIterable, AsyncIterator

import orjson

from myna.records import Json, ProviderError

DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keepalive\n\n"
LIMIT = 16 << 20  # bytes of one event; the longest honest one is a few kilobytes


def write_event(row: Json) -> bytes:
    return b"data: " + orjson.dumps(row) + b"\n\n"


async def read_events(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The data of each event. Comments and fields other than `data` are skipped, an event the stream cut off too.

    Lines end at \\n or \\r\\n only: JSON text may hold U+2028 and its like, which str.splitlines would cut at.
    """
    data: list[bytes] = []
    size = 0
    async for line in _lines(chunks):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
            size += len(line)
            if size > LIMIT:
                raise _too_large()
        elif not line and data:
            yield b"\n".join(data)
            data, size = [], 0


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        if b"\n" in chunk:
            *lines, rest = bytes(buffer).split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                yield line.removesuffix(b"\r")
        if len(buffer) > LIMIT:
            raise _too_large()


def _too_large() -> ProviderError:
    return ProviderError(f"The endpoint sent an event of more than {LIMIT >> 20} MiB.")
