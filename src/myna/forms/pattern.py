"""Regular expressions of JSON Schema as expressions over JSON text, so that they can be intersected and complemented.

A schema speaks of a string's characters, a grammar of how they are written: `"` is two characters there. Every string is
written in one way here (escapes only where JSON needs them, or `bare`), so the complement of a language is that of its texts.
"""

import re
from collections.abc import Callable, Iterable
from re import _constants as sre
from re import _parser
from typing import Any

Ranges = tuple[tuple[int, int], ...]
"""Characters, as ranges of code points in order, both ends included."""
Writer = Callable[[Ranges], str]
"""An expression of one of some characters."""

LAST = 0x10FFFF
SURROGATES = ((0xD800, 0xDFFF),)
ESCAPED = {0x22: '\\\\"', 0x5C: r"\\\\", 0x08: r"\\b", 0x0C: r"\\f", 0x0A: r"\\n", 0x0D: r"\\r", 0x09: r"\\t"}
WRITTEN_OUT: Ranges = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C))
_CONTROL = re.compile(r"(?<!\\)((?:\\\\)*)\\c([A-Za-z])")
MOST = 2000  # repetitions and characters; llguidance has limits of its own

# ECMA-262's classes, which know ASCII alone, but for white space.
DIGIT: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: Ranges = (
    (0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
LINE_ENDS: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))


class UnsupportedPattern(Exception):
    """An expression that is not regular, or says what we do not read."""


def without(some: Ranges) -> Ranges:
    """All other characters."""
    found, start = [], 0
    for low, high in sorted((*some, *SURROGATES)):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return (*found, *(((start, LAST),) if start <= LAST else ()))


def characters(some: Ranges) -> str:
    """One of these characters, as JSON writes it."""
    plain = without((*without(some), *WRITTEN_OUT))
    options = ["[" + "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in plain) + "]"] if plain else []
    for low, high in WRITTEN_OUT:
        for code in range(low, high + 1):
            if any(start <= code <= end for start, end in some):
                options.append(ESCAPED.get(code, f"\\\\u{code:04x}"))
    return f"({'|'.join(options)})" if options else NOTHING


def bare(some: Ranges) -> str:
    """One of these characters, as it is."""
    plain = without(without(some))
    return "[" + "".join(f"\\x{{{low:x}}}-\\x{{{high:x}}}" for low, high in plain) + "]" if plain else NOTHING


NOTHING = "[^\\x{0}-\\x{10ffff}]"
ANY = characters(without(()))
STRING = f'"{ANY}*"'


def literal(text: str) -> str:
    """This very text."""
    return "".join(characters(((ord(c), ord(c)),)) for c in text)


def spelled(pattern: str) -> str:
    """The expression without ECMA-262's \\cX, which neither llguidance nor Python's parser knows."""
    return _CONTROL.sub(lambda found: f"{found[1]}\\x{ord(found[2]) % 32:02x}", pattern)


def searched(pattern: str, write: Writer = characters, quote: str = '"') -> str:
    """Texts in which the expression is found, between quotes. Raises UnsupportedPattern."""
    pattern = spelled(pattern)
    try:
        parsed = _parser.parse(pattern.replace("(?<", "(?P<") if re.search(r"\(\?<[A-Za-z]", pattern) else pattern)
    except (re.error, RecursionError, OverflowError) as e:
        raise UnsupportedPattern(str(e)) from None
    if parsed.state.flags & ~re.UNICODE:
        raise UnsupportedPattern("flags in a pattern")
    return quote + f"({'|'.join(_anchored([*branch], write) for branch in _branches([*parsed]))})" + quote


def _branches(items: list[Any]) -> Iterable[list[Any]]:
    """The alternatives at the top, where an anchor may stand. The parser takes a common beginning out of them."""
    for i, (op, value) in enumerate(items):
        if op is sre.BRANCH and (i == 0 or items[0][0] is sre.AT) and i == len(items) - 1:
            for branch in value[1]:
                yield [*items[:i], *branch]
            return
    yield items


def _anchored(items: list[Any], write: Writer) -> str:
    starts = bool(items) and items[0] == (sre.AT, sre.AT_BEGINNING)
    items = items[1:] if starts else items
    ends = bool(items) and items[-1] == (sre.AT, sre.AT_END)
    items = items[:-1] if ends else items
    anything = f"{write(without(()))}*"
    return ("" if starts else anything) + _sequence(items, write) + ("" if ends else anything)


def _sequence(items: Iterable[Any], write: Writer) -> str:
    return "".join(_one(op, value, write) for op, value in items)


def _one(op: Any, value: Any, write: Writer) -> str:
    if op is sre.SUBPATTERN:
        _, added, removed, inner = value
        if added or removed:
            raise UnsupportedPattern("flags in a pattern")
        return f"({_sequence(inner, write)})"
    if op is sre.BRANCH:
        return f"({'|'.join(_sequence(branch, write) for branch in value[1])})"
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        low, high, inner = value
        if low > MOST or (high is not sre.MAXREPEAT and high > MOST):
            raise UnsupportedPattern(f"more than {MOST} repetitions")
        return f"({_sequence(inner, write)}){{{low},{'' if high is sre.MAXREPEAT else high}}}"
    if op in _CLASSES:
        return write(_CLASSES[op](value))
    raise UnsupportedPattern({sre.AT: "an anchor in the middle"}.get(op, str(op).lower()))


def _in(items: Iterable[Any]) -> Ranges:
    found: list[tuple[int, int]] = []
    negated = False
    for op, value in items:
        if op is sre.NEGATE:
            negated = True
        elif op is sre.RANGE:
            found.append(value)
        elif op is sre.LITERAL:
            found.append((value, value))
        else:
            found += _category(value)
    return without(tuple(found)) if negated else without(without(tuple(found)))


def _category(name: Any) -> Ranges:
    known = {sre.CATEGORY_DIGIT: DIGIT, sre.CATEGORY_WORD: WORD, sre.CATEGORY_SPACE: SPACE}
    negated = {
        sre.CATEGORY_NOT_DIGIT: DIGIT,
        sre.CATEGORY_NOT_WORD: WORD,
        sre.CATEGORY_NOT_SPACE: SPACE,
    }
    return known[name] if name in known else without(negated[name])


_CLASSES: dict[Any, Callable[[Any], Ranges]] = {
    sre.LITERAL: lambda code: ((code, code),),
    sre.NOT_LITERAL: lambda code: without(((code, code),)),
    sre.ANY: lambda _: without(LINE_ENDS),
    sre.IN: _in,
}
