"""Guesses of the served model's own heads (model/ahead.py). They read the hidden state that a step leaves behind, so a guess
costs a small product and the output matrix, and no pass through the layers."""

from collections.abc import Callable, Collection, Iterable, Mapping

from torch import Tensor

from myna.engine.request import Sequence, Slice
from myna.engine.speculate import Rate
from myna.model import Decoder
from myna.model.ahead import Ahead

HOPED, WEIGHT = 0.6, 4.0  # chance of a guess before anything is known, and how many guesses that counts as
RECALL = 60  # guesses that count in a rate
RETRY = 0.5  # guesses that are forgotten a step, so that what failed is tried again
PACE = 0.1  # how much the last guess's time counts


class Heads:
    """A Drafter. `hear` is told of every step's hidden states; `clock` says what a guess takes."""

    name = "heads"

    def __init__(self, decoder: Decoder, heads: Ahead, clock: Callable[[], float]):
        self.decoder, self.heads, self.clock = decoder, heads, clock
        self.rates = [Rate(RECALL) for _ in range(len(heads))]
        self._left: dict[Sequence, tuple[int, Tensor]] = {}  # the first of the positions, and their hidden states
        self._pace = 0.0

    def hear(self, slices: Iterable[Slice], hidden: Tensor) -> None:
        """hidden [rows, C] of the answers of each slice, in that order."""
        row = 0
        for piece in slices:
            self._left[piece.sequence] = piece.stop - piece.answers, hidden[row : row + piece.answers]
            row += piece.answers

    def chances(self, sequence: Sequence, most: int) -> list[float]:
        for rate in self.rates:
            rate.fade(RETRY)
        if self._state(sequence) is None:
            return []
        return [rate.share(HOPED, WEIGHT) for rate in self.rates[:most]]

    def seconds(self, sequences: Collection[Sequence], guesses: int) -> float:
        return self._pace * len(sequences)

    def draft(self, wants: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        found: dict[Sequence, list[int]] = {}
        for sequence, count in wants.items():
            state = self._state(sequence)
            if state is not None:
                started = self.clock()
                found[sequence] = self.heads.guesses(self.decoder, state, min(count, len(self.heads)))
                self._pace += PACE * (self.clock() - started - self._pace)
        return found

    def learn(self, sequence: Sequence, drafted: int, right: int) -> None:
        for rate in self.rates[:right]:
            rate.learn(1, 0)
        if right < drafted:
            self.rates[right].learn(0, 1)

    def forget(self, sequence: Sequence) -> None:
        self._left.pop(sequence, None)

    def _state(self, sequence: Sequence) -> Tensor | None:
        """The hidden state [C] that the sequence's last token was drawn from; None if no step left it."""
        first, hidden = self._left.get(sequence, (0, None))
        place = len(sequence.tokens) - 2 - first
        return hidden[place] if hidden is not None and 0 <= place < len(hidden) else None
