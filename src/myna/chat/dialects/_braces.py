"""call:name{key:value,...}, what FunctionGemma and Gemma 4 have in common. Names are bare, a string stands between two of one
control token, lists and objects nest, and all else is JSON.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from myna.chat.arguments import Members, from_python, written
from myna.chat.calls import quoted, until
from myna.chat.dialects import Own
from myna.chat.scan import Scanner, Steps
from myna.records import Style, ToolCall

DEEPEST = 64  # lists and objects inside of one another that are read


class Tokens(NamedTuple):
    """What opens and closes a call, a tool's result, and a string."""

    opener: str
    closer: str
    result: str
    result_end: str
    quote: str


def parse(scan: Scanner, tokens: Tokens) -> Steps[None]:
    while mark := (yield from until(scan, *tokens)):
        if mark == tokens.opener:
            yield from _call(scan, tokens.quote)
        elif mark == tokens.result:  # which is not for a model to say
            yield from scan.before(tokens.result_end)


def _call(scan: Scanner, quote: str) -> Steps[None]:
    scan.note()
    yield from scan.blank()
    called = yield from scan.take("call:")
    name = yield from scan.word()
    if not (called and name and (yield from scan.take("{"))):
        scan.rewind()
        return
    scan.begin(name)
    members = Members(scan, scan.tools.get(name))
    whole = yield from _members(scan, quote, members.add, DEEPEST)
    if whole:
        members.close()
    scan.end(whole)


def _members(scan: Scanner, quote: str, add: Callable[[str, str], None], depth: int) -> Steps[bool]:
    """Read what stands in braces, and the closing one. Whether it came."""
    yield from scan.blank()
    if (yield from scan.take("}")):
        return True
    while True:
        yield from scan.blank()
        if (yield from scan.take(quote)):
            key, _ = yield from scan.before(quote)
            mark = yield from scan.take(":")
        else:
            key, mark = yield from scan.before(":", "}", quote)
        value, whole = (yield from _value(scan, quote, depth)) if mark == ":" else ("", False)
        if not whole:
            return False
        yield from scan.blank()
        if not (end := (yield from scan.take(",", "}"))):
            return False
        add(key.strip(), value)
        if end == "}":
            return True


def _value(scan: Scanner, quote: str, depth: int) -> Steps[tuple[str, bool]]:
    """(a value as JSON, whether it is whole)."""
    yield from scan.blank()
    if (yield from scan.take(quote)):
        text, mark = yield from scan.before(quote)
        return quoted(text), bool(mark)
    if depth and (yield from scan.take("{")):
        found: list[str] = []
        whole = yield from _members(scan, quote, lambda key, value: found.append(f"{quoted(key)}: {value}"), depth - 1)
        return f"{{{', '.join(found)}}}", whole
    if depth and (yield from scan.take("[")):
        return (yield from _list(scan, quote, depth - 1))
    text, whole = yield from scan.value()
    return from_python(text), whole and bool(text)


def _list(scan: Scanner, quote: str, depth: int) -> Steps[tuple[str, bool]]:
    found: list[str] = []
    yield from scan.blank()
    end = yield from scan.take("]")
    while not end:
        value, whole = yield from _value(scan, quote, depth)
        found.append(value)
        yield from scan.blank()
        end = (yield from scan.take(",", "]")) if whole else ""
        if not end:
            return "", False
        end = end.removeprefix(",")
    return f"[{', '.join(found)}]", True


def write(calls: Sequence[ToolCall], tokens: Tokens, style: Style) -> Iterator[str]:
    for call in calls:
        yield tokens.opener
        yield Own(f"call:{call.name}{{")
        yield from written(style, call)
        yield Own("}")
        yield tokens.closer
