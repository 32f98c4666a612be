"""<|tool_call>call:name{key:<|"|>text<|"|>}<tool_call|>: Gemma 4. https://ai.google.dev/gemma/docs/core/prompt-formatting-gemma4"""

from collections.abc import Iterator, Sequence

from myna.chat.dialects import _braces
from myna.chat.scan import Scanner, Steps
from myna.records import Style, ToolCall

TOKENS = _braces.Tokens("<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>')
SIGNS = ("<|tool_call>", '<|"|>')
MARKERS = tuple(TOKENS)
THINK = ("<|channel>thought\n", "<channel|>")
STYLE = Style("quoted", between=":", comma=",", quote='<|"|>')


def parse(scan: Scanner) -> Steps[None]:
    yield from _braces.parse(scan, TOKENS)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    yield from _braces.write(calls, TOKENS, STYLE)
