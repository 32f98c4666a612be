"""NF4: a weight in 4 bits whose 16 levels hold equal shares of a normal distribution, with scales quantized in turn
(Dettmers et al. 2023, QLoRA, arXiv:2305.14314). For frozen weights while adapters beside them are trained."""

import torch
from torch import Tensor, nn

from myna.model.frozen import frozen_product
from myna.records import ModelDirError

# Appendix E of the paper.
LEVELS = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip
BORDERS = (LEVELS[1:] + LEVELS[:-1]) / 2
PAIRS = torch.cartesian_prod(LEVELS, LEVELS)  # of a byte: the level of its high half, and of its low half
BLOCK = 64  # numbers that share a scale: their largest magnitude
GROUP = 256  # scales that share an origin and a step


def row_bytes(columns: int) -> int:
    """Bytes that an NF4Linear keeps of a row."""
    blocks = -(-columns // BLOCK)
    return blocks * (BLOCK // 2 + 1) + 8 * -(-blocks // GROUP)


class NF4Linear(nn.Module):
    """W [N, K], 4 bits a number in blocks of 64 along a row; a block's scale is origin + step * 8 bits, with origin and step
    float32 for up to 256 blocks of a row. About 4.2 bits a number. Products are of the decoded weight, in float32."""

    codes: Tensor
    scales: Tensor
    origins: Tensor
    precision = "nf4"

    def __init__(self, columns: int, rows: int, bias: bool = False):
        super().__init__()
        self.columns = columns
        blocks = -(-columns // BLOCK)
        self.register_buffer("codes", torch.zeros(rows, blocks * BLOCK // 2, dtype=torch.uint8))
        self.register_buffer("scales", torch.zeros(rows, blocks, dtype=torch.uint8))
        self.register_buffer("origins", torch.zeros(rows, -(-blocks // GROUP), 2))
        self.bias = nn.Parameter(torch.zeros(rows)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> float32 [..., N]"""
        y = frozen_product(x, self.decoded)
        return y if self.bias is None else y + self.bias

    def decoded(self) -> Tensor:
        """The weight, float32 [N, K]."""
        return self._decode(slice(None))

    def rows(self, ids: Tensor) -> Tensor:
        """Long [...] -> float32 [..., K]: the embedding."""
        return self._decode(ids.flatten()).view(*ids.shape, -1)

    @torch.no_grad()
    def fill(self, start: int, rows: Tensor) -> None:
        """Quantize float32 rows [n, K] and write them from row `start` on."""
        if not torch.isfinite(rows).all():
            raise ModelDirError("a weight is infinite or not a number, so it cannot be quantized; load it as float32.")
        here = slice(start, start + len(rows))
        blocks = nn.functional.pad(rows, (0, -rows.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
        largest = blocks.abs().amax(2)
        self.origins[here], self.scales[here] = _quantize_scales(largest)
        # Of the scale as it was, as the paper does: the rounding of a scale moves all numbers of its block alike.
        unit = blocks / largest.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(2)
        codes = torch.bucketize(unit, BORDERS.to(rows.device), out_int32=True).flatten(1).to(torch.uint8)
        self.codes[here] = codes[:, ::2] << 4 | codes[:, 1::2]

    def _decode(self, which: slice | Tensor) -> Tensor:
        codes, scales, origins = self.codes[which], self.scales[which], self.origins[which]
        low, step = (part.repeat_interleave(GROUP, 1)[:, : scales.shape[1]] for part in origins.unbind(2))
        levels = PAIRS.to(codes.device)[codes.int()].view(len(codes), -1, BLOCK)
        return (levels * (low + step * scales).unsqueeze(2)).flatten(1)[:, : self.columns]


def _quantize_scales(largest: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [n, blocks] -> (origin and step) [n, groups, 2], codes uint8 [n, blocks]."""
    missing = -largest.shape[1] % GROUP
    last = largest[:, -1:].expand(-1, missing)
    groups = torch.cat([largest, last], 1).unflatten(1, (-1, GROUP))
    low = groups.amin(2)
    step = (groups.amax(2) - low) / 255
    codes = ((groups - low.unsqueeze(2)) / step.clamp_min(1e-30).unsqueeze(2)).round().clamp(0, 255)
    return torch.stack((low, step), 2), codes.flatten(1)[:, : largest.shape[1]].to(torch.uint8)
