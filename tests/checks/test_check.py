"""What a check is: plain or waiting, with a verdict or without one, by its name."""

import asyncio
import time

import pytest

from myna.checks import Named, Span, Verdict, all_of, blocking, named, verdict
from myna.checks.names import PLAIN
from myna.records import Candidate, Conversation, DataError, Message, Unjudged

ASKED = Conversation.ask("?", target="5")


def said(text: str) -> Candidate:
    return Candidate((Message("assistant", text),))


def short(conversation: Conversation, candidate: Candidate) -> Verdict:
    return Verdict(len(candidate.text) < 9, 0.5, "too long", (Span(0, len(candidate.text), "long"),))


async def waits(conversation: Conversation, candidate: Candidate) -> Verdict:
    await asyncio.sleep(0)
    return short(conversation, candidate)


async def silent(conversation: Conversation, candidate: Candidate) -> Verdict:
    raise Unjudged("it said nothing")


def test_a_check_that_waits_says_what_a_plain_one_says() -> None:
    for text in ("short", "much too long"):
        expected = short(ASKED, said(text))
        for check in (short, waits):
            assert asyncio.run(verdict(check, ASKED, said(text))) == expected
            assert blocking(check)(ASKED, said(text)) == expected


def test_no_verdict_is_no_score() -> None:
    with pytest.raises(Unjudged, match="it said nothing"):
        asyncio.run(verdict(silent, ASKED, said("x")))
    with pytest.raises(Unjudged, match="it said nothing"):
        blocking(silent)(ASKED, said("x"))
    with pytest.raises(Unjudged, match="it said nothing"):
        blocking(all_of({"short": short, "silent": silent}))(ASKED, said("x"))


def test_time_ends_a_check_whichever_kind_it_is() -> None:
    async def forever(conversation: Conversation, candidate: Candidate) -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError

    def slow(conversation: Conversation, candidate: Candidate) -> Verdict:
        time.sleep(0.2)
        return Verdict.of(True)

    for check in (forever, slow):
        with pytest.raises(Unjudged, match=r"no verdict in 0.01 seconds"):
            asyncio.run(verdict(check, ASKED, said("x"), 0.01))


def test_all_of_passes_where_all_pass_and_says_who_does_not() -> None:
    both = blocking(all_of({"short": short, "number": named("number")}))  # type: ignore[dict-item]
    assert both(ASKED, said("5")).ok
    found = both(ASKED, said("6"))
    assert (found.ok, found.score, found.reason) == (False, 0.25, "number: said 6, wanted 5")
    assert not both(ASKED, said("very long, but 5")).ok


def test_several_names_are_one_check() -> None:
    check = blocking(named("[number, exact]"))
    assert check(ASKED, said("5")).ok
    assert not check(ASKED, said("it is 5")).ok


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("numbr", "Did you mean number"),
        ("mean", r"sql\.$"),  # and no hint: it is not human, nor is rouge a regex
        ("rouge", r"sql\.$"),
        ({"number": {"digits": 3}}, "takes no arguments"),
        ({"number": 3}, "arguments have names"),
        ({"number": {}, "exact": {}}, "one name"),
        ([3], "checks.0: a check is a name"),
        ("{", "names no check"),
    ],
)
def test_what_names_no_check_is_said(spec: object, error: str) -> None:
    with pytest.raises(DataError, match=error):
        named(spec)


def test_a_plain_name_needs_nothing() -> None:
    assert all(Named.from_json(name).needs == () for name in PLAIN)
