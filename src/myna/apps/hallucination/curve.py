"""How well a confidence tells right answers from wrong ones: the risk-coverage curve, its area, and AUROC.

A confidence may be any number, higher is surer. Answers of one confidence cannot be told apart: the curve has one point for all of them,
and the areas take them in every order alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from myna.records import DataError


@dataclass(frozen=True, slots=True)
class Point:
    """Of all answers the share `coverage` has this confidence or more, and of those the share `risk` is wrong."""

    confidence: float
    coverage: float
    risk: float


def curve(confidence: Sequence[float], right: Sequence[bool]) -> tuple[Point, ...]:
    """From the surest answers to all of them (El-Yaniv and Wiener 2010). Raises DataError where there are none, or one is not a number."""
    found, covered, wrong = [], 0, 0
    for level, size, errors in _levels(confidence, right):
        covered, wrong = covered + size, wrong + errors
        found.append(Point(level, covered / len(confidence), wrong / covered))
    return tuple(found)


def aurc(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Area under the curve: the mean over k = 1..n of the risk of the k surest answers (Geifman, Uziel and El-Yaniv 2019); the share of
    wrong answers where confidence says nothing, and lower is better. Raises what `curve` raises."""
    total, covered, wrong = 0.0, 0, 0
    for _, size, errors in _levels(confidence, right):
        total += math.fsum((wrong + k * errors / size) / (covered + k) for k in range(1, size + 1))
        covered, wrong = covered + size, wrong + errors
    return total / len(confidence)


def auroc(confidence: Sequence[float], right: Sequence[bool]) -> float | None:
    """The chance that a right answer is surer than a wrong one, a tie counting half (Hanley and McNeil 1982): 0.5 is none, 1 is perfect.
    None where all are right or all are wrong. Raises what `curve` raises."""
    below, pairs, good = 0.0, 0, 0
    for _, size, errors in _levels(
        confidence, right
    ):  # from the surest down: right answers seen so far beat these errors
        rights = size - errors
        below += errors * (good + rights / 2)
        good += rights
        pairs += errors
    return below / (good * pairs) if good and pairs else None


def _levels(confidence: Sequence[float], right: Sequence[bool]) -> list[tuple[float, int, int]]:
    """(confidence, answers, wrong ones), the surest first."""
    if len(confidence) != len(right) or not confidence:
        raise DataError(f"a curve needs answers: {len(confidence)} confidences and {len(right)} labels")
    if bad := sum(math.isnan(one) for one in confidence):
        raise DataError(f"{bad} of {len(confidence)} confidences are not a number")
    rows = sorted(zip(confidence, right, strict=True), key=lambda row: -row[0])
    levels = [(level, [good for _, good in group]) for level, group in groupby(rows, key=lambda row: row[0])]
    return [(level, len(group), len(group) - sum(group)) for level, group in levels]
