"""What every method trains on: token sequences, laid out in rows of one length.

Tokenized   one sequence: its tokens see each other and nothing else
Example     one or several sequences that belong together: a text, the two sides of a preference
Row         the examples that share one row
Batch       rows as arrays: the only thing a model and a loss ever see
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

IGNORED = -100  # what cross-entropy of every framework leaves out
PADDING = -1  # in `docs`: nobody's place

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Tokenized:
    """`ids` [T], and in `weights` [T] how much predicting each of them counts: 0 is context. Nothing predicts the first.

    numbers   further numbers of each token [T] or [T, k], such as the log-probability it was sampled with
    facts     numbers of the whole sequence, such as its advantage or its label
    """

    ids: npt.NDArray[np.integer]
    weights: Floats
    numbers: Mapping[str, Floats] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> int:
        """How many tokens are learned to be predicted."""
        return int(np.count_nonzero(self.weights[1:]))


Example = tuple[Tokenized, ...]
Row = Sequence[Example]


def length_of(example: Example) -> int:
    return sum(len(sequence) for sequence in example)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B rows of T places. At place t, `targets`, `weights` and every one of `numbers` are those of the token at t + 1 of the
    same sequence; where there is none, the target is IGNORED and the others 0.

    ids, targets, positions  int64 [B, T]; a position counts from the start of its sequence
    docs                     int64 [B, T]: the number of the place's sequence in the batch, PADDING where there is none
    weights                  float32 [B, T]
    numbers                  float32 [B, T] or [B, T, k]
    facts                    float32 [sequences]
    """

    ids: Ints
    targets: Ints
    positions: Ints
    docs: Ints
    weights: Floats
    numbers: dict[str, Floats]
    facts: dict[str, Floats]

    @property
    def sequences(self) -> int:
        return int(self.docs.max(initial=PADDING)) + 1

    @property
    def supervised(self) -> int:
        return int(np.count_nonzero(self.weights))


def collate(rows: Sequence[Row], context: int) -> Batch:
    """Rows of `context` places. The sequences of an example follow one another, so their numbers do too.

    Raises ValueError if a row does not fit.
    """
    shape = len(rows), context
    sequences = [sequence for row in rows for example in row for sequence in example]
    ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    targets, docs = np.full(shape, IGNORED, np.int64), np.full(shape, PADDING, np.int64)
    weights = np.zeros(shape, np.float32)
    numbers = {n: np.zeros((*shape, *v.shape[1:]), np.float32) for s in sequences for n, v in s.numbers.items()}
    doc = 0
    for n, row in enumerate(rows):
        at = 0
        for sequence in (sequence for example in row for sequence in example):
            size, here = len(sequence), slice(at, at + len(sequence))
            if here.stop > context:
                raise ValueError(f"row {n} has {sum(map(length_of, row))} tokens, and there is room for {context}")
            ids[n, here], docs[n, here], positions[n, here] = sequence.ids, doc, np.arange(size)
            before = slice(at, at + max(size - 1, 0))
            weights[n, before] = sequence.weights[1:]
            targets[n, before] = np.where(sequence.weights[1:] != 0, sequence.ids[1:].astype(np.int64), IGNORED)
            for name, values in sequence.numbers.items():
                numbers[name][n, before] = values[1:]
            at, doc = here.stop, doc + 1
    facts = {
        name: np.array([sequence.facts.get(name, np.nan) for sequence in sequences], np.float32)
        for name in _names(sequence.facts for sequence in sequences)
    }
    return Batch(ids, targets, positions, docs, weights, numbers, facts)


def _names(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    return sorted({name for mapping in mappings for name in mapping})
