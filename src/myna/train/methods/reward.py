"""A reward model: a decoder whose head says how good an answer is, learned from pairs of which one is preferred. Of a prompt x,
the chosen answer y+ and the rejected y-, with the reward r, read at the last token, and the logistic function s:

    -log s(r(x, y+) - r(x, y-)) + center (r(x, y+) + r(x, y-))^2

The first term is the likelihood of the preferences (Bradley and Terry 1952; Ouyang et al. 2022, arXiv:2203.02155). It knows
differences alone; the second, if asked for, puts the mean at 0 (Eisenstein et al. 2023, arXiv:2312.09244).
"""

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from torch import nn

from myna.train.heads import give_head, outputs
from myna.train.method import Method, Outcome, Tensors
from myna.train.offline import offline
from myna.train.preference import preferred, sides
from myna.train.ranges import Amount
from myna.train.setup import Setup

DEFAULTS = {"optim": {"lr": 1e-5, "weight_decay": 0.0, "schedule": "linear", "warmup": 0.05}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Keys of reward models.

    center  how much a mean reward other than 0 costs: 0.01 is usual, 0 lets it be
    """

    center: Amount = 0.0


def prepare(setup: Setup) -> Method:
    train, evals = setup.examples("preferences")
    give_head(setup, ())
    return offline(setup.config, train, evals, partial(reward_loss, setup.trainee.module, setup.config.options))


def reward_loss(module: nn.Module, options: Options, batch: Tensors) -> Outcome:
    """Summed over pairs, in units of pairs."""
    chosen, rejected = sides(outputs(module, batch)[:, 0])
    margin, pairs = chosen - rejected, len(chosen)
    losses = -F.logsigmoid(margin) + options.center * (chosen + rejected) ** 2
    stats = preferred(margin) | {"chosen": (chosen.sum(), pairs), "rejected": (rejected.sum(), pairs)}
    return Outcome(losses.sum(), pairs, stats)
