"""What a stream of JSON rows is cut into, on its way to a client."""

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from myna.provider.wire.sse import DONE, KEEPALIVE, write_event
from myna.records import Json


@dataclass(frozen=True, slots=True)
class Frames:
    """`done` ends a stream that did not fail; `keepalive` says nothing, to keep a connection open, or is empty where the
    protocol has no way of saying nothing."""

    write: Callable[[Json], bytes]
    media_type: str
    done: bytes = b""
    keepalive: bytes = b""


def _write_named(row: Json) -> bytes:
    return b"event: " + str(row["type"]).encode() + b"\n" + write_event(row)


def _write_line(row: Json) -> bytes:
    return orjson.dumps(row) + b"\n"


EVENTS = Frames(write_event, "text/event-stream; charset=utf-8", DONE, KEEPALIVE)  # OpenAI's chat and completions
NAMED_EVENTS = Frames(_write_named, "text/event-stream; charset=utf-8", b"", KEEPALIVE)  # OpenAI's responses; Anthropic
LINES = Frames(_write_line, "application/x-ndjson")  # Ollama, whose clients take every line for JSON
