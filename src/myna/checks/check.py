"""What a check is: a function that says of one candidate whether it is good. The same function guards an answer before anybody sees
it, scores an evaluation and rewards a model in training.

    def short(conversation: Conversation, candidate: Candidate) -> Verdict:
        return Verdict.of(len(candidate.text) < 200, f"{len(candidate.text)} characters")

One that has to wait, for a model or a person, is an `async def`. Where no verdict can be had (the judge said nothing that can be
read, time is up) a check raises Unjudged, which is an outcome of its own: it is counted, and it is never a score.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction

from myna.records import Candidate, Conversation, Unjudged


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of the candidate's text, and what is there."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok`, and a score from 0 to 1 of how well; `reason` is for people, `spans` says which part of the text it is about."""

    ok: bool
    score: float
    reason: str = ""
    spans: tuple[Span, ...] = ()

    @classmethod
    def of(cls, ok: bool, reason: str = "", spans: tuple[Span, ...] = ()) -> "Verdict":
        return cls(ok, float(ok), reason, spans)


Check = Callable[[Conversation, Candidate], Verdict]
AsyncCheck = Callable[[Conversation, Candidate], Awaitable[Verdict]]
AnyCheck = Check | AsyncCheck


async def verdict(
    check: AnyCheck, conversation: Conversation, candidate: Candidate, seconds: float | None = None
) -> Verdict:
    """What a check of either kind says, in at most `seconds`. Raises Unjudged where nothing can be said, or not in time."""
    try:
        async with asyncio.timeout(seconds):
            found: Verdict | Awaitable[Verdict]
            if _waits(check):
                found = check(conversation, candidate)
            else:  # what it computes holds nobody else up
                found = await asyncio.to_thread(check, conversation, candidate)
            return found if isinstance(found, Verdict) else await found
    except TimeoutError:
        raise Unjudged(f"no verdict in {seconds} seconds") from None


def blocking(check: AnyCheck) -> Check:
    """For whoever cannot wait otherwise, a trainer for one: the same check as a plain function. Not inside an event loop."""

    def wait(conversation: Conversation, candidate: Candidate) -> Verdict:
        found = check(conversation, candidate)
        return found if isinstance(found, Verdict) else asyncio.run(_awaited(found))

    return wait


def all_of(checks: dict[str, AnyCheck]) -> AsyncCheck:
    """One check that passes where all pass; its score is their mean. Unjudged where one of them is."""

    async def every(conversation: Conversation, candidate: Candidate) -> Verdict:
        found = {name: await verdict(check, conversation, candidate) for name, check in checks.items()}
        reasons = "; ".join(f"{name}: {one.reason}" for name, one in found.items() if not one.ok)
        spans = tuple(span for one in found.values() for span in one.spans)
        score = sum(one.score for one in found.values()) / max(len(found), 1)
        return Verdict(all(one.ok for one in found.values()), score, reasons, spans)

    return every


def _waits(check: AnyCheck) -> bool:
    """Whether it is an `async def`, or has one as its __call__."""
    return iscoroutinefunction(check) or iscoroutinefunction(type(check).__call__)


async def _awaited(found: Awaitable[Verdict]) -> Verdict:
    return await found
