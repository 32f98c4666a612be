"""No syntax of its own: JSON in a code fence, or bare at the start of a line, that names a known tool.

For models whose template says nothing about calls, and for all that answer so although theirs does.
"""

from collections.abc import Iterator, Sequence

from myna.chat.calls import marked, quoted
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

SIGNS = ()


def parse(scan: Scanner) -> Steps[None]:
    yield from marked(scan, ())


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for i, call in enumerate(calls):
        yield "\n```json\n" if i else "```json\n"
        yield Own(f'{{"name": {quoted(call.name)}, "arguments": {call.arguments}}}')
        yield "\n```"
