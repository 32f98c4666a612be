"""What adapters add to a product, packed for the native kernels; mirrors LowRank and Adapters in native/adapt.h."""

import ctypes
from collections.abc import Sequence
from ctypes import c_int32, c_int64, c_void_p
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.kernels.formats import GROUP, UNIT

TILE = 16  # outputs that are one vector


class _Piece(ctypes.Structure):
    _fields_ = (("start", c_int32), ("rows", c_int32), ("first", c_int32), ("rank", c_int32), ("b", c_void_p))


class _LowRank(ctypes.Structure):
    _fields_ = (
        ("a", c_void_p), ("scales", c_void_p), ("pieces", c_void_p),
        ("rank", c_int32), ("count", c_int32), ("narrow", c_int32), ("reserved", c_int32),
    )  # fmt: skip


class _Adapters(ctypes.Structure):
    _fields_ = (("table", c_void_p), ("numbers", c_void_p), ("shrunk", c_void_p), ("ld", c_int64))


class AddedTo(NamedTuple):
    """scale * B A x, added to outputs `start` to start + N: A [rank, K], B [N, rank]."""

    start: int
    a: Tensor
    b: Tensor
    scale: float


class LowRank:
    """One adapter's share of one weight: the sum of what its parts add. Kept in bfloat16 where every A and B is, else float32.

    `half`: where the weight's outputs fall into two halves, gate and up, how many each has.
    """

    def __init__(self, parts: Sequence[AddedTo], half: int | None = None):
        narrow = all(matrix.dtype == torch.bfloat16 for part in parts for matrix in (part.a, part.b))
        dtype = torch.bfloat16 if narrow else torch.float32
        a = torch.cat([part.a.detach().to(dtype) for part in parts])
        self.a = F.pad(a, (0, -a.shape[1] % GROUP)).contiguous()
        self.scales = torch.cat([torch.full((len(part.a),), part.scale) for part in parts])
        self.pieces, first = [], 0
        for part in parts:
            for start, stop in _cuts(part, half):
                b = _tiles(part.b[start - part.start : stop - part.start].detach().to(dtype))
                self.pieces.append((start, stop - start, first, len(part.a), b))
            first += len(part.a)
        rows = [_Piece(*numbers, b.data_ptr()) for *numbers, b in self.pieces]
        self._pieces = (_Piece * len(rows))(*rows)
        pointers = self.a.data_ptr(), self.scales.data_ptr(), ctypes.addressof(self._pieces)
        self.struct = _LowRank(*pointers, self.rank, len(rows), narrow, 0)

    @property
    def rank(self) -> int:
        """Of all parts together."""
        return len(self.a)

    @property
    def nbytes(self) -> int:
        return self.a.nbytes + self.scales.nbytes + sum(b.nbytes for *_, b in self.pieces)


def _tiles(b: Tensor) -> Tensor:
    """[N, rank] -> [tiles, rank, TILE], filled up to whole units."""
    return F.pad(b, (0, 0, 0, -len(b) % UNIT)).unflatten(0, (-1, TILE)).transpose(1, 2).contiguous()


def _cuts(part: AddedTo, half: int | None) -> list[tuple[int, int]]:
    """First and last output of each piece: where there are halves, one of them."""
    start, stop = part.start, part.start + len(part.b)
    if half is None:
        return [(start, stop)]
    found = [(first, first + half) for first in (0, half) if start <= first and first + half <= stop]
    assert sum(last - first for first, last in found) == stop - start, "gate and up are adapted by whole halves"
    return found


class Adapters:
    """The adapters of one weight, by number; None: that one leaves it as it is. A step's rows say which they have.

    numbers   the address that leads to the number of each row's adapter: Step.field("adapters")
    shrunk    float32 [rows, .], where what A makes of each row is kept from `shrink` on
    """

    def __init__(self, numbers: int, shrunk: Tensor, adapters: Sequence[LowRank | None]):
        assert all(one is None or one.rank <= shrunk.shape[1] for one in adapters)
        self.shrunk, self.adapters = shrunk, adapters
        nothing = _LowRank()
        self.table = (_LowRank * len(adapters))(*(one.struct if one else nothing for one in adapters))
        self.struct = _Adapters(ctypes.addressof(self.table), numbers, shrunk.data_ptr(), shrunk.stride(0))

    @property
    def address(self) -> int:
        return ctypes.addressof(self.struct)
