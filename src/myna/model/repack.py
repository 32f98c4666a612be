"""Block-quantized tensors of a GGUF file -> packed weights, number for number; and which format each tensor gets.

Layouts: ggml's ggml-common.h; blocks.py decodes the same bytes to float32.
"""

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
import torch

from myna.kernels import FORMATS, UNIT, Format
from myna.kernels.formats import Grouped
from myna.model.blocks import nibbles, six_bits
from myna.model.names import Part
from myna.modeldir import Stored
from myna.records import ModelDirError

# What holds these types exactly: the same whole numbers, and scales of the same precision.
EXACT = {
    "Q8_0": FORMATS["q8"],
    "Q4_0": FORMATS["q4s"],
    "Q4_1": FORMATS["q4a"],
    "Q4_K": FORMATS["q4k"],
    "Q6_K": FORMATS["q6k"],
}
# What each 4-bit precision rounds a matrix to. int4 leaves blocks that are in 4 bits already as they are; a format's own name
# rounds those too, and is there to compare formats (docs/models.md).
ROUNDED = {"int4": FORMATS["q4k"]} | {format.name: format for format in FORMATS.values() if format.bits == 4}
# Rounding these to 4 bits costs more than it saves: they are read a row a token, or decide the last choice.
AS_STORED = ("embed.weight", "head.weight")

Pieces = tuple[tuple[int, Format], ...]
"""Formats of a weight from its first row on: (rows, format)."""


def pick_formats(parts: Iterable[Part], stored: Mapping[str, Stored], precision: str) -> dict[str, Pieces]:
    """The format of every matrix, by its path in the decoder. int8: q8. mixed: what is in EXACT stays as it is, all else
    becomes q8. int4 and the names of 4-bit formats: as ROUNDED says, embedding and head as in mixed."""
    pieces: dict[str, Pieces] = {}
    for part in parts:
        for rows in part.fused if len(part.shape) == 2 else ():
            format = _pick(part.path, stored[part.name].kind, precision)
            pieces[part.path] = _joined(pieces.get(part.path, ()), rows, format)
    return pieces


def _pick(path: str, kind: str, precision: str) -> Format:
    exact = EXACT.get(kind, FORMATS["q8"])
    if precision == "int8":
        return FORMATS["q8"]
    if precision == "mixed" or path in AS_STORED or (precision == "int4" and exact.bits == 4):
        return exact
    return ROUNDED[precision]


def _joined(pieces: Pieces, rows: int, format: Format) -> Pieces:
    """One more tensor below: a piece of its own, unless it continues the last one where a unit ends."""
    if pieces and pieces[-1][1] is format and pieces[-1][0] % UNIT == 0:
        return (*pieces[:-1], (pieces[-1][0] + rows, format))
    return (*pieces, (rows, format))


def regroup(kind: str, raw: np.ndarray) -> Grouped:
    """uint8 [rows, bytes] of a type in EXACT -> the same numbers, ready to pack."""
    data = torch.from_numpy(raw)
    grouped = {"Q4_K": _q4_k, "Q6_K": _q6_k}.get(kind, partial(_simple, kind))(data)
    if not torch.isfinite(grouped.scales).all():
        raise ModelDirError("a weight's scale is infinite or not a number: the file is damaged; pull it again.")
    return grouped


def _simple(kind: str, data: torch.Tensor) -> Grouped:
    header = {"Q8_0": 2, "Q4_0": 2, "Q4_1": 4}[kind]
    blocks = data.unflatten(1, (-1, header + (32 if kind == "Q8_0" else 16)))
    halves = blocks[..., :header].contiguous().view(torch.float16)
    if kind == "Q8_0":
        return Grouped(blocks[..., 2:] ^ 128, halves)  # two's complement + 128
    q = nibbles(blocks[..., header:].flatten(0, 1), 1).view(*blocks.shape[:2], 32)
    return Grouped(q, halves)


def _q4_k(data: torch.Tensor) -> Grouped:
    blocks = data.unflatten(1, (-1, 144))
    d, m, rest = blocks[..., 4:16].unflatten(2, (3, 4)).unbind(2)
    scales = torch.cat((d & 63, (rest & 15) | ((d >> 2) & 48)), dim=-1)
    bases = torch.cat((m & 63, (rest >> 4) | ((m >> 2) & 48)), dim=-1)
    q = nibbles(blocks[..., 16:].flatten(0, 1), 4).view(len(data), -1, 32)
    whole = torch.stack((scales.flatten(1), bases.flatten(1)), dim=-1)
    return Grouped(q, blocks[..., :4].contiguous().view(torch.float16), whole)


def _q6_k(data: torch.Tensor) -> Grouped:
    blocks = data.unflatten(1, (-1, 210))
    q = six_bits(blocks.flatten(0, 1)).view(len(data), -1, 32)
    scales = (blocks[..., 192:208] ^ 128).reshape(len(data), -1, 2)  # two's complement + 128
    return Grouped(q, blocks[..., 208:].contiguous().view(torch.float16), scales)
