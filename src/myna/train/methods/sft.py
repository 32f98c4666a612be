"""Supervised fine-tuning on conversations: minimise -sum w_t log p(x_t | x_<t), w = 1 on what the assistant wrote and on the
token that ends its turn, 0 elsewhere (Ouyang et al. 2022).

Ids and weights come from the renderer that the server uses, so what is trained is what will be asked.
"""

from dataclasses import dataclass
from functools import partial

from myna.train.method import Method
from myna.train.next_token import next_token
from myna.train.offline import offline
from myna.train.setup import Setup

DEFAULTS = {"optim": {"lr": 2e-5, "weight_decay": 0.0, "schedule": "linear"}, "run": {"epochs": 2.0}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """No keys of its own."""


def prepare(setup: Setup) -> Method:
    train, evals = setup.examples("conversations")
    return offline(
        setup.config, train, evals, partial(next_token, setup.trainee, setup.token_bytes), answer=setup.samples
    )
