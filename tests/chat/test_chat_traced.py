"""Traced text is the same text, and what is trusted in it was trusted before."""

import operator

import hypothesis.strategies as st
from hypothesis import example, given

from myna.chat.traced import MARKUP, Origin, Traced

USER = Origin("user", 0)
TRUSTED, TYPED = "ABX \n", "abx \n"  # letters tell the origin apart; white space is in both
trusted = st.text(TRUSTED, max_size=5).map(lambda s: (s, MARKUP))
typed = st.text(TYPED, max_size=5).map(lambda s: (s, USER))
mixed = st.lists(trusted | typed, max_size=5).map(Traced.of)
OPERATIONS = [
    lambda s, a, b: s + a,
    lambda s, a, b: str(a) + s,
    lambda s, a, b: s * 2,
    lambda s, a, b: s[1:-1],
    lambda s, a, b: s[-2:],
    lambda s, a, b: s[0] if s else s,
    lambda s, a, b: s[::-1],
    lambda s, a, b: s.strip(),
    lambda s, a, b: s.lstrip(a or None),
    lambda s, a, b: s.rstrip(a or None),
    lambda s, a, b: s.split(),
    lambda s, a, b: s.split(None, 1),
    lambda s, a, b: s.split(a or "x"),
    lambda s, a, b: s.split(a or "x", 1),
    lambda s, a, b: s.split("x"),
    lambda s, a, b: s.split("X "),
    lambda s, a, b: s.rsplit("B", 1),
    lambda s, a, b: s.replace("x", a),
    lambda s, a, b: s.replace("A", b),
    lambda s, a, b: s.rsplit(a or "x", 1),
    lambda s, a, b: s.splitlines(),
    lambda s, a, b: s.splitlines(True),
    lambda s, a, b: s.partition(a or "x"),
    lambda s, a, b: s.rpartition(a or "x"),
    lambda s, a, b: s.replace(a, b),
    lambda s, a, b: s.replace(a or "x", b, 1),
    lambda s, a, b: s.join([a, b, a]),
    lambda s, a, b: s.removeprefix(a),
    lambda s, a, b: s.removesuffix(a),
    lambda s, a, b: operator.mod("[%s|%s]", (s, a)),
    lambda s, a, b: list(s),
    lambda s, a, b: s in a,
    lambda s, a, b: s.startswith(a),
    lambda s, a, b: s == a,
    lambda s, a, b: hash(s),
]


def flat(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


@given(mixed, mixed, mixed)
def test_an_operation_gives_what_str_gives(s: Traced, a: Traced, b: Traced) -> None:
    plain = [str.__str__(x) for x in (s, a, b)]
    for operation in OPERATIONS:
        assert operation(s, a, b) == operation(*plain)


@given(mixed, mixed, mixed)
@example(Traced("A", MARKUP), Traced(""), Traced("a", USER))  # replace("", typed)
def test_no_operation_makes_typed_text_trusted(s: Traced, a: Traced, b: Traced) -> None:
    for value in (v for operation in OPERATIONS for v in flat(operation(s, a, b))):
        for text, origin in getattr(value, "parts", ()):
            assert origin != MARKUP or set(text) <= set(TRUSTED), value.parts


@given(mixed)
def test_parts_add_up(s: Traced) -> None:
    assert "".join(text for text, _ in s.parts) == s
