"""Numbers rounded to a packed format."""

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.kernels.formats import GROUP, Format, Grouped
from myna.records import ModelDirError


def quantize(rows: Tensor, format: Format) -> Grouped:
    """float32 [n, K] -> the nearest numbers of "q8" or "q4s"; ModelDirError where a weight has no place in either."""
    padded = F.pad(rows, (0, -rows.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    if format.name == "q4s":  # as ggml: the largest by size, with its sign, becomes -8
        index = padded.abs().argmax(-1, keepdim=True)
        scale, most = padded.gather(-1, index) / -8, 15
    else:
        scale, most = padded.abs().amax(-1, keepdim=True) / 127, 255
    scale = scale.half()
    if not torch.isfinite(scale).all():
        raise ModelDirError("a weight is infinite, not a number, or too large to be quantized; load it as float32.")
    step = scale.float()
    inverse = torch.where(step == 0, 0, 1 / step)
    return Grouped((padded * inverse).round_().add_(format.zero).clamp_(0, most).to(torch.uint8), scale)
