"""{"name": ..., "parameters": {...}}, bare: Llama 3.1 to 3.3. After <|python_tag|> it may also be name.call(key="value"), for
the tools that these models know from training."""

from collections.abc import Iterator, Sequence

from myna.chat.calls import block, quoted, until
from myna.chat.dialects import Own
from myna.chat.dialects.function_tag import CLOSER, OPENER, read_tag
from myna.chat.dialects.pythonic import read_calls
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

TAG = "<|python_tag|>"
SIGNS = (TAG,)
MARKERS = (TAG, OPENER, CLOSER)


def parse(scan: Scanner) -> Steps[None]:
    while mark := (yield from until(scan, *MARKERS)):
        if mark == OPENER:
            yield from read_tag(scan)
        elif mark == TAG and not (yield from block(scan)):
            yield from read_calls(scan, sure=True)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for i, call in enumerate(calls):
        yield "; " if i else ""
        yield Own(f'{{"name": {quoted(call.name)}, "parameters": {call.arguments}}}')
