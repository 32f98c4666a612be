"""Is an answer good? A Check says so of one candidate; the same object scores an evaluation and rewards a model in training."""

from myna.checks.check import Check, Verdict, named
from myna.checks.match import contains, exact, number

__all__ = ["Check", "Verdict", "contains", "exact", "named", "number"]
