"""How keys and values lie in pages: what native/pages.h draws, written and read in torch. The decoder's path uses this, and
the native operations are tested against it.

Shape letters: n slots or blocks, K key heads, D channels of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from myna.kernels.formats import GROUP, SMALLEST

BLOCK = 16  # positions in a block; as in engine/blocks.py and native/linear.h
KEPT = {"bfloat16": 0, "int8": 1}  # what the native operations read


@dataclass(frozen=True, slots=True)
class PageFormat:
    """`kept`: float32, bfloat16, or int8 with a bfloat16 scale for each position and 32 channels of a head, keys mixed.
    The pages of a layer are two uint8 tensors [blocks, K, nbytes]: keys and values."""

    kept: str
    dim: int

    @property
    def wide(self) -> int:
        """Channels of a head with the zeros that fill it up."""
        return -(-self.dim // 16) * 16

    @property
    def nbytes(self) -> int:
        """Bytes of the keys, or of the values, of one head in one block."""
        if self.kept == "int8":
            return BLOCK * (self.wide + 2 * -(-self.wide // GROUP))
        return BLOCK * self.wide * self._dtype.itemsize

    @property
    def _dtype(self) -> torch.dtype:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.kept]

    def write(self, keys: Tensor, values: Tensor, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store float k and v [n, K, D] in the pages of a layer; slot s is place s % BLOCK of block s // BLOCK."""
        block, place, fill = slots // BLOCK, slots % BLOCK, (0, self.wide - self.dim)
        k, v = (torch.nn.functional.pad(x, fill) for x in (k, v))
        if self.kept == "int8":
            k, self._scales(keys)[block, :, :, place] = quantize(mix(k.float()))
            v, self._scales(values)[block, :, :, place] = quantize(v.float())
            k = k.to(torch.int16) + 128
        into_keys, into_values = self._numbers(keys, keys=True), self._numbers(values, keys=False)
        into_keys[block, :, :, place] = k.unflatten(-1, (-1, into_keys.shape[-1])).to(into_keys.dtype)
        into_values[block, :, place // 2, :, place % 2] = v.to(into_values.dtype)

    def read(self, keys: Tensor, values: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """k and v of whole blocks, [n, K, BLOCK, D]: float32 of int8 pages, else as they are kept."""
        keys, values = keys[blocks], values[blocks]
        k = self._numbers(keys, keys=True).transpose(2, 3).flatten(3)
        v = self._numbers(values, keys=False).transpose(3, 4).flatten(2, 3)
        if self.kept != "int8":
            return k[..., : self.dim], v[..., : self.dim]
        k, v = mix((k.float() - 128) * self._steps(keys)), v.float() * self._steps(values)
        return k[..., : self.dim], v[..., : self.dim]

    def _steps(self, pages: Tensor) -> Tensor:
        """The scale of every number, float32 [n, K, BLOCK, wide]."""
        return self._scales(pages).transpose(2, 3).float().repeat_interleave(GROUP, -1)[..., : self.wide]

    def _numbers(self, pages: Tensor, *, keys: bool) -> Tensor:
        """keys [n, K, wide / 2 or 4, BLOCK, 2 or 4], values [n, K, BLOCK / 2, wide, 2]: a view."""
        whole = self.kept == "int8"
        numbers = pages[..., : BLOCK * self.wide] if whole else pages.view(self._dtype)
        if whole and not keys:
            numbers = numbers.view(torch.int8)
        return numbers.unflatten(-1, (-1, BLOCK, 4 if whole else 2) if keys else (BLOCK // 2, self.wide, 2))

    def _scales(self, pages: Tensor) -> Tensor:
        """bfloat16 [n, K, groups, BLOCK] of int8 pages: a view."""
        return pages[..., BLOCK * self.wide :].view(torch.bfloat16).unflatten(-1, (-1, BLOCK))


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [..., wide] -> int8 of the same shape and bfloat16 [..., groups]. The scale is the largest / 127 rounded up,
    so that nothing exceeds 127; NaN where a number is not finite."""
    groups = torch.nn.functional.pad(x, (0, -x.shape[-1] % GROUP)).unflatten(-1, (-1, GROUP))
    most = groups.abs().amax(-1, keepdim=True)
    broken, small = ~torch.isfinite(most), most < SMALLEST
    up = (most / 127).contiguous().view(torch.int32).add_(0xFFFF).bitwise_and_(-0x10000).view(torch.float32)
    q = (groups / up).round_().masked_fill_(broken | small, 0).to(torch.int8)
    scale = up.masked_fill(small, 0).bfloat16().masked_fill(broken, torch.nan)
    return q.flatten(-2)[..., : x.shape[-1]], scale.squeeze(-1)


def mix(x: Tensor) -> Tensor:
    """float32 [..., wide]: each group of channels times the orthonormal Hadamard matrix of its size, which is its own
    inverse. A channel that towers above its group would take the whole scale (QuaRot, Ashkboos et al. 2024)."""
    parts = x.split(GROUP, -1)
    return torch.cat([_hadamard(part) for part in parts], -1)


def _hadamard(x: Tensor) -> Tensor:
    """float32 [..., 16 or 32]"""
    size = x.shape[-1]
    for step in (1, 2, 4, 8, 16)[: size.bit_length() - 1]:
        a, b = x.unflatten(-1, (-1, 2, step)).unbind(-2)
        x = torch.stack((a + b, a - b), -2).flatten(-3)
    return x * size**-0.5
