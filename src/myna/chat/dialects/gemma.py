"""name(key="value") in a fence marked tool_code: what Gemma 2 and 3 were taught. Their templates know no tools."""

from collections.abc import Iterator, Sequence

from myna.chat.arguments import written
from myna.chat.calls import until
from myna.chat.dialects import Own
from myna.chat.dialects.pythonic import STYLE, read_calls
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

OPENER = "```tool_code"
SIGNS = ("<start_of_turn>",)


def parse(scan: Scanner) -> Steps[None]:
    while (yield from until(scan, OPENER)):
        scan.note()
        yield from scan.blank()
        printed = yield from scan.take("print(")
        found = False
        while (yield from read_calls(scan)):
            found = True
            if printed:
                yield from scan.take(")")
            yield from scan.blank()
            printed = yield from scan.take("print(")
        if found:
            yield from scan.take("```")
        else:
            scan.rewind()
            scan.say(OPENER)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    yield "```tool_code\n"
    for call in calls:
        yield Own(call.name)
        yield "("
        yield from written(STYLE, call)
        yield ")\n"
    yield "```"
