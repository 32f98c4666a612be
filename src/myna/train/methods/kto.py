"""Kahneman-Tversky optimisation: learn from single answers that are marked good or bad; no pairs are needed (Ethayarajh et al.
2024, arXiv:2402.01306). Of a prompt x and an answer y, with the model p and the reference r, which is the model before the
first step:

    h = log p(y|x) - log r(y|x)
    good: d (1 - s(beta (h - z))),  bad: u (1 - s(beta (z - h)))             s is the logistic function
    z = max(0, the mean of log p(y'|x) - log r(y'|x)), where y' answers another prompt

z estimates how far the model has moved from the reference, KL(p || r); no gradient goes through it. It is taken over all rows
of a step, so micro-batches change nothing. y' belongs to the prompt half the data further on, and is cut where a row ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from myna.data import Example, Examples, Listed, Row, Tokenized
from myna.records import DataError
from myna.train.config import Config
from myna.train.method import Method, Outcome, Tensors
from myna.train.offline import offline
from myna.train.preference import Stats, answer_log_probs
from myna.train.ranges import Amount, Positive
from myna.train.reference import FACT, log_probs_now, referenced
from myna.train.setup import Setup
from myna.train.trainee import Trainee

DEFAULTS = {"optim": {"lr": 5e-7, "weight_decay": 0.0, "schedule": "linear", "warmup": 0.1}}
NUMBER = "number"  # a fact, float32: exact up to 16 million answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Keys of KTO.

    beta         how dear it is to move away from the reference
    above        an answer is good if its score is above this
    desirable    d, how much good answers count; d times their number is best 1 to 1.33 times u times that of the bad
    undesirable  u, how much bad answers count
    """

    beta: Positive = 0.1
    above: float = 0.0
    desirable: Amount = 1.0
    undesirable: Amount = 1.0


def prepare(setup: Setup) -> Method:
    config, options = setup.config, setup.config.options
    train, evals = setup.examples("judged")
    setup.known["desirable"] = _count(train, options)
    size, context = len(train.lengths), config.data.context
    parts: dict[str, Examples] = {"train": Numbered(train, 0), "train_mixed": Mixed(train, context)}
    if evals is not None:
        parts |= {"eval": Numbered(evals, size), "eval_mixed": Mixed(evals, context)}
    known = referenced(setup, **parts)

    def other(number: int) -> Example:
        return known["train_mixed"][number] if number < size else known["eval_mixed"][number - size]

    renew = partial(with_drift, setup.trainee, config, other)
    compute = partial(prospect_loss, setup.trainee, options)
    return offline(config, known["train"], known.get("eval"), compute, _margin, setup.samples, renew)


def prospect_loss(trainee: Trainee, options: Options, batch: Tensors) -> Outcome:
    """Summed over answers, in units of answers. `batch.facts` has each one's score, reference and drift z."""
    found, _ = answer_log_probs(trainee.decoder, batch)
    good, drift = batch.facts["score"] > options.above, batch.facts["drift"]
    moved = found - batch.facts[FACT]
    sign = torch.where(good, 1.0, -1.0)
    losses = 1 - torch.sigmoid(options.beta * sign * (moved - drift))
    weights = torch.where(good, options.desirable, options.undesirable)
    rewards, goods = options.beta * moved, int(good.sum())
    stats: Stats = {
        "desirable": (rewards[good].sum(), goods),
        "undesirable": (rewards[~good].sum(), len(found) - goods),
        "accuracy": (((moved > drift) == good).sum(), len(found)),
        "kl": (drift.sum(), len(found)),
    }
    return Outcome((weights * losses).sum(), len(found), stats)


def with_drift(trainee: Trainee, config: Config, other: Callable[[int], Example], rows: list[Row]) -> list[Row]:
    """The rows, with z of the weights as they are."""
    answers = [sequence for row in rows for (sequence,) in row]
    mixed = Listed([other(int(sequence.facts[NUMBER])) for sequence in answers])
    before = [mixed[i][0].facts[FACT] for i in range(len(answers))]
    z = max(0.0, float(np.mean(log_probs_now(trainee, mixed, config)[:, 0] - before)))
    return [[(replace(sequence, facts={**sequence.facts, "drift": z}),) for (sequence,) in row] for row in rows]


@dataclass(frozen=True)
class Numbered:
    """Single answers that know their number, from `first` on."""

    answers: Examples
    first: int

    @property
    def lengths(self) -> npt.NDArray[np.integer]:
        return self.answers.lengths

    def __getitem__(self, index: int, /) -> Example:
        (sequence,) = self.answers[index]
        return (replace(sequence, facts={**sequence.facts, NUMBER: self.first + index}),)


class Mixed:
    """Each prompt with the answer to another, that of the example half of all further on."""

    def __init__(self, answers: Examples, context: int):
        self.answers, self.context = answers, context
        self.lengths = np.array([len(self[i][0]) for i in range(len(answers.lengths))], np.int64)

    def __getitem__(self, index: int, /) -> Example:
        size = len(self.answers.lengths)
        (asked,), (other,) = self.answers[index], self.answers[(index + size // 2) % size]
        prompt, answer = _begins(asked), _begins(other)
        ids = np.concatenate([asked.ids[:prompt], other.ids[answer:]])[: self.context]
        weights = np.concatenate([np.zeros(prompt, np.float32), other.weights[answer:]])[: self.context]
        return (Tokenized(ids, weights),)


def _begins(sequence: Tokenized) -> int:
    """Where the answer begins."""
    return int(np.argmax(sequence.weights != 0))


def _count(answers: Examples, options: Options) -> int:
    """How many are desirable. DataError if none is."""
    scores = [answers[i][0].facts["score"] for i in range(len(answers.lengths))]
    if not (found := sum(score > options.above for score in scores)):
        raise DataError(f"of {len(scores)} answers none is scored above {options.above}; what is good? --kto.above")
    return found


def _margin(means: dict[str, float]) -> dict[str, float]:
    both = "desirable" in means and "undesirable" in means
    return {"margin": means["desirable"] - means["undesirable"]} if both else {}
