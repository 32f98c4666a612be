"""The line before a model: who waits for a first token, and when somebody who is sent away should come back."""

import math
import time
from collections.abc import Callable

from myna.records import Unavailable
from myna.serve.limits import Limits

PACE = 0.2  # weight of the last gap between two starts in the running mean
LONGEST_WAIT = 60  # seconds; nobody can foresee more


class Line:
    """Counts answers: `waiting` for their first token, and `running` after it."""

    def __init__(self, name: str, limits: Limits, clock: Callable[[], float] = time.monotonic):
        self.waiting = self.running = 0
        self._name, self._limits, self._clock = name, limits, clock
        self._refused = 0  # who was sent away and is, as it were, standing behind the line
        self._pace = 0.0  # seconds from one start to the next, while somebody waits
        self._last: float | None = None  # the last start, if somebody was waiting then

    def check(self, tokens: int) -> None:
        """Whether one more may wait. `tokens`: of the prompts that wait now. Raises Unavailable (a 429).

        The k-th one refused is told to come when k places will be free, so that not all come back at once.
        """
        if self.waiting < self._limits.max_queue and tokens < self._limits.max_queue_tokens:
            return
        self._refused += 1
        stalled = self._clock() - self._last if self._last is not None else 0.0
        seconds = self._refused * max(self._pace, stalled)
        raise Unavailable(
            f"{self._name} has {self.waiting} answers waiting, of {tokens} prompt tokens together; the limits are "
            f"{self._limits.max_queue} and {self._limits.max_queue_tokens}.",
            retry_after=min(max(1, math.ceil(round(seconds, 3))), LONGEST_WAIT),
            code="queue_full",
        )

    def enter(self) -> None:
        self.waiting += 1

    def start(self) -> None:
        """One that waited has its first token."""
        self.running += 1
        self._leave()

    def give_up(self) -> None:
        """One that waited is gone."""
        self._leave()

    def end(self) -> None:
        """One that ran is finished, or gone."""
        self.running -= 1

    def _leave(self) -> None:
        now = self._clock()
        if self._last is not None:
            gap = now - self._last
            self._pace = gap if not self._pace else (1 - PACE) * self._pace + PACE * gap
        self.waiting -= 1
        self._last = now if self.waiting else None
        self._refused = max(0, self._refused - 1) if self.waiting else 0
