"""Next-token prediction over plain text: minimise -sum log p(x_t | x_<t) (Shannon 1951; as transformers, Radford et al. 2018).

Texts are packed into rows and see only themselves. From raw text to a base model; with `--model.start`, continued
pretraining, to which general data can be added by weight: `--data.train new/ general/:0.3`.
"""

from dataclasses import dataclass
from functools import partial

from myna.train.method import Method
from myna.train.next_token import bits, next_token
from myna.train.offline import offline
from myna.train.setup import Setup

DEFAULTS = {"optim": {"lr": 3e-3}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """No keys of its own."""


def prepare(setup: Setup) -> Method:
    train, evals = setup.examples("documents")
    return offline(
        setup.config, train, evals, partial(next_token, setup.trainee, setup.token_bytes), bits, setup.samples
    )
