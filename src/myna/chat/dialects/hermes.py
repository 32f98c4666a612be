"""<tool_call>{"name": ..., "arguments": {...}}</tool_call>: Hermes 2 and its many heirs, Qwen 2.5 and 3 among them.

Qwen2.5-Coder was taught this and answers with JSON in a code fence, or in <tools>, the markers of its prompt.
"""

from collections.abc import Iterator, Sequence

from myna.chat.calls import marked, quoted
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

SIGNS = ("<tool_call>",)
MARKERS = ("<tool_call>", "</tool_call>", "<tools>", "</tools>")


def parse(scan: Scanner) -> Steps[None]:
    yield from marked(scan, ("<tool_call>", "<tools>"), ("</tool_call>", "</tools>"))


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for i, call in enumerate(calls):
        yield "\n<tool_call>\n" if i else "<tool_call>\n"
        yield Own(f'{{"name": {quoted(call.name)}, "arguments": {call.arguments}}}')
        yield "\n</tool_call>"
