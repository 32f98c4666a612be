"""[{"name": ..., "arguments": {...}}], bare: xLAM. Some of its models put it in a fence or behind a marker of their base."""

from collections.abc import Iterator, Sequence

from myna.chat.calls import marked, quoted
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

SIGNS = ()
MARKERS = ("[TOOL_CALLS]", "<tool_call>", "</tool_call>")


def parse(scan: Scanner) -> Steps[None]:
    yield from marked(scan, MARKERS[:2], MARKERS[2:])


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for i, call in enumerate(calls):
        yield ", " if i else "["
        yield Own(f'{{"name": {quoted(call.name)}, "arguments": {call.arguments}}}')
    yield "]"
