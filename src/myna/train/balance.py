"""Experts that get as many tokens as each other, without a loss for it (Wang et al. 2024, arXiv:2408.15664).

Each expert has a bias that is added to its gate when a token chooses, and never to the gate that weighs its answer. After each
step the biases of experts with fewer tokens than the mean of their layer rise by `rate`, those of the others fall. So the
gradient knows nothing of balance.

No family that we train has a place for such biases in its files. So in the last FADE of a run they fade to 0 while the router
learns on; the model that is published, and the one the last evaluation sees, chooses by its router alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from myna.model.moe import Experts
from myna.train.parallel import World

FADE = 0.2
STATE = "balance"  # in a checkpoint's State.extra
_again = False  # whether a forward pass is computed a second time, for the way back


class Balance:
    """Biases [layers, E] and counts of a model's mixtures. A rate of 0 counts alone."""

    def __init__(self, model: nn.Module, rate: float, world: World):
        self.layers = [module for module in model.modules() if isinstance(module, Experts)]
        trained = any(layer.router.weight.requires_grad for layer in self.layers)
        self.rate, self.world = (rate if trained else 0.0), world
        experts = len(self.layers[0].experts) if self.layers else 0
        device = self.layers[0].router.weight.device if self.layers else None
        self.biases = torch.zeros(len(self.layers), experts, device=device)
        self.counts = torch.zeros_like(self.biases, dtype=torch.int64)
        self.real: Tensor | None = None
        self.counting = True
        if self.layers:
            model.register_forward_pre_hook(self._look)
        for number, layer in enumerate(self.layers):
            layer.chose = partial(self._count, number)

    def step(self, done: int, steps: int, *, learned: bool = True) -> dict[str, float]:
        """After step `done` of `steps`: move the biases, unless the weights did not move either; count anew. What is to be said of it: the most tokens an expert got over
        the mean, of the worst layer; and how large biases are."""
        if not self.layers:
            return {}
        summed = self.world.sum_rows(self.counts.flatten().tolist())
        counts = torch.tensor(summed, dtype=torch.float64, device=self.biases.device).view_as(self.biases)
        self.counts.zero_()
        mean = counts.mean(1, keepdim=True)
        if learned:
            self.biases += self.rate * (mean - counts).sign()
        self._set(min(1.0, max(0.0, (steps - done) / (FADE * steps))))
        worst = float((counts.amax(1) / mean[:, 0].clamp_min(1e-9)).max())
        return {"load": worst} | ({"balance": float(self.biases.abs().max())} if self.rate else {})

    def state(self) -> dict[str, Any]:
        return {STATE: {"biases": self.biases.tolist()}} if self.layers and self.rate else {}

    def restore(self, kept: dict[str, Any], done: int, steps: int) -> None:
        if self.layers and self.rate and STATE in kept:
            self.biases.copy_(torch.tensor(kept[STATE]["biases"]))
            self._set(min(1.0, max(0.0, (steps - done) / (FADE * steps))))

    def drop(self) -> bool:
        """Take the biases away, as they are taken away from what is published. False if none was left."""
        left = any(layer.bias is not None and bool(layer.bias.any()) for layer in self.layers)
        for layer in self.layers:
            layer.bias = None
        return left

    def _set(self, share: float) -> None:
        for layer, bias in zip(self.layers, self.biases if self.rate else (), strict=False):
            layer.bias = bias * share

    def _look(self, model: nn.Module, given: tuple[Any, ...]) -> None:
        """Which places are somebody's: padding chooses too, and is not counted."""
        docs = getattr(given[2], "docs", None) if len(given) > 2 else None
        self.real = None if docs is None else (docs >= 0).flatten()

    def _count(self, layer: int, chosen: Tensor) -> None:
        """chosen [n, k]; once for each token that is learned from."""
        if _again or not self.counting or not (self.layers[layer].training and torch.is_grad_enabled()):
            return
        real = chosen if self.real is None else chosen[self.real]
        self.counts[layer] += torch.bincount(real.flatten(), minlength=self.counts.shape[1])


@contextmanager
def _computing_again() -> Iterator[None]:
    global _again
    _again = True
    try:
        yield
    finally:
        _again = False


def contexts() -> tuple[Any, Any]:
    """What torch's checkpoint runs a forward pass in, and that pass again."""
    return nullcontext(), _computing_again()
