"""Packed weights: what their bytes mean, packing into them, and unpacking. native/linear.h draws the same layout.

A weight [N, K] is cut into units of 32 rows, a unit into records of 32 columns. Shape letters: U units, G groups.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from myna.records import ModelDirError

GROUP = UNIT = 32
SUPER = 8  # groups that share q4k's outer scales: 256 columns


@dataclass(frozen=True, slots=True)
class Format:
    """`bits` a number; `header` bytes of scales a record, and `outer` bytes before every SUPER records."""

    name: str
    code: int
    bits: int
    header: int
    outer: int = 0

    @property
    def record(self) -> int:
        return self.header + GROUP * UNIT * self.bits // 8

    def nbytes(self, rows: int, columns: int) -> int:
        """Bytes of a packed weight of this size."""
        groups = -(-columns // GROUP)
        return -(-rows // UNIT) * (groups * self.record + -(-groups // SUPER) * self.outer)


# q8: scale * (q - 128), as GGUF's Q8_0. q4s: scale * (q - 8), as Q4_0. q4a: scale * q + base, as Q4_1.
# q4k: d * scale * q - m * base with whole scales and bases, as Q4_K. All scales and bases are float16.
FORMATS = {f.name: f for f in (Format("q8", 0, 8, 64), Format("q4s", 1, 4, 64), Format("q4a", 2, 4, 128))}
FORMATS["q4k"] = Format("q4k", 3, 4, 64, 128)


@dataclass(frozen=True, slots=True)
class Grouped:
    """Rows in groups, ready to pack: q uint8 [n, G, 32]; scale and base [n, G, 1], float16, uint8 for q4k (base is None
    where the format has none); outer float16 [n, S, 2], q4k's d and m of each 8 groups."""

    q: Tensor
    scale: Tensor
    base: Tensor | None = None
    outer: Tensor | None = None


def quantize(rows: Tensor, format: Format) -> Grouped:
    """float32 [n, K] -> the nearest numbers of "q8" or "q4s"; ModelDirError where a weight has no place in either."""
    padded = torch.nn.functional.pad(rows, (0, -rows.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    if format.name == "q4s":  # as ggml: the largest by size, with its sign, becomes -8
        index = padded.abs().argmax(-1, keepdim=True)
        scale, zero, most = padded.gather(-1, index) / -8, 8, 15
    else:
        scale, zero, most = padded.abs().amax(-1, keepdim=True) / 127, 128, 255
    scale = scale.half()
    if not torch.isfinite(scale).all():
        raise ModelDirError("a weight is infinite, not a number, or too large to be quantized; load it as float32.")
    step = scale.float()
    inverse = torch.where(step == 0, 0, 1 / step)
    return Grouped((padded * inverse).round_().add_(zero).clamp_(0, most).to(torch.uint8), scale)


def pack(rows: Grouped, format: Format) -> Tensor:
    """[n, G, ...] -> uint8 [U, bytes of a unit]; rows missing from the last unit are zeros."""
    units, groups = -(-len(rows.q) // UNIT), rows.q.shape[1]
    out = torch.zeros(units, format.nbytes(UNIT, groups * GROUP), dtype=torch.uint8)
    records, outer = _views(out, groups, format)
    records[..., : format.header] = _headers(rows, format).view(*records.shape[:3], -1)
    numbers = _in_units(rows.q).unflatten(-1, (8, 4)).permute(0, 3, 4, 1, 2, 5)  # [U, G, 8, 2, 16, 4]
    if format.bits == 4:
        pairs = numbers.unflatten(2, (4, 2))
        numbers = pairs[:, :, :, 0] | (pairs[:, :, :, 1] << 4)
    records[..., format.header :] = numbers.reshape(*records.shape[:3], -1)
    if outer is not None:
        assert rows.outer is not None
        outer[:] = _bytes(_in_units(rows.outer).flatten(1, 2).permute(0, 2, 3, 1)).flatten(2)
    return out


def unpack(packed: Tensor, rows: int, columns: int, format: Format) -> Tensor:
    """The weight, float32 [N, K]."""
    groups = -(-columns // GROUP)
    records, outer = _views(packed.view(-1, format.nbytes(UNIT, columns)), groups, format)
    q = records[..., format.header :].flatten(1, 2)
    if format.bits == 4:
        q = torch.stack((q.unflatten(2, (4, -1)) & 15, q.unflatten(2, (4, -1)) >> 4), dim=3).flatten(2)
    q = q.unflatten(2, (8, UNIT, 4)).permute(0, 3, 1, 2, 4).flatten(3)  # [U, 32, G, 32]
    scale, base = _unpack_scales(records[..., : format.header].flatten(1, 2), outer)
    numbers = q.float().sub_({"q8": 128, "q4s": 8}.get(format.name, 0)).mul_(scale)
    numbers = numbers if base is None else numbers.add_(base)
    return numbers.flatten(0, 1).flatten(1)[:rows, :columns]


def _views(units: Tensor, groups: int, format: Format) -> tuple[Tensor, Tensor | None]:
    """Records [U, S, groups, bytes] (S is 1 but for q4k) and q4k's outer scales [U, S, bytes] of packed units."""
    if not format.outer:
        return units.unflatten(1, (1, groups, format.record)), None
    assert groups % SUPER == 0, f"{format.name} packs multiples of {SUPER * GROUP} columns"
    supers = units.unflatten(1, (groups // SUPER, -1))
    return supers[:, :, format.outer :].unflatten(2, (SUPER, -1)), supers[:, :, : format.outer]


def _headers(rows: Grouped, format: Format) -> Tensor:
    """[U, G, header bytes]"""
    parts = [rows.scale] if rows.base is None else [rows.scale, rows.base]
    return torch.cat([_bytes(_in_units(x.squeeze(2)).flatten(1, 2).transpose(1, 2)) for x in parts], dim=-1)


def _unpack_scales(headers: Tensor, outer: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """scale and base, float32 [U, 32, G, 1]"""
    width = UNIT if outer is not None else 2 * UNIT
    parts = [headers[..., :width], headers[..., width:]] if headers.shape[-1] > width else [headers]
    if outer is None:
        found = [part.contiguous().view(torch.float16).float() for part in parts]
    else:
        halves = outer.contiguous().view(torch.float16).float().unflatten(-1, (2, UNIT)).unbind(-2)
        found = [
            (part.float().unflatten(1, (-1, SUPER)) * half.unsqueeze(2)).flatten(1, 2)
            for part, half in zip(parts, (halves[0], -halves[1]), strict=True)
        ]
    scale, *base = (part.transpose(1, 2).unsqueeze(3) for part in found)
    return scale, base[0] if base else None


def _in_units(rows: Tensor) -> Tensor:
    """[n, ...] -> [U, 2, 16, ...], the last unit filled with zeros."""
    padded = torch.cat((rows, rows.new_zeros(-len(rows) % UNIT, *rows.shape[1:]))) if len(rows) % UNIT else rows
    return padded.unflatten(0, (-1, 2, UNIT // 2))


def _bytes(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.uint8)
