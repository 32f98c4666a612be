"""<|tool_call|>[{"name": ..., "arguments": {...}}]: Granite 3; <tool_call>...</tool_call>, as Hermes: Granite 4."""

from collections.abc import Iterator, Sequence

from myna.chat.calls import marked, quoted
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

OPENERS, CLOSERS = ("<|tool_call|>", "<tool_call>"), ("</tool_call>",)
SIGNS = ("<|start_of_role|>", "<|tool_call|>")
MARKERS = (*OPENERS, *CLOSERS)


def parse(scan: Scanner) -> Steps[None]:
    yield from marked(scan, OPENERS, CLOSERS)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    yield "<|tool_call|>"
    for i, call in enumerate(calls):
        yield ", " if i else "["
        yield Own(f'{{"name": {quoted(call.name)}, "arguments": {call.arguments}}}')
    yield "]"
