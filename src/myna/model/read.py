"""Reading a stored tensor in chunks of rows, keeping neither the file's pages nor a decoded copy of the whole."""

import math
import mmap
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from myna.model.blocks import decode
from myna.modeldir.stored import Stored

# Numbers in a chunk: the few float32 copies that decoding makes of 4 MiB stay in the second-level cache.
CHUNK = 1 << 20


def read_rows(stored: Stored) -> Iterator[tuple[int, Tensor]]:
    """(first row, float32 [n, K]) for chunks of a matrix's rows; for a vector once, (0, float32 [N])."""
    for start, raw in _chunks(stored):
        rows = decode(stored.kind, raw)
        if stored.adjust == "minus_one":
            rows = rows - 1
        yield start, rows if len(stored.shape) > 1 else rows.flatten()


def same_bytes(a: Stored, b: Stored) -> bool:
    """Do two tensors hold the same numbers in the same form?"""
    if (a.kind, a.shape, a.adjust) != (b.kind, b.shape, b.adjust):
        return False
    return all(np.array_equal(x, y) for (_, x), (_, y) in zip(_chunks(a), _chunks(b), strict=True))


def _chunks(stored: Stored) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, uint8 [n, bytes], a copy) in Hugging Face's row order."""
    if len(stored.shape) < 2:
        yield 0, stored.data.reshape(1, -1).copy()
        return
    total = len(stored.raw)
    count = max(1, CHUNK * total // max(1, math.prod(stored.shape)))
    for start in range(0, total, count):
        rows = slice(start, start + count) if stored.order is None else stored.order[start : start + count]
        yield start, np.array(stored.raw[rows])
        _give_back(stored.raw)


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
