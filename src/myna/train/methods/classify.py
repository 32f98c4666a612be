"""Sequence classification: minimise -sum log p(label | text), p the softmax of a linear head over a decoder's last token or,
of an encoder, over its first through a tanh layer: the fine-tuning of Devlin et al. 2019 (arXiv:1810.04805).

A row is a text and its label: {"text", "label"}, or a conversation with a `target`. The labels are those of the training rows,
in order; the model directory names them, and transformers reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from myna.train.heads import give_head, outputs
from myna.train.method import Method, Outcome, Tensors
from myna.train.offline import offline
from myna.train.preference import Stats
from myna.train.ranges import Part
from myna.train.setup import Setup

DEFAULTS = {"optim": {"lr": 2e-5, "weight_decay": 0.01, "schedule": "linear", "warmup": 0.1}, "run": {"epochs": 3.0}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Keys of classification.

    smoothing  the share of each label that is spread over all of them (Szegedy et al. 2016)
    """

    smoothing: Part = 0.0


def prepare(setup: Setup) -> Method:
    train, evals, labels = setup.labelled()
    give_head(setup, labels)
    compute = partial(label_loss, setup.trainee.module, setup.config.options)
    return offline(setup.config, train, evals, compute, partial(scores, labels))


def label_loss(module: nn.Module, options: Options, batch: Tensors) -> Outcome:
    """Summed over texts, in units of texts. While evaluating, also what F1 is made of."""
    logits, labels = outputs(module, batch), batch.facts["label"].long()
    loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=options.smoothing)
    said, texts = logits.argmax(-1), len(labels)
    stats: Stats = {"accuracy": ((said == labels).sum(), texts)}
    if not torch.is_grad_enabled():
        right = torch.bincount(labels[said == labels], minlength=logits.shape[-1])
        either = torch.bincount(labels, minlength=logits.shape[-1]) + torch.bincount(said, minlength=logits.shape[-1])
        for label, (both, any) in enumerate(zip(right, either, strict=True)):
            stats |= {f"_right_{label}": (both, texts), f"_said_or_so_{label}": (any, texts)}
    return Outcome(loss, texts, stats)


def scores(labels: Sequence[str], means: dict[str, float]) -> dict[str, float]:
    """F1 of each label that is there or was said, 2 right / (said + so), and their mean."""
    parts = [(name, means[f"_right_{n}"], means[f"_said_or_so_{n}"]) for n, name in enumerate(labels)]
    found = {f"f1 {name}": 2 * right / either for name, right, either in parts if either}
    return {"macro_f1": sum(found.values()) / len(found), **found}
