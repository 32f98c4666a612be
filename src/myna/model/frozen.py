"""A product with a weight that is kept in few bits and not trained: it is decoded for the product, and again on the way back.

Autograd would keep every layer's decoded weight until then, which is the whole model in float32.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def frozen_product(x: Tensor, decode: Callable[[], Tensor]) -> Tensor:
    """x W^T, [..., K] -> float32 [..., N], with W = decode() float32 [N, K]. The gradient is x's alone."""
    y: Tensor = _Product.apply(x.float(), decode)
    return y


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, decode: Callable[[], Tensor]) -> Tensor:
        ctx.decode = decode
        return F.linear(x, decode())

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (grad,) = upstream  # in what the product was computed in: autocast is over by now
        return (grad @ ctx.decode().to(grad.dtype)).float(), None
