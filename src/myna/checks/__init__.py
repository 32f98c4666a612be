"""Is an answer good? A Check says so of one candidate; the same object guards it, scores an evaluation and rewards a model in training."""

from myna.checks.check import AnyCheck, AsyncCheck, Check, Span, Verdict, all_of, blocking, verdict
from myna.checks.match import contains, exact, number
from myna.checks.names import Named, named

__all__ = [
    "AnyCheck",
    "AsyncCheck",
    "Check",
    "Named",
    "Span",
    "Verdict",
    "all_of",
    "blocking",
    "contains",
    "exact",
    "named",
    "number",
    "verdict",
]
