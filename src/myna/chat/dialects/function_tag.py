"""<function=name>{...}</function>: Functionary 3.1, and what Llama 3.1 writes for tools of one's own."""

from collections.abc import Iterator, Sequence

from myna.chat.calls import arguments, until
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

OPENER, CLOSER = "<function=", "</function>"
SIGNS = MARKERS = (OPENER, CLOSER)


def parse(scan: Scanner) -> Steps[None]:
    while mark := (yield from until(scan, OPENER, CLOSER)):
        if mark == OPENER:
            yield from read_tag(scan)


def read_tag(scan: Scanner) -> Steps[None]:
    """After the opener: name, arguments."""
    name, mark = yield from scan.before(">")
    if not mark:
        scan.back(name)
        return
    scan.begin(name.strip())
    whole = yield from arguments(scan)
    scan.end(whole)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for call in calls:
        yield OPENER
        yield Own(call.name)
        yield ">"
        yield Own(call.arguments)
        yield CLOSER
