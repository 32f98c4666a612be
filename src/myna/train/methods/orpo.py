"""Odds ratio preference optimisation: fine-tune on the chosen answers and, in the same step, make them likelier than the
rejected, without a reference (Hong et al. 2024, arXiv:2403.07691). Of a prompt x, the chosen answer y+ and the rejected y-:

    -log P(y+|x) - lambda log s(log odds(y+|x) - log odds(y-|x)),   odds = P / (1 - P),  s the logistic function

where log P is the mean over an answer's tokens. So it starts from a base model: there need be no sft before it.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.train.method import Method, Outcome, Tensors
from myna.train.offline import offline
from myna.train.preference import answer_log_probs, preferred, sides
from myna.train.ranges import Amount
from myna.train.setup import Setup
from myna.train.trainee import Trainee

DEFAULTS = {"optim": {"lr": 8e-6, "weight_decay": 0.0, "schedule": "linear", "warmup": 0.1}}
SURE = -1e-6  # mean log-probability beyond which odds are as good as infinite


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Keys of ORPO.

    weight  lambda, how much the odds count beside the likelihood of the chosen answers
    """

    weight: Amount = 0.1


def prepare(setup: Setup) -> Method:
    train, evals = setup.examples("preferences")
    compute = partial(odds_loss, setup.trainee, setup.config.options)
    return offline(setup.config, train, evals, compute, answer=setup.samples)


def odds_loss(trainee: Trainee, options: Options, batch: Tensors) -> Outcome:
    """Summed over pairs, in units of pairs."""
    found, tokens = answer_log_probs(trainee.decoder, batch)
    chosen, rejected = sides(found / tokens)
    odds = log_odds(chosen) - log_odds(rejected)
    loss = -chosen - options.weight * F.logsigmoid(odds)
    pairs = len(odds)
    stats = preferred(odds) | {"chosen": (chosen.sum(), pairs), "rejected": (rejected.sum(), pairs)}
    return Outcome(loss.sum(), pairs, stats)


def log_odds(log_p: Tensor) -> Tensor:
    """log(p / (1 - p)) of log p < 0. Of 1 - p each of two ways is exact where the other is not (Mächler 2012)."""
    log_p = log_p.clamp(max=SURE)
    near, far = log_p.clamp(min=-math.log(2)), log_p.clamp(max=-math.log(2))
    rest = torch.where(log_p > -math.log(2), torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))
    return log_p - rest
