"""The model as it was before the first step, which DPO and GRPO compare with: with new adapters, the same model without them;
with adapters that training goes on from, the same model with copies of them; else a frozen copy."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from myna.model import Decoder
from myna.model.lora import Adapted, Lora
from myna.train.loss import log_probs
from myna.train.method import Tensors
from myna.train.trainee import Trainee


class Reference:
    """Made before anything is trained, and before a checkpoint is read."""

    def __init__(self, trainee: Trainee):
        self.trainee = trainee
        self.begun = [(m, _at_start(m.loras)) for m in trainee.decoder.modules() if isinstance(m, Adapted)]
        self.frozen = None if self.begun else copy.deepcopy(trainee.decoder).requires_grad_(False).eval()

    @torch.no_grad()
    def log_probs(self, batch: Tensors, temperature: float = 1.0) -> Tensor:
        """log p(target) [B, T] by the model of the start."""
        with _as_begun(self.trainee.decoder, self.begun) if self.frozen is None else _as_it_is(self.frozen) as decoder:
            return log_probs(decoder, decoder(batch.ids, batch.positions, batch.memory), batch.targets, temperature)


@contextmanager
def _as_it_is(decoder: Decoder) -> Iterator[Decoder]:
    yield decoder


def _at_start(loras: nn.ModuleList) -> nn.ModuleList:
    """Nothing, if they are new: then they change nothing."""
    new = all(isinstance(lora, Lora) and lora.magnitude is None and not lora.b.any() for lora in loras)
    return nn.ModuleList() if new else copy.deepcopy(loras).requires_grad_(False)


@contextmanager
def _as_begun(decoder: Decoder, begun: list[tuple[Adapted, nn.ModuleList]]) -> Iterator[Decoder]:
    kept, training = [module.loras for module, _ in begun], decoder.training
    for module, loras in begun:
        module.loras = loras
    decoder.eval()
    try:
        yield decoder
    finally:
        for (module, _), loras in zip(begun, kept, strict=True):
            module.loras = loras
        decoder.train(training)
