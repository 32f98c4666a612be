"""<function=name><parameter=key>value</parameter></function> in <tool_call>: Qwen3-Coder, and Nemotron after it.

Values are bare text; whether that is a string, the tool's schema says.
"""

from collections.abc import Iterator, Sequence

from myna.chat.arguments import Members, written
from myna.chat.calls import block, until
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import Style, ToolCall

SIGNS = ("<tool_call>", "<function=", "<parameter=")
MARKERS = ("<tool_call>", "</tool_call>", "<function=", "</function>", "</parameter>")
STYLE = Style("text", "<parameter=", ">\n", "\n</parameter>\n")


def parse(scan: Scanner) -> Steps[None]:
    while mark := (yield from until(scan, *MARKERS)):
        if mark == "<function=":
            yield from _function(scan)
        elif mark == "<tool_call>":
            yield from block(scan)  # some write JSON here, as Hermes does


def _function(scan: Scanner) -> Steps[None]:
    name, _ = yield from scan.before(">")
    scan.begin(name.strip())
    members = Members(scan, scan.tools.get(name.strip()), frame="\n")
    closing = ""
    while not closing:
        yield from scan.blank()
        closing = yield from scan.take("</function>", "</tool_call>")
        if closing or not (yield from scan.take("<parameter=")):
            break
        key, _ = yield from scan.before(">")
        if not (yield from members.add_upto(key.strip(), "</parameter>")):
            scan.end(whole=False)
            return
    if closing:
        members.close()
    scan.end(whole=bool(closing))


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for i, call in enumerate(calls):
        yield "\n<tool_call>\n<function=" if i else "<tool_call>\n<function="
        yield Own(call.name)
        yield ">\n"
        yield from written(STYLE, call)
        yield "</function>\n</tool_call>"
