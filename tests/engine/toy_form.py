"""A form small enough to see through: which tokens may come next follows from those before, by a sum."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class ToyForm:
    """Of each token a third may follow the ones before; `stop` from the fourth on; nothing but `stop` after `last`."""

    def __init__(self, vocab: int, stop: int | None = None, last: int = 30):
        self.vocab = vocab
        self.stop = stop
        self.last = last
        self.taken: list[int] = []

    def allowed(self) -> list[int]:
        if self.stop in self.taken or len(self.taken) >= self.last:
            return []
        texts = [t for t in range(self.vocab) if (sum(self.taken) + t) % 3 == 0 and t != self.stop]
        return texts + ([self.stop] if self.stop is not None and len(self.taken) >= 4 else [])

    def fill(self, mask: NDArray[np.uint32]) -> None:
        assert not mask.any()
        for token in self.allowed():
            mask[token // 32] |= np.uint32(1 << token % 32)

    def advance(self, token: int) -> bool:
        if token not in self.allowed():
            return False
        self.taken.append(token)
        return True

    def rollback(self, tokens: int) -> None:
        assert 0 < tokens <= len(self.taken)
        del self.taken[len(self.taken) - tokens :]

    @property
    def complete(self) -> bool:
        return not self.allowed()


def toy(vocab: int, stop: int | None = None, last: int = 30) -> Callable[[], ToyForm]:
    return lambda: ToyForm(vocab, stop, last)
