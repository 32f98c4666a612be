"""A weight [N, K] as a map from K to N channels and as a table of N rows: dense, packed for the native kernels, or, where
there are none, int8 with a scale a row.

All take any leading shape, cast their input to their own compute precision and answer in float32, so the residual stream
is float32 in every precision.
"""

import threading
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.kernels import FORMATS, UNIT, Format, library
from myna.kernels.formats import Grouped, pack, unpack
from myna.kernels.program import Part, gather, product
from myna.kernels.quantize import quantize
from myna.model.frozen import frozen_product
from myna.model.nf4 import NF4Linear
from myna.records import ModelDirError

# Up to this many rows of input the packed kernel wins; above it, converting the weight to bfloat16 and one large product.
# Measured on 2 cores with AVX512-BF16, milliseconds, packed / converted:
#   576x1536     M=1 0.014/0.10   M=16 0.10/0.15   M=24 0.21/0.17   M=32 0.26/0.20   M=64 0.36/0.28
#   1536x8960    M=1 0.20/1.7     M=16 1.4/2.0     M=24 2.1/2.6     M=32 2.9/2.7     M=64 5.6/4.7
#   17920x1536   M=4 1.0/8.2      M=16 2.9/14      M=24 14/21       M=32 17/19       M=64 38/32
#   151936x1536  M=1 9.1/36       M=16 33/45       M=32 112/64                       M=64 228/115
PACKED_ROWS = 24
# torch's packed kernel takes 16 columns at a time and reads past the end of a row of any other length.
PACKED_COLUMNS = 16
# The converted block of a large weight: 8 Mi elements are 16 MiB of bfloat16, reused by every layer.
BLOCK_ELEMENTS = 8 << 20


class Linear(nn.Linear):
    """y = x W^T + b with W float32 or bfloat16; the bias, where there is one, stays float32. torch's, so that torch's plans for
    tensor parallel know it."""

    bias: nn.Parameter | None  # type: ignore[assignment]

    def __init__(self, columns: int, rows: int, bias: bool = False, dtype: torch.dtype = torch.float32):
        super().__init__(columns, rows, bias=False, dtype=dtype)
        self.bias = nn.Parameter(torch.zeros(rows)) if bias else None

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)

    @property
    def precision(self) -> str:
        return str(self.weight.dtype).removeprefix("torch.")

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> float32 [..., N]; under autocast bfloat16, which is half as much to keep for the way back."""
        y = F.linear(x.to(self.weight.dtype), self.weight)
        y = y if torch.is_autocast_enabled(x.device.type) else y.float()
        return y if self.bias is None else y + self.bias

    def decoded(self) -> Tensor:
        """The weight, float32 [N, K]."""
        return self.weight.float()

    def rows(self, ids: Tensor) -> Tensor:
        """Long [...] -> float32 [..., K]: the embedding."""
        return F.embedding(ids, self.weight).float()

    @torch.no_grad()
    def fill(self, start: int, rows: Tensor) -> None:
        """Write float32 rows [n, K] from row `start` on."""
        self.weight[start : start + len(rows)] = rows


class Int8Linear(nn.Module):
    """W = scale * q: q int8 [N, K], one bfloat16 scale a row, symmetric; products in bfloat16 with float32 sums.

    The scale is rounded to bfloat16 before it divides, so |W - scale q| <= scale / 2, but for the largest of a row where the
    scale was rounded down: q ends at 127.
    """

    weight: Tensor
    scale: Tensor
    precision = "int8"

    def __init__(self, columns: int, rows: int, bias: bool = False):
        super().__init__()
        self.register_buffer("weight", torch.zeros(rows, columns, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(rows, dtype=torch.bfloat16))
        self.bias = nn.Parameter(torch.zeros(rows)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> float32 [..., N]. In the packed product a row's result does not depend on its batch mates."""
        flat = x.reshape(-1, x.shape[-1]).bfloat16()
        if torch.is_grad_enabled() and x.requires_grad:
            y = F.linear(flat, self.weight.bfloat16()).float() * self.scale.float()
        elif len(flat) <= PACKED_ROWS and flat.shape[1] % PACKED_COLUMNS == 0:
            y = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scale).float()
        else:
            y = self._converted(flat)
        y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias

    def _converted(self, flat: Tensor) -> Tensor:
        """The product through bfloat16 copies of blocks of rows; int8 to bfloat16 is exact."""
        out = torch.empty(len(flat), len(self.weight))
        for start, block in _bfloat16_blocks(self.weight):
            stop = start + len(block)
            torch.mul(F.linear(flat, block), self.scale[start:stop].float(), out=out[:, start:stop])
        return out

    def decoded(self) -> Tensor:
        """The weight, float32 [N, K]."""
        return self.weight.float() * self.scale.float().unsqueeze(1)

    def rows(self, ids: Tensor) -> Tensor:
        """Long [...] -> float32 [..., K]: the embedding."""
        return self.weight[ids].float() * self.scale[ids].float().unsqueeze(-1)

    @torch.no_grad()
    def fill(self, start: int, rows: Tensor) -> None:
        """Quantize float32 rows [n, K], which are overwritten, and write them from row `start` on."""
        largest = torch.maximum(rows.amax(1), -rows.amin(1))
        if not torch.isfinite(largest).all():
            raise ModelDirError("a weight is infinite or not a number, so it cannot be quantized; load it as float32.")
        # A row of zeros gets any scale: its numbers are 0 anyway.
        scale = torch.where(largest > 0, largest / 127, 1.0).bfloat16()
        self.scale[start : start + len(rows)] = scale
        self.weight[start : start + len(rows)] = rows.div_(scale.float().unsqueeze(1)).round_().clamp_(-127, 127)


