"""Which rows a step learns from: a function of (examples, context, rows a step, seed) and the step's number, and of nothing
else. So the data position of a run is one integer, and to resume is to go on counting."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Protocol

import numpy as np
import numpy.typing as npt

from myna.data.pack import pack
from myna.data.tokens import Example, Row


class Examples(Protocol):
    """Examples by number, in memory or on disk. `lengths` [n] are their tokens."""

    @property
    def lengths(self) -> npt.NDArray[np.integer]: ...

    def __getitem__(self, index: int, /) -> Example: ...


class Listed:
    """Examples in memory."""

    def __init__(self, examples: Sequence[Example]):
        self._examples = examples
        self.lengths = np.array([sum(map(len, example)) for example in examples], np.int64)

    def __getitem__(self, index: int, /) -> Example:
        return self._examples[index]


class Feed:
    """Steps of `rows` packed rows of `context` tokens. The last rows of an epoch and the first of the next share a step."""

    def __init__(self, examples: Examples, *, context: int, rows: int, seed: int):
        if not len(examples.lengths):
            raise ValueError("there is nothing to learn from")
        self.examples, self.context, self.rows, self.seed = examples, context, rows, seed
        self._epoch = lru_cache(maxsize=2)(self._pack)
        self._starts = [0]  # the first row of each epoch that was packed so far

    def step(self, number: int) -> list[Row]:
        """The rows of step `number`, counted from 0."""
        return [self.row(number * self.rows + n) for n in range(self.rows)]

    def row(self, number: int) -> Row:
        return [self.examples[index] for index in self.members(number)]

    def members(self, row: int) -> list[int]:
        """The numbers of a row's examples."""
        epoch = self._epoch_of(row)
        found: list[int] = self._epoch(epoch)[row - self._starts[epoch]].tolist()
        return found

    def epoch_rows(self, epoch: int = 0) -> int:
        """How many rows an epoch has; the shuffle lets it differ by a few from one to the next."""
        return len(self._epoch(epoch))

    def steps(self, epochs: float) -> int:
        """How many steps it takes to see the data `epochs` times, none of it less often."""
        return max(1, ceil(epochs * self.epoch_rows() / self.rows))

    def _epoch_of(self, row: int) -> int:
        while row >= self._starts[-1]:
            self._starts.append(self._starts[-1] + self.epoch_rows(len(self._starts) - 1))
        return next(epoch for epoch in reversed(range(len(self._starts))) if row >= self._starts[epoch])

    def _pack(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        return pack(self.examples.lengths, self.context, self.seed, epoch)
