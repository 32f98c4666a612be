"""<|tool_call|>[{"name": ..., "arguments": {...}}]<|/tool_call|>: Phi-4-mini; or functools[...], which it writes as well."""

from collections.abc import Iterator, Sequence

from myna.chat.calls import block, quoted, until
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

OPENER, CLOSER, WORD = "<|tool_call|>", "<|/tool_call|>", "functools["
SIGNS = ("<|tool|>", "<|/tool|>")
MARKERS = (OPENER, CLOSER)


def parse(scan: Scanner) -> Steps[None]:
    while mark := (yield from until(scan, *MARKERS, WORD)):
        if mark == OPENER:
            yield from block(scan)
        elif mark == WORD:
            scan.back("[")
            if not (scan.fresh and (yield from block(scan))):
                scan.say(WORD[:-1] + scan.eat(1))


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    yield OPENER
    for i, call in enumerate(calls):
        yield ", " if i else "["
        yield Own(f'{{"name": {quoted(call.name)}, "arguments": {call.arguments}}}')
    yield f"]{CLOSER}"
