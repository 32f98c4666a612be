"""The loss of pretraining and of supervised fine-tuning, and what is said of it."""

import torch
from torch import Tensor

from myna.data import IGNORED
from myna.train.loss import bits_per_byte, cross_entropy
from myna.train.method import Outcome, Tensors
from myna.train.trainee import Trainee


def next_token(trainee: Trainee, token_bytes: Tensor, batch: Tensors) -> Outcome:
    """Summed cross-entropy, in units of weight. While evaluating, also how many bytes of text the targets are."""
    hidden = trainee.decoder(batch.ids, batch.positions, batch.memory)
    loss = cross_entropy(trainee.decoder, hidden, batch.targets, batch.weights)
    if torch.is_grad_enabled():
        return Outcome(loss, batch.units)
    wanted = batch.targets[batch.targets != IGNORED]
    return Outcome(loss, batch.units, {"bytes_per_token": (token_bytes[wanted].sum(), batch.units)})


def bits(means: dict[str, float]) -> dict[str, float]:
    """Bits per byte: the same question to every tokenizer."""
    return {"bits_per_byte": bits_per_byte(means["loss"], means["bytes_per_token"])}
