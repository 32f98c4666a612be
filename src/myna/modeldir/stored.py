"""One tensor as it lies on disk: its bytes, and what the reader must know to turn them into numbers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Adjust = Literal["minus_one", "transpose"]


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """A tensor on disk.

    shape    logical shape in Hugging Face's orientation, () for a scalar
    kind     "F32", "F16", "BF16", "I8", ... or a GGUF block type ("Q4_K", "Q6_K", ...)
    raw      uint8, mapped from the file, read-only: [rows, bytes_per_row] from two dimensions on (all but the last
             dimension are rows), [bytes] below
    adjust   what to do after decoding: "minus_one" (GGUF stores gemma's norms as w + 1), "transpose" (`raw` holds the
             rows of the transposed matrix: gpt2 in GGUF), None for nothing
    order    row i of the Hugging Face tensor is row order[i] of `raw`; None when they agree
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    raw: np.ndarray
    adjust: Adjust | None = None
    order: np.ndarray | None = None

    @property
    def data(self) -> np.ndarray:
        """The bytes with rows in Hugging Face's order: a view of the file, or a copy where rows had to move."""
        if self.order is None:
            return self.raw
        return self.raw.reshape(len(self.order), -1)[self.order].reshape(self.raw.shape)

    @property
    def count(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.raw.nbytes


class Weights(Mapping[str, Stored]):
    """The tensors of a model directory under their Hugging Face names, in file order."""

    def __init__(self, tensors: Mapping[str, Stored]):
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> Stored:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def count(self) -> int:
        """How many numbers all tensors hold."""
        return sum(stored.count for stored in self.values())

    @property
    def nbytes(self) -> int:
        return sum(stored.nbytes for stored in self.values())


def as_rows(data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Flat bytes of a tensor as the two-dimensional view that `Stored.raw` promises."""
    return data.reshape(math.prod(shape[:-1]), -1) if len(shape) >= 2 else data


def map_file(path: str) -> np.ndarray:
    """The file's bytes, read-only, read from disk when touched."""
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
