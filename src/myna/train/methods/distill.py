"""Distillation: a student learns the whole distribution of a teacher, not only the token that came (Hinton et al. 2015,
arXiv:1503.02531). With student s and teacher t at temperature T, minimise over the learned places

    alpha T^2 D(t, s)  -  (1 - alpha) log s(x_t | x_<t)

T^2 keeps the size of D's gradient whatever T is. D is the generalised Jensen-Shannon divergence (Agarwal et al. 2024, GKD,
arXiv:2306.13649), with m = beta t + (1 - beta) s:

    beta 0      KL(t || s): the student covers all the teacher does
    beta 1      KL(s || t): the student keeps to what the teacher finds likely
    between     beta KL(t || m) + (1 - beta) KL(s || m)

With top_k the teacher is asked once, before the first step, and what it said is kept in the run directory: no second model is
in memory then. With on_policy the student answers the data's prompts itself, in each step anew, and the teacher judges every
token of those answers: what it learns is what it will do (GKD).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.checks import Verdict
from myna.data import IGNORED
from myna.records import Candidate, Conversation, DataError
from myna.train.loss import bits_per_byte, counted, summed
from myna.train.method import Method, Outcome, Tensors
from myna.train.next_token import bits, next_token
from myna.train.offline import offline
from myna.train.online import Online, Rollouts
from myna.train.ranges import Count, Positive, Share, Whole
from myna.train.setup import Setup
from myna.train.teacher import IDS, SHARES, Teacher, find_teacher, shares, taught
from myna.train.trainee import Trainee

DEFAULTS: dict[str, dict[str, Any]] = {"optim": {"lr": 3e-4}}
Shares = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Of teacher and student.

    teacher      a model directory or a pulled model with the student's tokenizer
    alpha        how much the teacher counts beside the token that came; 0 is plain training
    beta         0 KL(teacher || student), 1 KL(student || teacher), between them their mixture
    temperature  above 1 the teacher's small probabilities count more
    top_k        tokens kept of each of the teacher's distributions, on disk; 0 keeps the teacher in memory and compares all
    on_policy    learn from the student's own answers to the data's prompts; needs alpha 1 and top_k 0
    prompts      of on_policy: prompts a step
    max_tokens   of on_policy: the longest answer
    """

    teacher: str = ""
    alpha: Share = 1.0
    beta: Share = 0.0
    temperature: Positive = 1.0
    top_k: Whole = 64
    on_policy: bool = False
    prompts: Count = 16
    max_tokens: Count = 64


def prepare(setup: Setup) -> Method:
    options = check(setup.config.options)
    teacher = find_teacher(setup, options.teacher)
    if options.on_policy:
        return on_policy(setup, teacher, options)
    train, evals = setup.examples(setup.kind())
    setup.known["files"] |= teacher.files
    if options.alpha and options.top_k:
        parts = {"train": train} | ({"eval": evals} if evals is not None else {})
        known = taught(setup, teacher, options.top_k, options.temperature, parts)
        train, evals = known["train"], known.get("eval")
    loss = Distill(setup.trainee, teacher, options, setup.token_bytes)
    return offline(setup.config, train, evals, loss, figures(options), setup.samples)


def check(options: Options) -> Options:
    """DataError for what cannot be."""
    if options.on_policy and options.alpha != 1:
        raise DataError(
            "--distill.on_policy learns from the student's own answers, which are no labels: give --distill.alpha 1"
        )
    if options.on_policy and options.top_k:
        raise DataError("--distill.on_policy asks the teacher of answers nobody knows yet: give --distill.top_k 0")
    return options


@dataclass(frozen=True)
class Distill:
    """The loss, in units of weight; `cross_entropy` and `divergence` are its two sides."""

    trainee: Trainee
    teacher: Teacher
    options: Options
    token_bytes: Tensor

    def __call__(self, batch: Tensors) -> Outcome:
        decoder, options = self.trainee.decoder, self.options
        if not options.alpha:
            return next_token(self.trainee, self.token_bytes, batch)
        hidden = decoder(batch.ids, batch.positions, batch.memory)
        seen = torch.zeros(2, device=hidden.device)

        def some(h: Tensor, wanted: Tensor, weights: Tensor, *said: Tensor) -> Tensor:
            logits = decoder.logits(h)
            apart = divergence(*self._sides(logits, *said), options.beta) * options.temperature**2
            missed = F.cross_entropy(logits if options.alpha < 1 else logits.detach(), wanted, reduction="none")
            sums = torch.stack([(apart * weights).sum(), (missed * weights).sum()])
            seen.add_(sums.detach())
            return options.alpha * sums[0] + (1 - options.alpha) * sums[1]

        rows = counted(batch.targets, hidden, batch.targets, batch.weights, *self._said(batch))
        loss = summed(decoder, some, *rows)
        stats: dict[str, tuple[Tensor | float, float]] = {
            "divergence": (seen[0], batch.units),
            "cross_entropy": (seen[1], batch.units),
        }
        if not torch.is_grad_enabled():
            wanted = batch.targets[batch.targets != IGNORED]
            stats["bytes_per_token"] = (self.token_bytes[wanted].sum(), batch.units)
        return Outcome(loss, batch.units, stats)

    @torch.no_grad()
    def _said(self, batch: Tensors) -> tuple[Tensor, ...]:
        """What the teacher says of each place, kept or computed now."""
        if IDS in batch.numbers:
            return batch.numbers[IDS].long(), batch.numbers[SHARES]
        return (self.teacher.decoder(batch.ids, batch.positions, batch.memory),)

    def _sides(self, logits: Tensor, *said: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [n, ...] by teacher and student, of the same things."""
        mine = logits[:, : self.teacher.vocab] / self.options.temperature
        if len(said) == 2:
            ids, theirs = said
            return theirs, shares(mine, ids)
        with torch.no_grad():
            theirs = self.teacher.decoder.logits(said[0])[:, : self.teacher.vocab] / self.options.temperature
        return theirs.float().log_softmax(-1), mine.float().log_softmax(-1)


def divergence(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """D of log-probabilities [n, m], [n]. Never negative, and 0 where they are alike."""

    def kl(one: Tensor, other: Tensor) -> Tensor:
        return (one.exp() * (one - other)).sum(-1)

    if beta == 0:
        return kl(teacher, student)
    if beta == 1:
        return kl(student, teacher)
    weights = torch.tensor([beta, 1 - beta], device=teacher.device).log()
    middle = torch.logaddexp(teacher + weights[0], student + weights[1])
    return beta * kl(teacher, middle) + (1 - beta) * kl(student, middle)


def figures(options: Options) -> Callable[[dict[str, float]], dict[str, float]]:
    """Bits per byte, of the plain cross-entropy whatever the loss is."""
    if not options.alpha:
        return bits
    return lambda means: {"bits_per_byte": bits_per_byte(means["cross_entropy"], means["bytes_per_token"])}


def on_policy(setup: Setup, teacher: Teacher, options: Options) -> Method:
    """The teacher judges the student's own answers. While evaluating too, those to the evaluation prompts."""
    loss = Distill(setup.trainee, teacher, options, setup.token_bytes)
    rollouts = Rollouts(setup, _unjudged, 1, options.max_tokens, 1.0)
    setup.known["files"] |= teacher.files
    return Online(rollouts, options.prompts, 1, False, loss, loss)


def _unjudged(conversation: Conversation, candidate: Candidate) -> Verdict:
    return Verdict.of(True)
