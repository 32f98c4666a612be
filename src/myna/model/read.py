"""Reading a stored tensor in chunks of rows, keeping neither the file's pages nor a decoded copy of the whole."""

import math
import mmap
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from myna.kernels import UNIT
from myna.model.blocks import decode
from myna.modeldir import Stored

# Numbers in a chunk: the few float32 copies that decoding makes of 2 MiB stay in the second-level cache.
CHUNK = 1 << 19


def read_rows(stored: Stored, rows: slice) -> Tensor:
    """These rows of a matrix, float32 [n, K], in Hugging Face's order; of a vector, which has one, float32 [N].

    The result is the caller's to overwrite."""
    values = decode(stored.kind, raw_rows(stored, rows))
    if stored.adjust == "minus_one":
        values = values - 1
    return values if len(stored.shape) > 1 else values.flatten()


def chunks(stored: Stored, fused: tuple[int, ...] = ()) -> Iterator[slice]:
    """The rows of a tensor as it lies on disk, in chunks of about CHUNK numbers and of whole units of packed rows. Of
    weights that the disk fuses, so many rows each, every one begins a chunk."""
    total = len(stored.raw) if len(stored.shape) > 1 else 1
    count = max(1, CHUNK * total // max(1, math.prod(stored.shape)) // UNIT) * UNIT
    first = 0
    for rows in fused or (total,):
        for start in range(first, first + rows, count):
            yield slice(start, min(start + count, first + rows))
        first += rows


def same_bytes(a: Stored, b: Stored) -> bool:
    """Do two tensors hold the same numbers in the same form?"""
    if (a.kind, a.shape, a.adjust) != (b.kind, b.shape, b.adjust):
        return False
    return all(np.array_equal(raw_rows(a, rows), raw_rows(b, rows)) for rows in chunks(a))


def raw_rows(stored: Stored, rows: slice) -> np.ndarray:
    """uint8 [n, bytes], a copy, so that the file's pages can go."""
    if len(stored.shape) < 2:
        return stored.data.reshape(1, -1).copy()
    taken = np.array(stored.raw[rows if stored.order is None else stored.order[rows]])
    _give_back(stored.raw)
    return taken


def _give_back(raw: np.ndarray) -> None:
    """Unmap the pages of the file that were read; until memory is short they would count as this process's."""
    base: object = raw
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = raw.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    aligned = start // mmap.PAGESIZE * mmap.PAGESIZE
    base.madvise(mmap.MADV_DONTNEED, aligned, start - aligned + raw.nbytes)
