"""Several sources as one: for each as many tokens as its weight asks, the same for the same (sources, weights, seed)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from myna.data.feed import Examples
from myna.data.tokens import Example
from myna.records import DataError


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A source of a mixture. `weight` counts tokens: twice the weight, twice the tokens."""

    name: str
    examples: Examples
    weight: float = 1.0


class Mixture:
    """One epoch over several sources, as one Examples.

    An epoch has `tokens` tokens; without that number, as many as it takes for every source to be seen whole once. A source
    that is too small for its weight is repeated: whole rounds, and of the last one a part. Each round is shuffled by itself.
    `rounds` [sources]: how often each is seen in an epoch.
    """

    def __init__(self, parts: Sequence[Part], *, seed: int, tokens: int | None = None):
        _check(parts)
        self.parts = tuple(parts)
        sizes = np.array([int(part.examples.lengths.sum()) for part in parts], np.float64)
        shares = np.array([part.weight for part in parts]) / sum(part.weight for part in parts)
        wanted = shares * (tokens or float((sizes / shares).max()))
        chosen = [
            _rounds(p.examples.lengths, want, [seed, n]) for n, (p, want) in enumerate(zip(parts, wanted, strict=True))
        ]
        self._source = np.repeat(np.arange(len(parts), dtype=np.int32), [len(index) for index in chosen])
        self._index = np.concatenate(chosen)
        self.lengths = np.concatenate(
            [part.examples.lengths[index] for part, index in zip(parts, chosen, strict=True)]
        ).astype(np.int64)
        self.tokens = [int(self.lengths[self._source == n].sum()) for n in range(len(parts))]
        self.rounds = [seen / size for seen, size in zip(self.tokens, sizes.tolist(), strict=True)]

    def __getitem__(self, index: int, /) -> Example:
        return self.parts[int(self._source[index])].examples[int(self._index[index])]

    def origin(self, index: int) -> tuple[str, int]:
        """The source's name, and the example's number in it."""
        return self.parts[int(self._source[index])].name, int(self._index[index])


def _rounds(lengths: npt.NDArray[np.integer], wanted: float, seed: list[int]) -> npt.NDArray[np.int64]:
    """The numbers of examples that have `wanted` tokens together, to within half of the last one."""
    total, chosen, number = int(lengths.sum()), list[npt.NDArray[np.int64]](), 0
    while wanted > 0:
        order = np.random.default_rng([*seed, number]).permutation(len(lengths))
        if wanted < total * (1 - 1e-9):
            ends = np.cumsum(lengths[order])
            order = order[: int(np.searchsorted(ends - lengths[order] / 2, wanted))]
        chosen.append(order)
        wanted, number = wanted - total, number + 1
        if wanted < 1e-9 * total:
            break
    return np.concatenate(chosen)


def _check(parts: Sequence[Part]) -> None:
    if not parts:
        raise DataError("a mixture needs a source")
    for part in parts:
        if not (np.isfinite(part.weight) and part.weight > 0):
            raise DataError(f"{part.name}: weight {part.weight} is not more than 0; leave the source out")
        if not len(part.examples.lengths) or not part.examples.lengths.sum():
            raise DataError(f"{part.name}: there is nothing in it to learn from")