class PackedLinear(nn.Module):
    """W in 8, 6 or 4 bits with scales that 16 to 128 columns share (kernels/formats.py), packed for the native kernels; the
    input is rounded to 8 bits in groups of 32. A row's result does not depend on its batch mates.

    `pieces` are the formats of W from its first row on, as (rows, format).
    """

    packed: Tensor

    def __init__(self, columns: int, rows: int, bias: bool = False, format: Format = FORMATS["q8"]):
        super().__init__()
        self.columns, self.rows_total = columns, rows
        self.lay_out(((rows, format),))
        self.bias = nn.Parameter(torch.zeros(rows)) if bias else None

    def lay_out(self, pieces: tuple[tuple[int, Format], ...]) -> None:
        """Choose the formats. What was filled before is lost."""
        assert sum(rows for rows, _ in pieces) == self.rows_total
        self.pieces = pieces
        size = sum(format.nbytes(rows, self.columns) for rows, format in pieces)
        self.register_buffer("packed", torch.zeros(size, dtype=torch.uint8))

    @property
    def precision(self) -> str:
        return "+".join(sorted({f"int{format.bits}" for _, format in self.pieces}))

    def parts(self) -> Iterator[Part]:
        """Each piece: its bytes, its [rows, columns], its format."""
        at = 0
        for rows, format in self.pieces:
            size = format.nbytes(rows, self.columns)
            yield self.packed[at : at + size], (rows, self.columns), format
            at += size

    def halves(self) -> list[Part]:
        """The upper and the lower half of the rows, each one part; empty where one is not."""
        half = self.rows_total // 2
        found = [*self.parts()]
        if len(found) == 1 and half % UNIT == 0:
            packed, (_, columns), format = found[0]
            found = [(part, (half, columns), format) for part in packed.chunk(2)]
        return found if [shape[0] for _, shape, _ in found] == [half, half] else []

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> float32 [..., N]"""
        if torch.is_grad_enabled():  # something is trained: the weight exactly as it is kept, and nothing else rounded
            y = frozen_product(x, self.decoded)
            return y if self.bias is None else y + self.bias
        flat = x.reshape(-1, x.shape[-1]).float().contiguous()
        out = torch.empty(len(flat), self.rows_total)
        product(flat, out, self.parts(), self.bias)
        return out.view(*x.shape[:-1], self.rows_total)

    def decoded(self) -> Tensor:
        """The weight, float32 [N, K]."""
        if library() is None or self.packed.device.type != "cpu":
            return torch.cat([unpack(packed, *shape, format) for packed, shape, format in self.parts()])
        # The same numbers, three to four times as fast.
        out = torch.empty(self.rows_total, self.columns)
        for rows, (packed, _, format) in zip(out.split([rows for rows, _ in self.pieces]), self.parts(), strict=True):
            gather(torch.arange(len(rows), dtype=torch.int32), rows, packed, format)
        return out

    def rows(self, ids: Tensor) -> Tensor:
        """Long [...] -> float32 [..., K]: the embedding."""
        (packed, _, format) = next(self.parts())
        assert len(self.pieces) == 1, "a table of rows is one tensor on disk"
        out = torch.empty(ids.numel(), self.columns)
        gather(ids.flatten().int(), out, packed, format)
        return out.view(*ids.shape, -1)

    @torch.no_grad()
    def fill(self, start: int, rows: Tensor) -> None:
        """Quantize float32 rows [n, K] and write them from row `start` on, a multiple of UNIT in its piece."""
        while len(rows):
            _, end, _, format = self._piece(start)
            self._write(start, pack(quantize(rows[: end - start], format), format))
            start, rows = end, rows[end - start :]

    @torch.no_grad()
    def fill_grouped(self, start: int, rows: Grouped) -> None:
        """The same for rows that are in the piece's format already."""
        self._write(start, pack(rows, self.format_at(start)))

    def format_at(self, row: int) -> Format:
        return self._piece(row)[3]

    def _piece(self, row: int) -> tuple[int, int, Tensor, Format]:
        """The piece that holds this row: its first row, the first beyond it, its bytes and format."""
        first = 0
        for packed, (rows, _), format in self.parts():
            if row < first + rows:
                return first, first + rows, packed, format
            first += rows
        raise AssertionError(f"row {row} of {self.rows_total}")

    def _write(self, start: int, units: Tensor) -> None:
        first, _, packed, _ = self._piece(start)
        assert (start - first) % UNIT == 0, "rows come in whole units, the last of a piece excepted"
        packed.view(-1, units.shape[1])[(start - first) // UNIT :][: len(units)] = units


def int8_linear(columns: int, rows: int, bias: bool = False) -> "PackedLinear | Int8Linear":
    """int8 in the best form there is here."""
    return (PackedLinear if library() is not None else Int8Linear)(columns, rows, bias)


AnyLinear = Linear | Int8Linear | PackedLinear | NF4Linear
# (columns, rows, bias=False) -> a linear layer
MakeLinear = Callable[..., AnyLinear]

_local = threading.local()


def _bfloat16_blocks(weight: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, bfloat16 rows) over an int8 weight; the rows live in a scratch that the next block overwrites."""
    count = max(1, BLOCK_ELEMENTS // weight.shape[1])
    if getattr(_local, "scratch", None) is None:
        with torch.inference_mode(False):  # it outlives the caller's mode, and training may be next
            _local.scratch = torch.empty(BLOCK_ELEMENTS, dtype=torch.bfloat16)
    for start in range(0, len(weight), count):
        rows = weight[start : start + count]
        block = _local.scratch[: rows.numel()].view(rows.shape) if rows.numel() <= BLOCK_ELEMENTS else rows.bfloat16()
        yield start, block.copy_(rows)
