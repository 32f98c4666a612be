"""From hidden states to what is learned: sums of log-probabilities, without ever holding the logits of a whole batch.

The logits of 16k tokens over a vocabulary of 152k are 10 GB. Here the places that count are taken out first (of a
conversation often a quarter), then go through the head in chunks whose logits are thrown away.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from myna.data import IGNORED
from myna.model import Decoder

# Logits at once: 4 Mi of float32 are 16 MiB, which two cores' second-level caches and the head's gradient share.
CHUNK = 4 << 20
# Rows at once, however large the vocabulary: each chunk adds to the whole gradient of the head. SmolLM2's of 49,152 rows took
# 8.8 s a step in chunks of 85 rows, and 6.0 s in chunks of 256 or in one.
LEAST = 256


def rows_at_once(vocab: int) -> int:
    return max(LEAST, CHUNK // vocab)


def cross_entropy(model: Decoder, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """-sum over places of weight * log p(target): hidden [..., C], targets [...] (IGNORED: no loss), weights [...].

    The gradient of a chunk is computed at once with its loss, so its logits live once; log_probs would make them twice.
    """

    def some(h: Tensor, t: Tensor, w: Tensor) -> Tensor:
        return (F.cross_entropy(model.logits(h), t, reduction="none") * w).sum()

    return summed(model, some, *counted(targets, hidden, targets, weights))


def counted(targets: Tensor, *values: Tensor) -> list[Tensor]:
    """Of each of these values [..., *] the rows [N, *] whose target is not IGNORED."""
    places = torch.where(targets.flatten() != IGNORED)[0]
    return [value.flatten(0, targets.ndim - 1)[places] for value in values]


def summed(model: Decoder, some: Callable[..., Tensor], hidden: Tensor, *rows: Tensor) -> Tensor:
    """The sum of some(hidden, *rows), which asks `model.logits` and gives one number, over chunks of the rows: hidden [N, C] and
    whatever else there is of each row. The gradient goes to hidden and the head."""
    size = rows_at_once(model.spec.vocab)
    if not torch.is_grad_enabled():
        chunks = zip(*(values.split(size) for values in (hidden, *rows)), strict=True)
        return sum((some(*chunk) for chunk in chunks), hidden.new_zeros(()))
    head = [p for p in _head(model).parameters() if p.requires_grad]
    loss: Tensor = _Summed.apply(some, size, rows, hidden, *head)
    return loss


def log_probs(model: Decoder, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) [...] of every place, 0 where the target is IGNORED. Any function of it can be learned from: on the way
    back each chunk's logits are computed again."""
    flat, wanted = hidden.flatten(0, -2), targets.flatten()
    places = torch.where(wanted != IGNORED)[0]

    def some(h: Tensor, t: Tensor) -> Tensor:
        logits = model.logits(h)
        return -F.cross_entropy(logits if temperature == 1 else logits / temperature, t, reduction="none")

    size = rows_at_once(model.spec.vocab)
    parts = zip(flat[places].split(size), wanted[places].split(size), strict=True)
    found = torch.cat([_again(some, h, t) for h, t in parts])  # one at least, if empty: the head has a gradient always
    return torch.zeros_like(wanted, dtype=torch.float32).index_put((places,), found).view(targets.shape)


def sequence_sums(values: Tensor, docs: Tensor, sequences: int) -> Tensor:
    """Sums [sequences] of values [B, T] over each sequence's places; `docs` [B, T] says whose a place is, -1 nobody's."""
    mine = docs >= 0
    return torch.zeros(sequences, dtype=values.dtype, device=values.device).index_add(0, docs[mine], values[mine])


def bits_per_byte(nats: float, bytes: float) -> float:
    """What a text costs, whatever the tokens it was cut into."""
    return nats / math.log(2) / bytes


def _head(model: Decoder) -> torch.nn.Module:
    return model.head or model.embed


def _again(some: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, targets: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return some(hidden, targets)
    result: Tensor = checkpoint(some, hidden, targets, use_reentrant=False)
    return result


class _Summed(torch.autograd.Function):
    """A sum over rows, chunk by chunk, and its gradient in the same pass (Hsu et al. 2024, Liger Kernel, do so for one
    head; here autograd does it, so soft caps, biases and adapters of the head need no word)."""

    @staticmethod
    def forward(ctx: Any, some: Callable[..., Tensor], size: int, rows: tuple[Tensor, ...], hidden: Tensor,
                *head: Tensor) -> Tensor:  # fmt: skip
        total = hidden.new_zeros(())
        of_hidden, of_head = torch.empty_like(hidden), list[Tensor]()
        for start in range(0, len(hidden), size):
            here = slice(start, start + size)
            with torch.enable_grad():
                part = hidden[here].detach().requires_grad_()
                loss = some(part, *(values[here] for values in rows))
            first, *rest = torch.autograd.grad(loss, (part, *head))
            of_hidden[here] = first
            of_head = [a.add_(b) for a, b in zip(of_head, rest, strict=True)] if of_head else rest
            total += loss.detach()
        ctx.gradients = of_hidden, *(of_head or map(torch.zeros_like, head))
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place, so they can be asked for once
        return None, None, None, *(g.mul_(upstream[0]) for g in gradients)
