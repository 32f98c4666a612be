"""<start_function_call>call:name{key:<escape>text<escape>}<end_function_call>: FunctionGemma, a Gemma 3 of 270M.

https://ai.google.dev/gemma/docs/functiongemma/formatting-and-best-practices
"""

from collections.abc import Iterator, Sequence

from myna.chat.dialects import _braces
from myna.chat.scan import Scanner, Steps
from myna.records import Style, ToolCall

TOKENS = _braces.Tokens(
    "<start_function_call>",
    "<end_function_call>",
    "<start_function_response>",
    "<end_function_response>",
    "<escape>",
)
SIGNS = ("<start_function_call>", "<escape>")
MARKERS = tuple(TOKENS)
STYLE = Style("quoted", between=":", comma=",", quote="<escape>")


def parse(scan: Scanner) -> Steps[None]:
    yield from _braces.parse(scan, TOKENS)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    yield from _braces.write(calls, TOKENS, STYLE)
