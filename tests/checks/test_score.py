"""A check as a score: no row without a verdict is in any number, and the interval is Wilson's."""

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from said import said

from myna.checks import Verdict, named
from myna.checks.check import AnyCheck
from myna.checks.score import Scores, score
from myna.records import Candidate, Conversation, Message, MynaError, ProviderError, RequestError, Unavailable, Unjudged


def rows(n: int) -> Iterator[tuple[Conversation, Candidate]]:
    return ((Conversation.ask(str(i)), said(str(i))) for i in range(n))


async def third(conversation: Conversation, candidate: Candidate) -> Verdict:
    n = int(candidate.text)
    await asyncio.sleep(0.001 * (5 - n % 5))  # the later ones end first
    if n % 3 == 2:
        raise Unjudged("nothing")
    return Verdict(n % 3 == 0, 0.5 if n % 3 else 1.0)


def test_rows_without_a_verdict_are_counted_and_in_no_mean() -> None:
    found = asyncio.run(score(third, rows(9)))
    assert (found.n, found.n_failed, found.passed, found.mean) == (6, 3, 3, 0.75)
    assert [isinstance(one, Unjudged) for one in found.found] == [False, False, True] * 3
    assert str(found) == "3 of 6 passed (19% to 81% at 95 %), mean score 0.750; no verdict about 3 more"


def test_no_verdict_at_all_is_no_number() -> None:
    found = Scores((Unjudged("x"),))
    assert (found.n, found.n_failed, found.mean, found.interval) == (0, 1, None, None)
    assert str(found) == "no verdict about any of 1 rows"


def test_what_takes_too_long_is_unjudged() -> None:
    async def slow(conversation: Conversation, candidate: Candidate) -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError

    assert asyncio.run(score(slow, rows(2), seconds=0.01)).n_failed == 2


@pytest.mark.parametrize("error", [ProviderError("worker died", status=500), Unavailable("busy")])
def test_an_endpoint_that_fails_at_some_rows_loses_those_alone(error: MynaError) -> None:
    async def judge(conversation: Conversation, candidate: Candidate) -> Verdict:
        if int(candidate.text) % 2:
            raise error
        return Verdict.of(True)

    found = asyncio.run(score(judge, rows(5)))
    assert (found.n, found.n_failed) == (3, 2)
    assert str(found.found[1]) == str(error)
    with pytest.raises(type(error), match=str(error)):
        asyncio.run(score(judge, [(Conversation.ask("1"), said("1"))] * 3))


def test_what_waits_begins_in_the_loop_and_what_computes_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun in a thread, what is cancelled before it comes back is awaited by nobody."""

    class Computes:
        def __call__(self, conversation: Conversation, candidate: Candidate) -> Verdict:
            return Verdict.of(True)

    class Waits:
        async def __call__(self, conversation: Conversation, candidate: Candidate) -> Verdict:
            return Verdict.of(True)

    async def waits(conversation: Conversation, candidate: Candidate) -> Verdict:
        return Verdict.of(True)

    async def to_thread(check: AnyCheck, *given: Any) -> Any:
        in_threads.append(check)
        return check(*given)

    in_threads: list[AnyCheck] = []
    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    computes = Computes()
    assert [asyncio.run(score(check, rows(1))).passed for check in (Waits(), waits, computes)] == [1, 1, 1]
    assert in_threads == [computes]


def test_an_error_of_a_check_is_an_error() -> None:
    def broken(conversation: Conversation, candidate: Candidate) -> Verdict:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(score(broken, rows(3)))


@given(st.integers(0, 60), st.integers(1, 60))
def test_the_interval_is_where_the_score_test_would_not_refuse(passed: int, n: int) -> None:
    """Wilson: the shares p with |share - p| <= 1.96 sqrt(p (1 - p) / n); at its ends the two sides are equal."""
    passed = min(passed, n)
    found = Scores(tuple(Verdict.of(i < passed) for i in range(n))).interval
    assert found is not None
    low, high = found
    assert 0 <= low <= passed / n <= high <= 1
    for end in (low, high):
        assert abs(abs(passed / n - end) - 1.96 * math.sqrt(end * (1 - end) / n)) < 1e-9


@pytest.mark.parametrize(
    "how", [{"at_once": 0}, {"at_once": -3}, {"seconds": 0.0}, {"seconds": -1.0}, {"seconds": float("nan")}]
)
def test_a_way_of_scoring_in_which_nothing_can_be_done_is_refused(how: dict[str, Any]) -> None:
    """None at once would wait for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(2):
            await score(named("pii"), [(Conversation.ask("?"), Candidate((Message("assistant", "x"),)))], **how)

    with pytest.raises(RequestError):
        asyncio.run(bounded())
