"""A check as the score of an evaluation: over rows, with how many there were, and about how many there is no verdict."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from myna.checks.check import AnyCheck, Verdict, verdict
from myna.records import Candidate, Conversation, ProviderError, RequestError, Unavailable, Unjudged

Row = tuple[Conversation, Candidate]
Z = 1.96  # of 95 %


@dataclass(frozen=True, slots=True)
class Scores:
    """What a check said of each row; `reasons` where it said nothing. No number here counts a row without a verdict."""

    found: tuple[Verdict | Unjudged, ...]

    @property
    def verdicts(self) -> list[Verdict]:
        return [one for one in self.found if isinstance(one, Verdict)]

    @property
    def n(self) -> int:
        """Rows with a verdict."""
        return len(self.verdicts)

    @property
    def n_failed(self) -> int:
        """Rows without one."""
        return len(self.found) - self.n

    @property
    def passed(self) -> int:
        return sum(one.ok for one in self.verdicts)

    @property
    def mean(self) -> float | None:
        """Mean score; None where there is no verdict at all."""
        return sum(one.score for one in self.verdicts) / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the share that passes, at 95 % (Wilson 1927)."""
        if not self.n:
            return None
        n, share = self.n, self.passed / self.n
        centre, wide = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
        low, high = ((centre + side) / (1 + Z**2 / n) for side in (-wide, wide))
        return max(min(low, share), 0.0), min(max(high, share), 1.0)  # rounding moves an end past the share itself

    def __str__(self) -> str:
        if self.mean is None or self.interval is None:
            return f"no verdict about any of {self.n_failed} rows"
        low, high = self.interval
        failed = f"; no verdict about {self.n_failed} more" if self.n_failed else ""
        return f"{self.passed} of {self.n} passed ({low:.0%} to {high:.0%} at 95 %), mean score {self.mean:.3f}{failed}"


async def score(check: AnyCheck, rows: Iterable[Row], *, at_once: int = 4, seconds: float | None = None) -> Scores:
    """What the check says of each row, in their order. A row that a judge's endpoint fails at has no verdict; where it fails at every one,
    what it raised is raised. Raises RequestError for an `at_once` or `seconds` in which nothing can be done."""
    if at_once < 1:
        raise RequestError("at_once is 1 or more.", param="at_once")
    if seconds is not None and not seconds > 0:  # NaN
        raise RequestError("seconds is above 0.", param="seconds")
    gate = asyncio.Semaphore(at_once)

    async def one(conversation: Conversation, candidate: Candidate) -> Verdict | Unjudged:
        async with gate:
            try:
                return await verdict(check, conversation, candidate, seconds)
            except Unjudged as e:
                return e
            except (ProviderError, Unavailable) as e:
                failures.append(e)
                return Unjudged(str(e))

    failures: list[ProviderError | Unavailable] = []
    tasks: Sequence[asyncio.Task[Verdict | Unjudged]] = [asyncio.create_task(one(*row)) for row in rows]
    try:
        found = await asyncio.gather(*tasks)
        if failures and len(failures) == len(found):
            raise failures[0]
        return Scores(tuple(found))
    finally:  # one failed, or nobody waits any more
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
