"""Group relative policy optimisation: learn from one's own answers by how a check scores them.

For each prompt G answers are drawn; an answer's advantage is its reward less its group's mean, by default divided by the
group's standard deviation (Shao et al. 2024, arXiv:2402.03300). With rho = pi(o_t) / pi_old(o_t) maximise

    min(rho A, clip(rho, 1 - epsilon, 1 + epsilon_high) A)  -  beta KL(pi || reference)

    objective   what is averaged
    grpo        tokens of an answer, then answers
    dapo        tokens of all answers (Yu et al. 2025, arXiv:2503.14476: raise epsilon_high to 0.28 with it)
    dr_grpo     tokens, divided by the most an answer may have; A is not divided (Liu et al. 2025, arXiv:2503.20783)
    gspo        answers; rho is the whole answer's, to the power 1 / its length (Zheng et al. 2025, arXiv:2507.18071)

KL is Schulman's k3 estimate, exp(r) - 1 - r with r = log reference - log pi. On policy, rho is 1 and the loss near 0 at every
step: watch the reward, not the loss. Answers come from our own engine on the weights in training; `sampler_gap` is how far
its log-probabilities are from the trainer's, a token: at a round's first step, before the weights move away from those that
drew its answers.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from myna.checks import named
from myna.data import IGNORED
from myna.records import DataError
from myna.train.loss import log_probs, sequence_sums
from myna.train.method import Method, Outcome, Tensors
from myna.train.online import SAMPLER_GAP, Online, Rollouts, shortfall
from myna.train.ranges import Amount, Count, Part, Positive
from myna.train.reference import Reference
from myna.train.setup import Setup
from myna.train.trainee import Trainee

DEFAULTS = {
    "optim": {"lr": 1e-5, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0},
    "run": {"steps": 100, "epochs": 0.0},
}
Objective = Literal["grpo", "dapo", "dr_grpo", "gspo"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Of answers and of what is learned from them.

    check         what scores an answer: exact, number or contains, against the row's target
    prompts       prompts a round of answers is drawn for
    group         answers drawn for each
    max_tokens    the longest answer; a longer one is cut, and scored as it stands
    temperature   of drawing; what is trained is the distribution at this temperature
    updates       steps that learn from one round
    objective     grpo, dapo, dr_grpo or gspo
    scale         divide advantages by the standard deviation of their group; dr_grpo does not
    epsilon       how far below 1 a ratio still counts
    epsilon_high  how far above
    beta          weight of the KL to the model at the start
    """

    check: str = "exact"
    prompts: Count = 16
    group: Count = 8
    max_tokens: Count = 64
    temperature: Positive = 1.0
    updates: Count = 1
    objective: Objective = "grpo"
    scale: bool = True
    epsilon: Part = 0.2
    epsilon_high: Positive = 0.2
    beta: Amount = 0.0


def prepare(setup: Setup) -> Method:
    options: Options = setup.config.options
    if options.group < 2:
        raise DataError(f"a group of {options.group}: an answer is compared with the others of its group; at least 2")
    reference = Reference(setup.trainee) if options.beta else None
    check = named(options.check)
    rollouts = Rollouts(setup, check, options.group, options.max_tokens, options.temperature, reference)
    scale = options.scale and options.objective != "dr_grpo"
    return Online(rollouts, options.prompts, options.updates, scale, Grpo(setup.trainee, options), shortfall)


@dataclass(frozen=True)
class Grpo:
    """The loss of a batch of answers, of which each sequence knows its `advantage`."""

    trainee: Trainee
    options: Options

    def __call__(self, batch: Tensors) -> Outcome:
        decoder, options = self.trainee.decoder, self.options
        hidden = decoder(batch.ids, batch.positions, batch.memory)
        now = log_probs(decoder, hidden, batch.targets, options.temperature)
        learned = (batch.targets != IGNORED).float()
        lengths = sequence_sums(learned, batch.docs, batch.sequences)
        old = batch.numbers.get("old", now.detach())
        advantage = _of_tokens(batch.facts["advantage"], batch.docs)
        log_ratio = self._log_ratio((now - old) * learned, lengths, batch)
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - options.epsilon, 1 + options.epsilon_high)
        gain = torch.minimum(ratio * advantage, clipped * advantage)
        stats = self._stats(hidden, now, ratio, learned, advantage, batch)
        if options.beta:
            r = batch.numbers["reference"] - now
            kl = r.exp() - 1 - r
            gain = gain - options.beta * kl
            stats["kl"] = (kl.detach() * learned).sum(), float(learned.sum())
        weights, units = self._average(learned, lengths, batch)
        return Outcome(-(gain * weights).sum(), units, stats)

    def _log_ratio(self, difference: Tensor, lengths: Tensor, batch: Tensors) -> Tensor:
        if self.options.objective != "gspo":
            return difference
        means = sequence_sums(difference, batch.docs, batch.sequences) / lengths.clamp_min(1)
        # Each token carries its answer's ratio; the gradient through it is the answer's, by 1 / length a token.
        return _of_tokens(means, batch.docs)

    def _average(self, learned: Tensor, lengths: Tensor, batch: Tensors) -> tuple[Tensor, float]:
        """A weight for each token's gain, and what their sum is divided by."""
        match self.options.objective:
            case "dapo":
                return learned, float(learned.sum())
            case "dr_grpo":
                return learned, float(batch.sequences * self.options.max_tokens)
            case _:
                return learned / _of_tokens(lengths, batch.docs).clamp_min(1), float(batch.sequences)

    @torch.no_grad()
    def _stats(
        self, hidden: Tensor, now: Tensor, ratio: Tensor, learned: Tensor, advantage: Tensor, batch: Tensors
    ) -> dict[str, tuple[Tensor | float, float]]:
        tokens, answers = float(learned.sum()), float(batch.sequences)
        plain = now if self.options.temperature == 1 else log_probs(self.trainee.decoder, hidden, batch.targets)
        apart = ((plain - batch.numbers["sampled"]).abs() * learned).sum()
        outside = ((ratio < 1 - self.options.epsilon) & (advantage < 0)) | (
            (ratio > 1 + self.options.epsilon_high) & (advantage > 0)
        )
        return {
            "reward": (batch.facts["reward"].sum(), answers),
            "spread": ((batch.facts["advantage"] != 0).sum(), answers),
            "length": (learned.sum(), answers),
            "entropy": (-(now * learned).sum(), tokens),
            "clipped": ((outside * learned).sum(), tokens),
            SAMPLER_GAP: (apart, tokens),
        }


def _of_tokens(values: Tensor, docs: Tensor) -> Tensor:
    """Numbers of sequences [n] as numbers of their tokens [B, T]; 0 where there is no sequence."""
    return torch.where(docs >= 0, values[docs.clamp_min(0)], 0.0)
