"""Finished answers of expressions and grammars, read by somebody else than llguidance: Rust's regex automata (by way of
jsonschema-rs, linear in the text) and Lark's own Earley parser. Both run in a child process.

What is written in a dialect that the other reader takes for something else is not read at all: `reads` says so.
"""

import re
from functools import lru_cache

import jsonschema_rs
from jsonschema_rs import RegexOptions
from lark import Lark
from lark.exceptions import LarkError

BLANKS = r" \t\n\r\f\v"  # \s, to us; ECMA-262 and Rust know more, and not the same
AUTOMATON = 16 << 20  # bytes
_SAME = re.compile(
    r"\\([dDwWntrfv]|[^\w\s]|x[0-9a-fA-F]{2}|x\{[0-9a-fA-F]+\}|u[0-9a-fA-F]{4}|[pP](\w|\{\w+\}))", re.ASCII
)
_GROUP = re.compile(r"\(\?(:|P?<[A-Za-z_]\w*>|[is]+:)", re.ASCII)
_PARTS = re.compile(  # of a Lark grammar: what braces mean nothing in, then repetitions
    r"""("(?:\\.|[^"\\\n])*"|/(?:\\.|\[(?:\\.|[^\]\\])*\]|[^/\\\n])+/|//[^\n]*)|\{\s*(\d+)\s*(?:,\s*(\d+)\s*)?\}"""
)


def reads(kind: str, source: str) -> bool:
    """Whether answers of this expression or grammar can be checked."""
    try:
        return _reader(kind, source) is not None
    except (LarkError, re.error, ValueError, RecursionError):
        return False


def problem(kind: str, source: str, text: str) -> str | None:
    """Why a finished answer is none of those that the expression or grammar says; None where it is one."""
    found = _reader(kind, source)
    if isinstance(found, str):
        same = jsonschema_rs.is_valid({"pattern": found}, text, pattern_options=_options())
        return None if same else "it does not match the expression"
    if found is not None:
        try:
            found.parse(text)
        except LarkError as e:
            return f"the grammar does not derive it: {str(e).splitlines()[0]}"[:300]
    return None


def ecma(source: str) -> str | None:
    """The expression between anchors, where ECMA-262 reads it as we do; None where the two part: nested and POSIX classes,
    operations on classes, flags that are not i or s, \\S inside a class."""
    found, at, inside = ["^(?:"], 0, False
    while at < len(source):
        if source[at : at + 2] in ("\\s", "\\S"):
            if inside and source[at + 1] == "S":
                return None
            found.append(BLANKS if inside else f"[{'^' * (source[at + 1] == 'S')}{BLANKS}]")
            at += 2
            continue
        piece = _SAME.match(source, at) or (None if inside else _GROUP.match(source, at))
        one = piece[0] if piece else source[at]
        if one == "\\" or (one == "(" and source[at + 1 : at + 2] == "?" and not inside):
            return None
        if inside and (one == "[" or source[at : at + 2] in ("&&", "--", "~~")):
            return None
        if one == "[":
            inside = True
            first = re.compile(r"\[\^?\]?").match(source, at)
            assert first
            if first[0].endswith("]"):
                return None  # a bracket that is a member here closes an empty class there
        elif one == "]":
            inside = False
        found.append(one)
        at += len(one)
    return "".join([*found, ")$"])


@lru_cache(64)
def _reader(kind: str, source: str) -> str | Lark | None:
    if kind == "grammar":
        if re.search(r"%lark|%json|<\[", source):
            return None  # llguidance's own; most of these are grammars of calls, and long
        return Lark(_lark(source), parser="earley", lexer="dynamic", ambiguity="forest")
    pattern = ecma(source)
    if pattern is not None:
        for whole in (source, pattern):  # a)|(b is no expression, though it is one between brackets
            jsonschema_rs.is_valid({"pattern": whole}, "", pattern_options=_options())
    return pattern


def _lark(source: str) -> str:
    """llguidance's dialect as Lark's own, as far as the two differ in spelling alone. No file is imported."""
    if re.search(r"%import(?!\s+common\b)", source):
        raise ValueError("only `common` is imported")
    plain = re.sub(r"(?m)^%llguidance \{\}$", "", source)
    return _PARTS.sub(lambda m: m[1] or f" ~ {m[2]}..{m[3] or m[2]}", plain)


def _options() -> RegexOptions:
    return RegexOptions(size_limit=AUTOMATON, dfa_size_limit=AUTOMATON)
