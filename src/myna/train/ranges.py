"""What a number of a config may be, said beside its key: `rows: Count = 16`. options.py checks it as it reads."""

import math
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, slots=True)
class Within:
    """From `low` to `high`, both included unless `above` (low is not) or `below` (high is not)."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Infinity and what is no number are never within."""
        more = value > self.low if self.above else value >= self.low
        less = value < self.high if self.below or math.isinf(self.high) else value <= self.high
        return more and less

    def __str__(self) -> str:
        begins = f"more than {self.low:g}" if self.above else f"at least {self.low:g}"
        return begins if math.isinf(self.high) else f"{begins} and {'below' if self.below else 'at most'} {self.high:g}"


Count = Annotated[int, Within(1)]
Whole = Annotated[int, Within(0)]
Seed = Annotated[int, Within(0, 2**42)]  # a million times it is still a seed to torch: each step has its own
Amount = Annotated[float, Within(0)]
Positive = Annotated[float, Within(0, above=True)]
Share = Annotated[float, Within(0, 1)]
Part = Annotated[float, Within(0, 1, below=True)]
Half = Annotated[float, Within(0, 0.5, below=True)]
