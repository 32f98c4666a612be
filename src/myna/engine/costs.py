"""What a step costs by its number of rows, learned from the steps themselves. No torch, clock, threads or randomness.

Seconds are modelled as level * curve[rows]. The level follows the machine and the context from step to step, the curve is
learned slowly; both are medians, so that a slow step among quick ones moves nothing. A number of rows that was not seen for
a while is believed less and less, until it is tried again.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import exp, log

RECENT = 5  # steps whose median is the level; a third of KEPT, so that when the machine changes the curve does not
KEPT = 15  # steps of one number of rows whose median is its place on the curve
SLOPE = 0.08  # log cost of one more row until it was seen: 4 rows 1.3 steps, 8 rows 1.8, 16 rows 3.3
DOUBT = 2.0  # steps that the guess from one row fewer counts as
HALF_LIFE = 2000  # steps after which what was seen of a number of rows counts half


@dataclass(slots=True)
class _Seen:
    costs: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))  # logs, relative to the level
    cost: float = 0.0  # their median
    when: int = 0


class Costs:
    """Seconds of a step of 1 to `most` rows."""

    def __init__(self, most: int):
        self.most = most
        self._seen = [_Seen() for _ in range(most + 1)]
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)  # rows, log seconds
        self._steps = 0
        self._curve: list[float] | None = None
        self._level: float | None = None

    @property
    def known(self) -> bool:
        """Whether there was any step to learn from."""
        return bool(self._recent)

    def learn(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long. Steps of more rows than `most` teach nothing."""
        if not (1 <= rows < len(self._seen) and seconds > 0):
            return
        self._steps += 1
        # Compared with steps of other rows alone: beside its like a step says nothing about the curve.
        others = [cost - self._logs()[n] for n, cost in self._recent if n != rows]
        if others:
            seen = self._seen[rows]
            seen.costs.append(log(seconds) - _median(others))
            seen.cost, seen.when, self._curve = _median(seen.costs), self._steps, None
        self._recent.append((rows, log(seconds)))
        self._level = None

    def seconds(self, rows: int) -> float:
        """What a step of so many rows takes; only ratios mean anything before the first was learned."""
        curve = self._logs()
        if self._level is None:
            self._level = _median(cost - curve[n] for n, cost in self._recent)
        return exp(self._level + curve[rows])

    def _logs(self) -> list[float]:
        """Log cost by rows, relative to the level: what was seen, and for want of that a little more than one row fewer."""
        if self._curve is None:
            self._curve = [0.0]
            for seen in self._seen[1:]:
                weight = len(seen.costs) * 0.5 ** ((self._steps - seen.when) / HALF_LIFE)
                guess = self._curve[-1] + (SLOPE if len(self._curve) > 1 else 0.0)
                self._curve.append((weight * seen.cost + DOUBT * guess) / (weight + DOUBT))
        return self._curve


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0
