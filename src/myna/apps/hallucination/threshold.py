"""When not to answer: a threshold of confidence, fitted on labelled rows, above which the share of wrong answers stays under a wanted risk.

    found = fit(confidence, right, risk=0.1, signal="agreement")     # DataError where rows are too few, and how many it takes
    found.save("abstain.json")
    if Threshold.load("abstain.json").answers(0.8): ...

The promise: over draws of the labelled rows, with probability 1 - delta or more, the risk of what is answered is at most `bound`, which is at
most `risk`. It holds for any model and signal, for questions drawn as the labelled ones were, and for no others.

A selective classifier with guaranteed risk (Geifman and El-Yaniv 2017): exact binomial bounds (Clopper and Pearson 1934) with delta shared
by all the thresholds that are tried. Theirs are those of a binary search, which depend on the data; ours are TRIED fixed shares of the rows,
so that the union bound needs no more assumptions. A threshold is one of the rows' confidences, and answers are those strictly above it:
given that value, the rows above are independent draws of what will be answered, and their errors are binomial.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import orjson

from myna.records import DataError
from myna.records.fields import Fields
from myna.records.whole import write_whole

TRIED = 10  # thresholds: those above which 10 %, 20 %, ... of the rows are, and none
KIND = "myna abstain 1"
ROWS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Answer where `signal` is above `above`; None answers wherever the signal is known.

    rows, covered, wrong   of the labelled rows: all, those above, and the wrong ones of those
    bound                  the risk of what is answered is at most this, with probability 1 - delta
    """

    signal: str
    above: float | None
    risk: float
    delta: float
    rows: int
    covered: int
    wrong: int
    bound: float

    def answers(self, confidence: float | None) -> bool:
        """Whether to answer. A confidence that nobody knows is none."""
        if confidence is None or math.isnan(confidence):
            return False
        return self.above is None or confidence > self.above

    def save(self, path: str | Path) -> None:
        """A small JSON file. Raises DataError where it cannot be written."""
        write_whole(Path(path), orjson.dumps({"kind": KIND, **asdict(self)}, option=orjson.OPT_INDENT_2) + b"\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Raises DataError where the file is no such file."""
        try:
            return cls._from(orjson.loads(Path(path).read_bytes()))
        except (OSError, orjson.JSONDecodeError) as e:
            raise DataError(f"{path}: cannot be read: {e}") from None
        except DataError as e:
            raise DataError(f"{path}: {e}. `myna doubt fit` makes such a file.") from None

    @classmethod
    def _from(cls, row: Any) -> Self:
        f = Fields(row)
        if (kind := f.take("kind", str, default="")) != KIND:
            raise DataError(f"kind: {kind!r} is not {KIND!r}")
        types = {"signal": (str,), "rows": (int,), "covered": (int,), "wrong": (int,)}
        given = {one.name: f.take(one.name, *types.get(one.name, (int, float)), default=None) for one in fields(cls)}
        if missing := [name for name, value in given.items() if value is None and name != "above"]:
            raise DataError(f"{missing[0]}: missing")
        return cls(**given)


def rows_needed(risk: float, delta: float = 0.05) -> int:
    """How many rows it takes at least, all of them right, before any threshold can be promised to keep this risk."""
    return math.ceil(math.log(delta / TRIED) / math.log1p(-risk))


def fit(
    confidence: Sequence[float | None], right: Sequence[bool], *, risk: float, delta: float = 0.05, signal: str = ""
) -> Threshold:
    """The threshold that answers most and keeps the risk. Rows whose confidence is None are rows that will not be answered.

    Raises DataError where the rows are fewer than `rows_needed`, no threshold keeps the risk, or a confidence is not finite.
    """
    if not 0 < risk < 1 or not 0 < delta < 1:
        raise DataError(f"risk {risk} and delta {delta} must be between 0 and 1")
    known = [(c, good) for c, good in zip(confidence, right, strict=True) if c is not None]
    if bad := sum(not math.isfinite(c) for c, _ in known):
        raise DataError(f"{bad} of {len(known)} confidences are not finite numbers")
    needed = rows_needed(risk, delta)
    if not needed <= len(known) <= ROWS:
        raise DataError(
            f"{len(known)} labelled rows with a known confidence; to promise a risk of {risk:g} with probability {1 - delta:g} takes at "
            f"least {needed} if all are right, and more for every wrong one (at most {ROWS} are read)."
        )
    found = [_at(above, known, risk, delta, len(right), signal) for above in _tried([c for c, _ in known])]
    kept = [one for one in found if one.bound <= risk]
    if not kept:
        best = min(found, key=lambda one: one.bound)
        raise DataError(
            f"no threshold of {signal or 'this signal'} can be promised to keep a risk of {risk:g}: the least that these {len(right)} rows "
            f"show is {best.bound:.3f}, at {best.covered} answers with {best.wrong} wrong. Label more rows, or accept more risk."
        )
    return max(kept, key=lambda one: (one.covered, -one.bound))


def upper(wrong: int, n: int, delta: float) -> float:
    """The largest error rate under which `wrong` or fewer errors in n are not rarer than delta: Clopper and Pearson 1934, one-sided."""
    import numpy as np

    if not 0 <= wrong <= n:
        raise DataError(f"{wrong} wrong of {n}")
    if wrong == n:
        return 1.0
    k = np.arange(wrong + 1)
    ways = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(wrong + 1)])
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        p = (low + high) / 2
        if p in (low, high):
            break
        chance = float(np.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p)).sum())
        low, high = (p, high) if chance > delta else (low, p)
    return high


def _tried(known: list[float]) -> list[float | None]:
    """Thresholds at fixed shares of the rows, and none; TRIED in all, some perhaps equal."""
    ranked = sorted(known, reverse=True)
    return [None, *(ranked[len(ranked) * i // TRIED] for i in range(1, TRIED))]


def _at(
    above: float | None, known: list[tuple[float, bool]], risk: float, delta: float, rows: int, signal: str
) -> Threshold:
    covered = [good for c, good in known if above is None or c > above]
    wrong = len(covered) - sum(covered)
    bound = upper(wrong, len(covered), delta / TRIED)
    return Threshold(
        signal=signal,
        above=above,
        risk=risk,
        delta=delta,
        rows=rows,
        covered=len(covered),
        wrong=wrong,
        bound=bound,
    )
