"""Calls written as JSON objects, which most syntaxes share: {"name": ..., "arguments": {...}}.

Models write them in OpenAI's envelope too, with the members in any order, `parameters` for `arguments`, the arguments as
a string of JSON, several in a list. Where a marker announces them all of that is a call. Where none does, in a code fence or
at the start of a line, only an object that holds nothing else and names a known tool is one: an answer in JSON stays text.
"""

import json
from collections.abc import Callable, Sequence

from myna.chat.scan import Scanner, Steps
from myna.chat.values import decode

Loose = Callable[[Scanner], Steps[bool]]
NAMES = ("name", "tool_name", "function_name")
ARGUMENTS = ("arguments", "parameters", "args", "kwargs")
IDS = ("id", "tool_call_id", "call_id")
FENCE = "```"
LANGUAGES = ("json", "tool_call", "tool_calls", "xml")


def until(scan: Scanner, *marks: str, loose: "Loose | None" = None) -> Steps[str]:
    """As Scanner.until; on the way, calls of known tools without a marker, in a fence or at the start of a line, are read.

    loose    reads calls that begin with a bracket in some other way than as JSON
    """
    begins = (FENCE, "{", "[") if scan.tools else ()
    while mark := (yield from scan.until(*marks, *begins)):
        if scan.tired:
            yield from _as_text(scan, mark, marks)
            return ""
        if mark in marks:
            if mark in scan.markers:
                scan.announced()
            return mark
        if mark == FENCE:
            yield from _fence(scan)
        elif not scan.fresh:
            scan.say(mark)
        else:
            scan.back(mark)
            if (yield from _row(scan, sure=False)) or (loose and (yield from loose(scan))):
                continue
            scan.say(scan.eat(1))
    return ""


def _as_text(scan: Scanner, mark: str, marks: tuple[str, ...]) -> Steps[None]:
    """The rest of an answer, which goes on with one of its marks, as text, but for the control tokens."""
    while mark:
        scan.say("" if mark in scan.markers else mark)
        mark = yield from scan.until(*marks)


def marked(scan: Scanner, openers: Sequence[str], closers: Sequence[str] = ()) -> Steps[None]:
    """A whole answer in which an opener announces calls in JSON. What is none is text; the markers never are."""
    while mark := (yield from until(scan, *openers, *closers)):
        if mark in openers:
            yield from block(scan)


def block(scan: Scanner) -> Steps[bool]:
    """The calls that a marker announced. Returns whether there were any."""
    yield from scan.blank()
    found = yield from _row(scan, sure=True)
    if found:
        yield from scan.blank()
        yield from scan.take("}")  # a brace too many is a common slip
    return found


def _fence(scan: Scanner) -> Steps[None]:
    """After a fence: calls, up to the closing fence. Else it is text, and so is what it encloses."""
    scan.note()
    yield from scan.take(*LANGUAGES)
    yield from scan.blank()
    if (yield from _row(scan, sure=False)):
        yield from scan.blank()
        yield from scan.take(FENCE)
        return
    scan.rewind()
    scan.say(FENCE)


def read_calls(scan: Scanner, *, sure: bool = True) -> Steps[bool]:
    """Read one call, or a list of them. Returns whether there was one; if not, nothing has been read.

    sure    a marker announced it: any object with a name is a call
    """
    if (yield from scan.peek()) != "[":
        return (yield from read_call(scan, sure=sure))
    scan.note()
    scan.eat(1)
    yield from scan.blank()
    if not (yield from read_call(scan, sure=sure)):
        scan.rewind()
        return False
    while (yield from _separator(scan)) and (yield from read_call(scan, sure=True)):
        pass
    yield from scan.blank()
    yield from scan.take("]")
    return True


def read_call(scan: Scanner, *, sure: bool = True, id: str = "") -> Steps[bool]:
    """Read one call. Returns whether it was one; if not, nothing has been read."""
    scan.note()
    call = _Call(scan, sure, id)
    whole = yield from call.object()
    if call.name and not call.begun and (whole or sure):
        call.begin("{}" if whole else "")
    if not call.begun:
        scan.rewind()
        return False
    scan.end(whole)
    return True


