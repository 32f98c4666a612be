"""Made-up pairs, a setup that gives them to a method, and TRL's trainers as functions of log-probabilities, for tests of
methods that learn from preferences."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tiny import CONTEXT, VOCAB, config, trainee
from torch import Tensor

from myna.data import Examples, Listed, Tokenized, collate
from myna.train.config import Run
from myna.train.method import Tensors
from myna.train.parallel import World
from myna.train.setup import Setup
from myna.train.trainee import Trainee

CPU = torch.device("cpu")


def answer(prompt: Sequence[int], words: Sequence[int], **facts: float) -> Tokenized:
    weights = np.r_[np.zeros(len(prompt)), np.ones(len(words))].astype(np.float32)
    return Tokenized(np.r_[np.array(prompt), np.array(words)] % VOCAB, weights, facts=facts)


def pairs(count: int, seed: int = 0) -> Listed:
    """The chosen answer counts on from the prompt by 3, the rejected by 5; lengths differ."""
    drawn = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        start, prompt, won, lost = drawn.integers(0, VOCAB), *drawn.integers(2, 5, 3)
        begun = start + 3 * np.arange(prompt)
        chosen = answer(begun, begun[-1] + 3 * np.arange(1, won + 1), score=1.0)
        made.append((chosen, answer(begun, begun[-1] + 5 * np.arange(1, lost + 1), score=0.0)))
    return Listed(made)


def singles(of: Listed) -> Listed:
    """Each answer by itself."""
    return Listed([(side,) for i in range(len(of.lengths)) for side in of[i]])


class Given(Setup):
    """A setup whose examples are at hand."""

    given: tuple[Examples, Examples | None]

    def examples(self, kind: str) -> tuple[Examples, Examples | None]:
        return self.given


def given(
    run: Path, options: Any, train: Examples, evals: Examples | None = None, of: Trainee | None = None, steps: int = 12
) -> Given:
    told = config(run=Run(steps=steps, rows=4, evaluate=4, save=4), options=options)
    setup = Given(told, of or trainee(), World(), run)
    setup.given, setup.samples = (train, evals), lambda step: []  # type: ignore[assignment]
    return setup


def batch_of(examples: Examples, rows: Sequence[Sequence[int]] = (), context: int = CONTEXT) -> Tensors:
    """One row an example, or these examples in each row."""
    rows = rows or [[i] for i in range(len(examples.lengths))]
    return Tensors.of(collate([[examples[int(i)] for i in row] for row in rows], context), CPU)


def trl_loss(trainer: type, log_probs: Tensor, reference: Tensor, tokens: Tensor, **settings: Any) -> float:
    """What a trainer of TRL computes where the model gives each sequence [chosen..., rejected...] this log-probability."""
    longest = int(tokens.max())
    mask = torch.arange(longest + 1)[None] <= tokens[:, None]
    mask[:, 0] = False  # a prompt of one token
    first = torch.zeros(len(tokens), longest)
    first[:, 0] = log_probs
    outputs = SimpleNamespace(
        log_probs=first, entropy=torch.zeros_like(first), mean_logits=torch.zeros_like(first),
        is_top1=torch.zeros_like(first, dtype=torch.bool),
    )  # fmt: skip
    chosen, rejected = reference.chunk(2)
    inputs = {
        "input_ids": torch.zeros_like(mask, dtype=torch.long), "attention_mask": torch.ones_like(mask, dtype=torch.long),
        "completion_mask": mask.long(), "ref_chosen_logps": chosen, "ref_rejected_logps": rejected,
    }  # fmt: skip
    return float(trainer._compute_loss(_as_trainer(settings), lambda **_: outputs, inputs, False))  # type: ignore[attr-defined]


def _as_trainer(settings: dict[str, Any]) -> SimpleNamespace:
    same = lambda values: values  # noqa: E731
    from collections import defaultdict

    usual: dict[str, Any] = dict(  # noqa: C408
        model=SimpleNamespace(training=True), accelerator=SimpleNamespace(device=CPU, gather_for_metrics=same, gather=same),
        aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", beta=0.1,
        label_smoothing=0.0, use_weighting=False, loss_weights=[1.0], _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    return SimpleNamespace(**usual | settings)
