"""The model as it was before the first step, which DPO and GRPO compare with: with adapters, the same model without them;
else a frozen copy."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from myna.model import Decoder
from myna.model.lora import Adapted
from myna.train.loss import log_probs
from myna.train.method import Tensors
from myna.train.trainee import Trainee


class Reference:
    """Made before anything is trained, and before a checkpoint is read."""

    def __init__(self, trainee: Trainee):
        self.trainee = trainee
        adapted = any(isinstance(module, Adapted) for module in trainee.decoder.modules())
        self.frozen: Decoder | None = None if adapted else copy.deepcopy(trainee.decoder).requires_grad_(False).eval()

    @torch.no_grad()
    def log_probs(self, batch: Tensors, temperature: float = 1.0) -> Tensor:
        """log p(target) [B, T] by the model of the start."""
        with _without_adapters(self.trainee.decoder) if self.frozen is None else _as_it_is(self.frozen) as decoder:
            return log_probs(decoder, decoder(batch.ids, batch.positions, batch.memory), batch.targets, temperature)


@contextmanager
def _as_it_is(decoder: Decoder) -> Iterator[Decoder]:
    yield decoder


@contextmanager
def _without_adapters(decoder: Decoder) -> Iterator[Decoder]:
    adapted = [module for module in decoder.modules() if isinstance(module, Adapted)]
    kept = [module.loras for module in adapted]
    training = decoder.training
    for module in adapted:
        module.loras = nn.ModuleList()
    decoder.eval()
    try:
        yield decoder
    finally:
        decoder.train(training)
        for module, loras in zip(adapted, kept, strict=True):
            module.loras = loras
