""">>>name, a line end, and the arguments; >>>all before text: Functionary 3.2. The prompt ends with the first >>>."""

from collections.abc import Iterator, Sequence

from myna.chat.calls import arguments
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import ToolCall

OPENER = ">>>"
SIGNS = (">>>all",)
ALWAYS = True
TEXT = "all\n"


def parse(scan: Scanner) -> Steps[None]:
    yield from scan.take(OPENER)
    mark = OPENER
    while mark:
        name = yield from scan.word()
        if name == "all":
            yield from scan.take("\n")
        elif name and (yield from scan.take("\n")):
            scan.begin(name)
            whole = yield from arguments(scan)
            scan.end(whole)
            yield from scan.blank()
        else:
            scan.stray(name)
        mark = yield from scan.until(OPENER)


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for i, call in enumerate(calls):
        yield OPENER if i else ""
        yield Own(f"{call.name}\n{call.arguments}")
