"""How often each step passes, what that makes of a whole run, and what trying again does to it. Counted from the journal alone.

An attempt passes if it is done and no check says otherwise. Ten steps that pass nine times of ten, each by itself, pass together in
0.9 ** 10 = 35 % of all runs.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from myna.apps.flow.attempts import ANEW
from myna.apps.flow.journal import Journal, RunRow, StepRow


@dataclass(frozen=True, slots=True)
class Rate:
    """`passed` of `of`."""

    passed: int
    of: int

    @property
    def value(self) -> float:
        return self.passed / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, at 95 % (E. B. Wilson, JASA 22, 1927)."""
        if not self.of:
            return 0.0, 1.0
        z, n, p = 1.959964, self.of, self.value
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
        return max(low, 0.0), min(high, 1.0)


@dataclass(frozen=True, slots=True)
class StepRate:
    """A step's first attempts, and what they came to in the end; `per_run`: how often it is called in a run that
    is done and calls it, on average."""

    name: str
    first: Rate
    last: Rate
    attempts: int
    per_run: float


@dataclass(frozen=True, slots=True)
class Report:
    """`runs` are those in which all steps passed in the end, of all; `first`, those in which all first attempts did."""

    steps: tuple[StepRate, ...]
    first: Rate
    runs: Rate
    unfinished: int
    unjudged: int

    def product(self, which: str) -> float:
        """What the rates of "first" or "last" attempts make of a run that goes through all the steps, if each fails by itself: the product
        of the rates, each as often as the step is called."""
        return math.prod(getattr(step, which).value ** step.per_run for step in self.steps)


def report(journal: Journal, runs: Iterable[RunRow]) -> Report:
    """Over some runs. Attempts that were stopped from outside, or that no check could judge, say nothing of a step and are left out, the
    latter counted; so are runs that have no end yet."""
    ended, unfinished, unjudged = [], 0, 0
    for run in runs:
        if run.outcome in (None, "stopped", "unknown"):
            unfinished += 1
        else:
            rows = journal.steps(run.id)
            unjudged += sum(row.failure == "unjudged" for row in rows)
            ended.append(_Run(run.outcome == "done", _by_step(rows)))
    names = dict.fromkeys(tried[0].name for run in ended for tried in run.steps)
    return Report(
        tuple(_rate(name, ended) for name in names),
        Rate(sum(run.passes(0) for run in ended), len(ended)),
        Rate(sum(run.passes(-1) for run in ended), len(ended)),
        unfinished,
        unjudged,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    done: bool
    steps: list[list[StepRow]]  # of each call of a step all its attempts

    def passes(self, attempt: int) -> bool:
        return self.done and all(passes(tried[attempt]) for tried in self.steps)


def _rate(name: str, runs: list[_Run]) -> StepRate:
    calls = [tried for run in runs for tried in run.steps if tried[0].name == name]
    per_run = [n for run in runs if run.done and (n := sum(tried[0].name == name for tried in run.steps))]
    return StepRate(
        name,
        Rate(sum(passes(tried[0]) for tried in calls), len(calls)),
        Rate(sum(passes(tried[-1]) for tried in calls), len(calls)),
        sum(len(tried) for tried in calls),
        sum(per_run) / len(per_run) if per_run else 1.0,  # where it ended all its runs, nobody knows
    )


def passes(row: StepRow) -> bool:
    return row.state == "done" and all(said.ok for _, said in row.verdicts)


def _by_step(rows: list[StepRow]) -> list[list[StepRow]]:
    """All attempts at each call of a step that say something."""
    found: dict[str, list[StepRow]] = defaultdict(list)
    for row in rows:
        if row.failure not in (*ANEW, "unjudged"):
            found[row.path].append(row)
    return list(found.values())
