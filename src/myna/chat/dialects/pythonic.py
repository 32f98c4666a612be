"""[name(key="value"), ...], as Python has it: Llama 4, the smaller Llamas 3.2, LFM2, and others after ToolACE. Never evaluated."""

from collections.abc import Iterator, Sequence

from myna.chat.arguments import Members, from_python, written
from myna.chat.calls import until
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.chat.values import PythonValue
from myna.records import Style, ToolCall

SIGNS = ("<|python_start|>",)
OPENERS = ("<|python_start|>", "<|tool_call_start|>")  # the second is LFM2's
MARKERS = (*OPENERS, "<|python_end|>", "<|tool_call_end|>")
STYLE = Style("python", comma=", ")


def parse(scan: Scanner) -> Steps[None]:
    while mark := (yield from until(scan, *MARKERS, loose=read_calls)):
        if mark in OPENERS:
            yield from read_calls(scan, sure=True)


def read_calls(scan: Scanner, *, sure: bool = False) -> Steps[bool]:
    """Read a call, or a list of them. Returns whether there was one; if not, nothing has been read."""
    scan.note()
    yield from scan.blank()
    listed = yield from scan.take("[")
    found = False
    while (yield from _call(scan, sure or found)):
        found = True
        yield from scan.blank()
        if not (yield from scan.take(",", ";")):
            break
        yield from scan.blank()
    if not found:
        scan.rewind()
    elif listed:
        yield from scan.take("]")
    return found


def _call(scan: Scanner, sure: bool) -> Steps[bool]:
    scan.note()
    yield from scan.blank()
    name = yield from scan.word()
    name = name if name in scan.tools else name.removesuffix(".call")
    if not (name and (yield from scan.take("("))) or not (sure or name in scan.tools):
        scan.rewind()
        return False
    scan.begin(name)
    members = Members(scan, scan.tools.get(name))
    whole = yield from _arguments(scan, members)
    if whole:
        members.close()
    scan.end(whole)
    return True


def _arguments(scan: Scanner, members: Members) -> Steps[bool]:
    """Read key=value, ... and the closing bracket. Whether it came."""
    while True:
        yield from scan.blank()
        if (yield from scan.take(")")):
            return True
        key, value = yield from _argument(scan)
        yield from scan.blank()
        mark = yield from scan.take(",", ")")
        if value and (mark or (yield from scan.peek())):
            members.add(key or members.name_of(members.count), from_python(value))
        if mark != ",":
            return mark == ")"


def _argument(scan: Scanner) -> Steps[tuple[str, str]]:
    """(key, value); the key is "" where there is none."""
    scan.note()
    key = yield from scan.word()
    yield from scan.blank()
    if not (key and (yield from scan.take("="))):
        scan.rewind()
        key = ""
    else:
        scan.drop()
    value, _ = yield from scan.value(PythonValue())
    return key, value


def write(calls: Sequence[ToolCall]) -> Iterator[str]:
    for i, call in enumerate(calls):
        yield ", " if i else "["
        yield Own(call.name)
        yield "("
        yield from written(STYLE, call)
        yield ")"
    yield "]"
