"""Normalisation, in float32 whatever the weights' precision."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.model.spec import Norm


class RMSNorm(nn.Module):
    """x / rms(x) * (offset + weight) (Zhang and Sennrich 2019); offset 1 is Gemma's."""

    def __init__(self, size: int, eps: float, offset: float = 0.0):
        super().__init__()
        self.eps = eps
        self.offset = offset
        self.weight = nn.Parameter(torch.full((size,), 1.0 - offset))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() + self.offset if self.offset else self.weight.float()
        return F.rms_norm(x.float(), x.shape[-1:], weight, self.eps)


class LayerNorm(nn.Module):
    """(x - mean) / std * weight + bias (Ba et al. 2016)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.float(), x.shape[-1:], self.weight.float(), self.bias.float(), self.eps)


def make_norm(norm: Norm, size: int) -> nn.Module:
    return LayerNorm(size, norm.eps) if norm.kind == "layer" else RMSNorm(size, norm.eps, norm.offset)
