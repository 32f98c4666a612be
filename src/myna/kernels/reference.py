"""What the native operations compute, in torch: the truth they are tested against."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.kernels.adapters import AddedTo
from myna.kernels.formats import GROUP, SMALLEST, Format, unpack
from myna.kernels.program import Part

REFINED, TIE = 2, 1e-7  # as in native/fit.h


def normalise(x: Tensor, weight: Tensor, eps: float, bias: Tensor | None = None) -> Tensor:
    """The rms norm of each row; with a bias its layer norm."""
    if bias is None:
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def quantize(
    x: Tensor, norm: Tensor | None = None, eps: float = 0.0, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """float32 [M, K] -> int8 [M, G, 32] and float32 [M, G, 1]: the largest of each group becomes 127.

    A group with a number that is not finite has scale NaN and stays in its row."""
    if norm is not None:
        x = normalise(x, norm, eps, bias)
    groups = F.pad(x, (0, -x.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    most = groups.abs().amax(-1, keepdim=True)
    broken, small = ~torch.isfinite(most), most < SMALLEST
    q = (groups * torch.full_like(most, 127).div_(most)).round_().masked_fill_(broken | small, 0).to(torch.int8)
    return q, (most / 127).masked_fill_(small, 0).masked_fill_(broken, torch.nan)


def rows(q: Tensor, scale: Tensor) -> Tensor:
    """Quantized rows as the bytes that the native library reads: [M, bytes]."""
    halves = q.unflatten(-1, (2, -1)).sum(-1, dtype=torch.int16)
    whole = q.sum(-1, dtype=torch.int32, keepdim=True)
    parts = (q, scale, whole * scale, -128 * whole, halves)
    return torch.cat([part.contiguous().view(torch.uint8) for part in parts], dim=-1).flatten(1)


def linear(q: Tensor, scale: Tensor, packed: Tensor, shape: tuple[int, int], format: Format) -> Tensor:
    """Quantized rows times a packed weight [N, K] = shape, float64 [M, N]."""
    weight = unpack(packed, *shape, format).double()
    return (q * scale.double()).flatten(1)[:, : shape[1]] @ weight.T


def adapt(q: Tensor, scale: Tensor, adapters: Sequence[Sequence[AddedTo]], numbers: Sequence[int], n: int) -> Tensor:
    """What each quantized row's adapter adds to a product of n outputs, float64 [M, N]; number -1: nothing."""
    added = torch.zeros(len(q), n, dtype=torch.float64)
    x = (q * scale.double()).flatten(1)
    for row, number in enumerate(numbers):
        for start, a, b, factor in adapters[number] if number >= 0 else ():
            added[row, start : start + len(b)] += factor * (b.double() @ (a.double() @ x[row, : a.shape[1]]))
    return added


def hidden(
    q: Tensor,
    scale: Tensor,
    gate: Part,
    up: Part | None,
    bias: Tensor | None,
    activation: str,
    added: Tensor | None = None,
) -> Tensor:
    """Quantized rows -> act(gate) * up, or act(gate): float64 [M, N]; bias [N] or [2 N]; `added` [M, N or 2 N] to the products."""
    parts = [linear(q, scale, *part) for part in (gate, up) if part]
    if bias is not None:
        parts = [part + b for part, b in zip(parts, bias.double().split(gate[1][0]), strict=True)]
    if added is not None:
        parts = [part + more for part, more in zip(parts, added.split(gate[1][0], dim=1), strict=True)]
    match activation:
        case "silu" | "swish":
            out = F.silu(parts[0])
        case "relu":
            out = F.relu(parts[0])
        case _:
            out = F.gelu(parts[0], approximate="none" if activation == "gelu" else "tanh")
    return out * parts[1] if up else out


def route(x: Tensor, router: Tensor, top_k: int, normalised: bool) -> tuple[Tensor, Tensor]:
    """[M, K] -> the experts of each row [M, top_k], ascending, and their weights; of two alike the lower expert."""
    weights, chosen = (x @ router.T).softmax(-1).sort(dim=-1, descending=True, stable=True)
    chosen, order = chosen[:, :top_k].sort(dim=-1)
    weights = weights[:, :top_k].gather(1, order)
    return chosen, weights / weights.sum(-1, keepdim=True) if normalised else weights


def deal(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """[M, top_k] -> how many pairs each expert has, and the number of each pair: expert by expert, there by row."""
    order = chosen.flatten().argsort(stable=True)
    numbers = torch.empty_like(order)
    numbers[order] = torch.arange(len(order))
    return chosen.flatten().bincount(minlength=experts), numbers.view_as(chosen)


def fit(x: Tensor, tries: Tensor, low: int, high: int, most: float | None) -> Tensor:
    """Groups [m, C] -> scale and base, float64 [m, 2], such that scale * q + base is near, q whole, low <= q <= high and
    base <= most; without `most` the base is 0. kernels/quantize.py says what is tried."""
    x, n = x.double(), x.shape[1]
    least, largest = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    start = torch.zeros_like(least) if most is None else least.clamp_max(most)
    span = torch.where(largest > -least, largest, least) if most is None else largest - start
    y, limit = x - start, (0.0 if most is None else most) - start

    def fitted(q: Tensor, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest scale and base for these numbers, and what they lose."""
        q1, y1, q2, qy = (v.sum(1, keepdim=True) for v in (q, y, q * q, q * y))
        base = (y1 - (n * qy - q1 * y1) / (n * q2 - q1 * q1) * q1) / n
        base = torch.zeros_like(start) if most is None else torch.minimum(base.nan_to_num(math.inf), limit)
        scale = (qy - base * q1) / q2
        return scale, base, (scale * q + base - y).square().sum(1, keepdim=True) + TIE * n * step**2

    scale, base, loss = torch.zeros_like(start), torch.zeros_like(start), torch.full_like(start, math.inf)
    for i in range(len(tries) + REFINED):
        again = i >= len(tries)
        inverse, offset = (1 / scale, -base / scale) if again else (tries[i, 0] / span, tries[i, 1])
        found = fitted((y * inverse + offset).round_().clamp_(low, high), 1 / inverse)
        less = found[2] < loss
        scale, base, loss = (torch.where(less, *pair) for pair in zip(found, (scale, base, loss), strict=True))
    return torch.cat((scale, base + start), dim=1)
