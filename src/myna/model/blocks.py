"""Stored bytes -> float32 numbers, a chunk of rows at a time.

The common GGUF block types are decoded here with whole-tensor operations on both cores; the rest by the `gguf` package,
bit for bit alike. Layouts: ggml's ggml-common.h; n below counts blocks, and a "super-block" (the K types) has 256 numbers.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from myna.records import ModelDirError

DENSE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def decode(kind: str, raw: np.ndarray) -> Tensor:
    """uint8 [rows, bytes] (writable, contiguous) of one kind -> float32 [rows, columns]."""
    if kind in DENSE:
        return torch.from_numpy(raw).view(DENSE[kind]).float()
    if kind not in _BLOCKS:
        return _decode_by_package(kind, raw)
    size, unpack = _BLOCKS[kind]
    return unpack(torch.from_numpy(raw).view(-1, size)).view(len(raw), -1)


def _decode_by_package(kind: str, raw: np.ndarray) -> Tensor:
    """The types that the `gguf` package decodes and we do not: IQ*, TQ*, MXFP4 and whatever comes next."""
    from gguf import GGMLQuantizationType, quants  # here: safetensors users need not wait for it

    try:
        return torch.from_numpy(quants.dequantize(raw, GGMLQuantizationType[kind]))
    except (KeyError, NotImplementedError):
        ours = ", ".join([*DENSE, *_BLOCKS])
        raise ModelDirError(f"weights of type {kind} cannot be decoded. Use a file of another type: {ours}.") from None


def _halves(block: Tensor, start: int) -> Tensor:
    """The float16 at byte `start` of every block, float32 [n, 1, 1]."""
    return block[:, start : start + 2].contiguous().view(torch.float16).float().unsqueeze(2)


def nibbles(packed: Tensor, groups: int) -> Tensor:
    """[n, groups * w] bytes -> uint8 [n, groups, 2, w]: of each group first the low halves, then the high ones."""
    packed = packed.reshape(len(packed), groups, -1)
    out = packed.new_empty(len(packed), groups, 2, packed.shape[-1])
    torch.bitwise_and(packed, 15, out=out[:, :, 0])
    torch.bitwise_right_shift(packed, 4, out=out[:, :, 1])
    return out


def _bits(packed: Tensor, width: int, groups: int) -> Tensor:
    """[n, groups * w] bytes -> uint8 [n, groups, 8 / width, w]: of each group the lowest `width` bits first."""
    packed = packed.reshape(len(packed), groups, 1, -1)
    shifts = torch.arange(0, 8, width, dtype=torch.uint8).view(1, 1, -1, 1)
    return (packed >> shifts).bitwise_and_((1 << width) - 1)


def _fifth_bits(packed: Tensor) -> Tensor:
    """4 bytes -> 32 bits, the lowest first, in the place of a fifth bit: uint8 [n, 32]."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return (((packed.unsqueeze(2) >> shifts) & 1) << 4).view(-1, 32)


def _q4_0(b: Tensor) -> Tensor:
    return nibbles(b[:, 2:], 1).view(-1, 1, 32).float().sub_(8).mul_(_halves(b, 0))


def _q4_1(b: Tensor) -> Tensor:
    return nibbles(b[:, 4:], 1).view(-1, 1, 32).float().mul_(_halves(b, 0)).add_(_halves(b, 2))


def _q5_0(b: Tensor) -> Tensor:
    q = nibbles(b[:, 6:], 1).view(-1, 32) | _fifth_bits(b[:, 2:6])
    return q.view(-1, 1, 32).float().sub_(16).mul_(_halves(b, 0))


def _q5_1(b: Tensor) -> Tensor:
    q = nibbles(b[:, 8:], 1).view(-1, 32) | _fifth_bits(b[:, 4:8])
    return q.view(-1, 1, 32).float().mul_(_halves(b, 0)).add_(_halves(b, 2))


def _q8_0(b: Tensor) -> Tensor:
    return b[:, 2:].contiguous().view(torch.int8).float().unsqueeze(1).mul_(_halves(b, 0))


def _q2_k(b: Tensor) -> Tensor:
    """16 scales and minima of 4 bits; 2-bit numbers."""
    scales, q = b[:, :16].unsqueeze(2), _bits(b[:, 16:80], 2, 2).reshape(-1, 16, 16)
    return q.float().mul_(_halves(b, 80) * (scales & 15).float()).sub_(_halves(b, 82) * (scales >> 4).float())


def _q3_k(b: Tensor) -> Tensor:
    """16 scales of 6 bits; 2-bit numbers whose third bit, where it is missing, stands for -4."""
    high = _bits(b[:, :32], 1, 1).reshape(-1, 16, 16)
    q = _bits(b[:, 32:96], 2, 2).reshape(-1, 16, 16)
    low = nibbles(b[:, 96:104], 1).reshape(-1, 16)
    scales = low | (_bits(b[:, 104:108], 2, 1).reshape(-1, 16) << 4)
    step = _halves(b, 108) * (scales.float() - 32).unsqueeze(2)
    return (q | (high << 2)).float().sub_(4).mul_(step)


def _scales_6_bit(packed: Tensor) -> tuple[Tensor, Tensor]:
    """12 bytes of Q4_K and Q5_K -> 8 scales and 8 minima, float32 [n, 8, 1]."""
    d, m, rest = packed.reshape(-1, 3, 4).unbind(1)
    scales = torch.cat((d & 63, (rest & 15) | ((d >> 2) & 48)), dim=1)
    minima = torch.cat((m & 63, (rest >> 4) | ((m >> 2) & 48)), dim=1)
    return scales.float().unsqueeze(2), minima.float().unsqueeze(2)


def _q4_k(b: Tensor) -> Tensor:
    scales, minima = _scales_6_bit(b[:, 4:16])
    q = nibbles(b[:, 16:], 4).view(-1, 8, 32)
    return q.float().mul_(_halves(b, 0) * scales).sub_(_halves(b, 2) * minima)


def _q5_k(b: Tensor) -> Tensor:
    scales, minima = _scales_6_bit(b[:, 4:16])
    q = nibbles(b[:, 48:], 4).view(-1, 8, 32)
    q |= _bits(b[:, 16:48], 1, 1).view(-1, 8, 32).bitwise_left_shift_(4)
    return q.float().mul_(_halves(b, 0) * scales).sub_(_halves(b, 2) * minima)


def six_bits(b: Tensor) -> Tensor:
    """The numbers of Q6_K, 4 bits in one place and 2 in another: uint8 [n, 8, 32]."""
    q = nibbles(b[:, :128], 2).view(-1, 8, 32)
    return q.bitwise_or_(_bits(b[:, 128:192], 2, 2).view(-1, 8, 32).bitwise_left_shift_(4))


def _q6_k(b: Tensor) -> Tensor:
    """16 signed scales of 8 bits; 6-bit numbers less 32."""
    step = _halves(b, 208) * b[:, 192:208].contiguous().view(torch.int8).float().unsqueeze(2)
    return six_bits(b).view(-1, 16, 16).float().sub_(32).mul_(step)


# Type -> bytes of a block, and its decoder: uint8 [n, bytes] -> float32 [n, ...].
_BLOCKS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
    "Q2_K": (84, _q2_k),
    "Q3_K": (110, _q3_k),
    "Q4_K": (144, _q4_k),
    "Q5_K": (176, _q5_k),
    "Q6_K": (210, _q6_k),
}
