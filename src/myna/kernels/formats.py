"""Packed weights: what their bytes mean, packing and unpacking. native/linear.h draws the same layout.

A weight [N, K] is cut into units of 32 rows, a unit into records of 32 columns, and so many records are a span that shares
scales. Shape letters: U units, S spans, G groups of 32 columns.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = UNIT = 32
SMALLEST = 1e-30  # rounded to 8 bits, a group whose largest number is below this is zeros


@dataclass(frozen=True, slots=True)
class Format:
    """`bits` a number, and the number that stands for 0 where there is no base. Each `span` records are preceded by `outer`
    bytes of scales that they share; a record begins with `inner` bytes of its own."""

    name: str
    code: int
    bits: int
    zero: int
    outer: int
    span: int = 1
    inner: int = 0

    @property
    def record(self) -> int:
        return self.inner + GROUP * UNIT * self.bits // 8

    @property
    def shared(self) -> int:
        """The columns that share a scale."""
        return GROUP // 2 if self.bits == 6 else GROUP if self.inner else GROUP * self.span

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of a packed weight of this size. The last span of a unit may have fewer records."""
        groups = -(-columns // GROUP)
        return -(-rows // UNIT) * (groups * self.record + -(-groups // self.span) * self.outer)


# q8: scale * (q - 128), as GGUF's Q8_0. q4s: scale * (q - 8), as Q4_0. q4a: scale * q + base, as Q4_1. 64 and 128 are the
# columns that share a scale, 32 where nothing is said. q4k: d * scale * q - m * base, d and m for 256 columns, whole scale
# and base for 32, as Q4_K. q6k: d * (scale - 128) * (q - 32), d for 256 columns, scale for 16, as Q6_K. Scales that are not whole are float16.
FORMATS = {
    f.name: f
    for f in (
        Format("q8", 0, 8, 128, outer=64),
        Format("q4s", 1, 4, 8, outer=64),
        Format("q4s64", 1, 4, 8, outer=64, span=2),
        Format("q4s128", 1, 4, 8, outer=64, span=4),
        Format("q4a", 2, 4, 0, outer=128),
        Format("q4a64", 2, 4, 0, outer=128, span=2),
        Format("q4a128", 2, 4, 0, outer=128, span=4),
        Format("q4k", 3, 4, 0, outer=128, span=8, inner=64),
        Format("q6k", 4, 6, 32, outer=64, span=8, inner=64),
    )
}


@dataclass(frozen=True, slots=True)
class Grouped:
    """Rows in groups, ready to pack: q uint8 [n, G, 32]; scales float16 [n, S, 1 or 2], of each span its scale and, where
    the format has one, its base (q4k's d and m, q6k's d); whole uint8 [n, G, 2], q4k's scale and base of each group, q6k's
    scales of its halves."""

    q: Tensor
    scales: Tensor
    whole: Tensor | None = None


def pack(rows: Grouped, format: Format) -> Tensor:
    """[n, G, ...] -> uint8 [U, bytes of a unit]; rows missing from the last unit are zeros."""
    groups, spans = rows.q.shape[1], rows.scales.shape[1]
    missing = spans * format.span - groups  # records of the last span that are not there
    parts = [_numbers(rows.q, format)] if rows.whole is None else [_lanes(rows.whole), _numbers(rows.q, format)]
    parts = [F.pad(part, (0, 0, 0, missing)) if missing else part for part in parts]
    out = parts[0].new_empty(len(parts[0]), spans, format.outer + format.span * format.record)
    out[..., : format.outer] = _lanes(rows.scales)
    records = out[..., format.outer :].unflatten(2, (format.span, format.record))
    if rows.whole is not None:
        records[..., : format.inner] = parts[0].unflatten(1, (spans, -1))
    records[..., format.inner :] = parts[-1].unflatten(1, (spans, -1))
    return out.flatten(1)[:, : format.nbytes(UNIT, groups * GROUP)]


def unpack(packed: Tensor, rows: int, columns: int, format: Format) -> Tensor:
    """The weight, float32 [N, K]."""
    spans = -(-columns // (GROUP * format.span))
    size = format.outer + format.span * format.record
    units = packed.view(-1, format.nbytes(UNIT, columns))
    units = F.pad(units, (0, spans * size - units.shape[1])).unflatten(1, (spans, size))
    records = units[..., format.outer :].unflatten(2, (format.span, -1)).flatten(1, 2)
    q = records[..., format.inner :]
    if format.bits < 8:
        low = q[..., : GROUP * UNIT // 2].unflatten(2, (4, -1))
        low = torch.stack((low & 15, low >> 4), dim=3).flatten(2)
        q = low if format.bits == 4 else low | _two_bits(q[..., GROUP * UNIT // 2 :]) << 4
    q = q.unflatten(2, (8, UNIT, 4)).permute(0, 3, 1, 2, 4).flatten(3)  # [U, 32, G, 32]
    halves = units[..., : format.outer].contiguous().view(torch.float16).unflatten(2, (-1, UNIT))
    scales = halves.float().permute(0, 3, 1, 2).repeat_interleave(format.span, dim=2)  # [U, 32, G, 1 or 2]
    if format.inner:
        whole = records[..., : format.inner].unflatten(2, (2, UNIT)).permute(0, 3, 1, 2).float()
        scales = scales * (whole * whole.new_tensor((1, -1)) if format.bits == 4 else whole - 128)
    numbers = q.float().sub_(format.zero)
    if format.bits == 6:
        numbers = numbers.unflatten(3, (2, -1)).mul_(scales.unsqueeze(-1)).flatten(3)
    else:
        scale, *base = scales.split(1, dim=-1)
        numbers = numbers.mul_(scale).add_(base[0]) if base else numbers.mul_(scale)
    return numbers.flatten(0, 1).flatten(1)[:rows, :columns]


def _numbers(q: Tensor, format: Format) -> Tensor:
    """uint8 [n, G, 32] -> [U, G, bytes of a record's numbers]"""
    numbers = _in_units(q).unflatten(-1, (8, 4)).permute(0, 2, 3, 1, 4)  # [U, G, 8, 32, 4]
    if format.bits == 8:
        return numbers.flatten(2)
    low, high = (numbers & 15).unflatten(2, (4, 2)).unbind(3)
    nibbles = (low | (high << 4)).flatten(2)
    if format.bits == 4:
        return nibbles
    a, b, c, d = (numbers >> 4).unflatten(2, (2, 4)).unbind(3)
    return torch.cat((nibbles, (a | b << 2 | c << 4 | d << 6).flatten(2)), dim=2)


def _two_bits(high: Tensor) -> Tensor:
    """[U, G, 256] bytes of four 2-bit numbers -> [U, G, 1024]"""
    shifts = torch.tensor((0, 2, 4, 6), dtype=torch.uint8).view(4, 1)
    return (high.unflatten(2, (2, 1, -1)) >> shifts & 3).flatten(2)


def _lanes(scales: Tensor) -> Tensor:
    """[n, S, w] -> the bytes of [U, S, w, 32 rows], the last two dimensions in one."""
    return _in_units(scales).permute(0, 2, 3, 1).contiguous().flatten(2).view(torch.uint8)


def _in_units(rows: Tensor) -> Tensor:
    """[n, ...] -> [U, 32, ...], the last unit filled with zeros."""
    padded = torch.cat((rows, rows.new_zeros(-len(rows) % UNIT, *rows.shape[1:]))) if len(rows) % UNIT else rows
    return padded.unflatten(0, (-1, UNIT))
