"""<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>: GLM 4.5 and later.

Values are bare text; whether that is a string, the tool's schema says.
"""

from collections.abc import Iterator, Sequence

from myna.chat.arguments import Members, written
from myna.chat.calls import block, until
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import Style, ToolCall

SIGNS = ("<tool_call>", "<arg_key>", "<arg_value>")
MARKERS = ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
STYLE = Style("text", "\n<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>")


def parse(scan: Scanner) -> Steps[None]:
    while mark := (yield from until(scan, *MARKERS)):
        if mark == "<tool_call>":
            yield from scan.blank()
            if (yield from scan.peek()) in ("{", "["):
                yield from block(scan)
            else:
                yield from _call(scan)


def _call(scan: Scanner) -> Steps[None]:
    head, mark = yield from scan.before("<arg_key>", "</tool_call>")
    name = head.strip()
    if not mark or not name or len(name.split()) > 1:
        scan.back(head + mark)  # no call: text, but for its markers
        return
    scan.begin(name)
    members = Members(scan, scan.tools.get(name))
    while mark == "<arg_key>":
        key, _ = yield from scan.before("</arg_key>")
        yield from scan.blank()
        yield from scan.take("<arg_value>")
        if not (yield from members.add_upto(key.strip(), "</arg_value>")):
            scan.end(whole=False)
            return
        yield from scan.blank()
        mark = yield from scan.take("<arg_key>", "</tool_call>")
    if mark:
        members.close()
    scan.end(whole=bool(mark))


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for i, call in enumerate(calls):
        yield "\n<tool_call>" if i else "<tool_call>"
        yield Own(call.name)
        yield from written(STYLE, call)
        yield "\n</tool_call>"
