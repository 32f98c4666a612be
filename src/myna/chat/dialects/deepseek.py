"""<｜tool▁call▁begin｜>name<｜tool▁sep｜>{...}<｜tool▁call▁end｜>: DeepSeek V3.1.

V3 and R1 write the word "function" before the separator, the name after it, and the arguments in a fence.
"""

from collections.abc import Iterator, Sequence

from myna.chat.calls import FENCE, arguments, until
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

BEGIN, SEP, END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
SIGNS = (BEGIN, SEP)
MARKERS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", BEGIN, SEP, END)


def parse(scan: Scanner) -> Steps[None]:
    while mark := (yield from until(scan, *MARKERS)):
        if mark == BEGIN:
            yield from _call(scan)


def _call(scan: Scanner) -> Steps[None]:
    scan.note()
    head, mark = yield from scan.before(SEP, END)
    name, fenced = head.strip(), ""
    yield from scan.blank()
    if mark == SEP and (yield from scan.peek()) != "{":
        name, end = yield from scan.before("\n", END)
        scan.back(end.strip())
        yield from scan.blank()
        fenced = yield from scan.take(FENCE)
        yield from scan.take("json")
    if mark != SEP or not name.strip():
        scan.rewind()  # no call: text, but for its markers
        return
    scan.begin(name.strip())
    whole = yield from arguments(scan)
    yield from scan.blank()
    if fenced:
        yield from scan.take(FENCE)
    scan.end(whole)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    yield "<｜tool▁calls▁begin｜>"
    for call in calls:
        yield BEGIN
        yield Own(call.name)
        yield SEP
        yield Own(call.arguments)
        yield END
    yield "<｜tool▁calls▁end｜>"
