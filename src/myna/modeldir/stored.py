"""One tensor as it lies on disk: its bytes, and what the reader must know to turn them into numbers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

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


class Source(NamedTuple):
    """A file that weights were read from, as it was just before: what differs when somebody changes or replaces it."""

    name: str
    size: int
    inode: int
    modified: int  # nanoseconds; whoever writes a file may set it
    changed: int  # nanoseconds; nobody can

    @classmethod
    def of(cls, file: Path) -> "Source":
        stat = file.stat()
        return cls(file.name, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)


class Weights(Mapping[str, Stored]):
    """The tensors of a model directory under their Hugging Face names, in file order; `sources` is empty when they are in
    memory alone."""

    def __init__(self, tensors: Mapping[str, Stored], sources: tuple[Source, ...] = ()):
        self._tensors = dict(tensors)
        self.sources = sources

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


def map_file(path: str, *, private: bool = False) -> np.ndarray:
    """The file's bytes, read from disk when touched: read-only, or `private`, so that what is written is this process's
    alone."""
    return np.memmap(path, dtype=np.uint8, mode="c" if private else "r").view(np.ndarray)
