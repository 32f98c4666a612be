"""<|START_ACTION|>[{"tool_call_id": ..., "tool_name": ..., "parameters": {...}}]<|END_ACTION|>: Command R7B and Command A."""

from collections.abc import Iterator, Sequence

from myna.chat.calls import marked, quoted
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

OPENER, CLOSER = "<|START_ACTION|>", "<|END_ACTION|>"
FRAMES = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")
SIGNS = (OPENER,)
MARKERS = (OPENER, CLOSER, *FRAMES)
THINK = ("<|START_THINKING|>", "<|END_THINKING|>")


def parse(scan: Scanner) -> Steps[None]:
    yield from marked(scan, (OPENER,), (CLOSER, *FRAMES))


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    yield OPENER
    for i, call in enumerate(calls):
        id, name = quoted(str(i)), quoted(call.name)
        yield ",\n    " if i else "[\n    "
        yield Own(f'{{"tool_call_id": {id}, "tool_name": {name}, "parameters": {call.arguments}}}')
    yield f"\n]{CLOSER}"