def _separator(scan: Scanner) -> Steps[bool]:
    """Read what stands between calls; nothing, if none follows. Whether one may."""
    scan.note()
    yield from scan.blank()
    yield from scan.take(",", ";")
    yield from scan.blank()
    if (yield from scan.peek()) in ("{", "["):
        scan.drop()
        return True
    scan.rewind()
    return False


def _row(scan: Scanner, *, sure: bool) -> Steps[bool]:
    """Read calls, one after the other. Returns whether there was one."""
    found = yield from read_calls(scan, sure=sure)
    more = found
    while more and (yield from _separator(scan)):
        more = yield from read_calls(scan, sure=sure)
    return found


class _Call:
    """One object being read. It becomes a call as soon as its name and the beginning of its arguments are known."""

    def __init__(self, scan: Scanner, sure: bool, id: str):
        self.scan, self.sure, self.id = scan, sure, id
        self.name = ""
        self.begun = False
        self._early: str | None = None  # arguments that came before the name
        self._inside = False  # of OpenAI's envelope

    def begin(self, arguments: str) -> None:
        self.begun = True
        self.scan.begin(self.name, self.id)
        self.scan.write(arguments)

    def object(self) -> Steps[bool]:
        """Read {"key": value, ...}. False if it breaks off or is no call."""
        scan = self.scan
        if not (yield from scan.take("{")):
            return False
        while True:
            yield from scan.blank()
            if (yield from scan.take("}")):
                return True
            key = (yield from scan.string()) if (yield from scan.peek()) == '"' else None
            yield from scan.blank()
            if key is None or not (yield from scan.take(":")):
                return False
            yield from scan.blank()
            if not (yield from self._member(key)):
                return False
            yield from scan.blank()
            if not (yield from scan.take(",")):
                return bool((yield from scan.take("}")))

    def _member(self, key: str) -> Steps[bool]:
        scan = self.scan
        if key == "function" and not self._inside and (yield from scan.peek()) == "{":
            self._inside = True
            return (yield from self.object())
        if key in (*NAMES, "function") and not self.name:
            return (yield from self._read_name())
        if key in ARGUMENTS and not self.begun:
            return (yield from self._arguments())
        if not (self.sure or self.begun or key in (*IDS, "type")):
            return False
        text, whole = yield from scan.value()
        if key in IDS and isinstance(id := decode(text), str):
            self.id = id
        return whole

    def _read_name(self) -> Steps[bool]:
        name = yield from self.scan.string()
        if not name or not (self.sure or name in self.scan.tools):
            return False
        self.name = name
        if self._early is not None:
            self.begin(self._early)
        return True

    def _arguments(self) -> Steps[bool]:
        """An object is passed on as it comes; what is none has to be seen whole."""
        scan = self.scan
        if self.name and (yield from scan.peek()) == "{":
            self.begun = True
            scan.begin(self.name, self.id)
            return (yield from scan.stream_value(scan.write))
        text, whole = yield from scan.value()
        self._early = as_object(text) if whole else text
        if self.name:
            self.begin(self._early)
        return whole


def arguments(scan: Scanner) -> Steps[bool]:
    """Arguments that stand by themselves, of a call that has begun. Whether they are whole."""
    yield from scan.blank()
    if (yield from scan.peek()) == "{":
        return (yield from scan.stream_value(scan.write))
    text, whole = yield from scan.value()
    whole = whole or bool(not text and (yield from scan.peek()))
    scan.write(as_object(text) if whole else text)
    return whole


def as_object(text: str) -> str:
    """Arguments as OpenAI has them: a string that holds JSON is that JSON, and none are {}."""
    value = decode(text) if text.startswith('"') else None
    text = value if isinstance(value, str) else text
    return "{}" if text.strip() in ("", "null", "None") else text


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
