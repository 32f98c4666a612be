"""Comparing with a target: what counts as the same, in English and in Chinese."""

import pytest

from myna.checks import contains, exact, named, number
from myna.checks.names import PLAIN
from myna.records import Candidate, Conversation, DataError, Message


def judged(check: str, said: str, target: object) -> bool:
    asked = Conversation.ask("?", target=target)
    verdict = named(check)(asked, Candidate((Message("assistant", said),)))
    assert verdict.score == float(verdict.ok)
    return verdict.ok


@pytest.mark.parametrize(
    ("said", "target", "ok"),
    [
        ("The sum is 12, so 1,234.50", "1234.5", True),
        ("#### 42", "some work\n#### 42", True),
        ("42 or 43", "42", False),
        ("−7", -7, True),
        ("共有 18 只。", 18, True),
        ("７", "7", True),
        ("none", "3", False),
        ("0.50", ".5", True),
        ("1,2", "2", True),
        ("9" * 5000, "9", False),
    ],
)
def test_the_last_number_counts(said: str, target: object, ok: bool) -> None:
    assert judged("number", said, target) is ok


def test_exact_forgives_white_space_alone_and_contains_forgives_case() -> None:
    assert judged("exact", " Paris\n", "Paris")
    assert not judged("exact", "paris", "Paris")
    assert judged("contains", "It is PARIS.", "paris")
    assert not judged("contains", "It is Rome.", "paris")


def test_what_cannot_be_compared_is_an_error() -> None:
    with pytest.raises(DataError, match="no target"):
        judged("exact", "x", None)
    with pytest.raises(DataError, match="holds no number"):
        judged("number", "x", "none")


def test_checks_are_found_by_name() -> None:
    assert {named(name) for name in PLAIN} == {exact, contains, number}
    with pytest.raises(DataError, match="Did you mean number"):
        named("numbr")
