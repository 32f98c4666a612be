"""Direct preference optimisation: learn from pairs of answers, one preferred, without a reward model (Rafailov et al. 2023,
arXiv:2305.18290). Of a prompt x, the chosen answer y+ and the rejected y-, with the model p and the reference r, which is
the model before the first step:

    h = [log p(y+|x) - log r(y+|x)] - [log p(y-|x) - log r(y-|x)]

    sigmoid   -(1 - e) log s(beta h) - e log s(-beta h)             s is the logistic function; e > 0: a share e of the labels
                                                                    is wrong (cDPO, Mitchell 2023)
    robust    the same minus e times its mirror image, over 1 - 2e: unbiased under such labels
              [-(1 - e) log s(beta h) + e log s(-beta h)] / (1 - 2e)        (Chowdhury et al. 2024, arXiv:2403.00409)
    hinge     max(0, 1 - beta h)                                    (SLiC-HF, Zhao et al. 2023, arXiv:2305.10425)
    ipo       (h - 1 / (2 beta))^2                                  (Azar et al. 2023, arXiv:2310.12036)
    simpo     -log s(beta h - gamma), h without r                   (Meng et al. 2024, arXiv:2405.14734)

ipo and simpo take each log-probability per token of its answer; of ipo the paper's authors say so (huggingface/trl#1265).
At the first step h = 0, and the loss is ln 2, 1 or 1 / (4 beta^2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from myna.records import DataError
from myna.train.method import Method, Outcome, Tensors
from myna.train.offline import offline
from myna.train.preference import answer_log_probs, preferred, sides
from myna.train.ranges import Amount, Half, Positive
from myna.train.reference import FACT, referenced
from myna.train.setup import Setup
from myna.train.trainee import Trainee

DEFAULTS = {"optim": {"lr": 5e-7, "weight_decay": 0.0, "schedule": "linear", "warmup": 0.1}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Keys of DPO.

    kind       sigmoid, robust, hinge, ipo or simpo
    beta       how dear it is to move away from the reference: 0.1 is usual, for simpo 2
    smoothing  of sigmoid and robust: the share of pairs whose labels are thought to be wrong, below 0.5
    gamma      of simpo: by how much the chosen answer is to win
    """

    kind: Literal["sigmoid", "robust", "hinge", "ipo", "simpo"] = "sigmoid"
    beta: Positive = 0.1
    smoothing: Half = 0.0
    gamma: Amount = 1.0


def prepare(setup: Setup) -> Method:
    options = check(setup.config.options)
    train, evals = setup.examples("preferences")
    if options.kind != "simpo":
        known = referenced(setup, train=train, eval=evals)
        train, evals = known["train"], known.get("eval")
    compute = partial(preference_loss, setup.trainee, options)
    return offline(setup.config, train, evals, compute, answer=setup.samples)


def check(options: Options) -> Options:
    """DataError for what has no loss."""
    if options.smoothing and options.kind not in ("sigmoid", "robust"):
        raise DataError(f"--dpo.smoothing is of sigmoid and robust; {options.kind} has none")
    return options


def preference_loss(trainee: Trainee, options: Options, batch: Tensors) -> Outcome:
    """Summed over pairs, in units of pairs."""
    found, tokens = answer_log_probs(trainee.decoder, batch)
    reference = batch.facts.get(FACT, found.new_zeros(()))
    moved = found - (0 if options.kind == "simpo" else reference)
    chosen, rejected = sides(moved / tokens if options.kind in PER_TOKEN else moved)
    h = chosen - rejected
    pairs = len(h)
    of_chosen, of_rejected = sides(found)
    stats = preferred(options.beta * h) | {
        "chosen": (of_chosen.sum(), pairs),
        "rejected": (of_rejected.sum(), pairs),
    }
    if options.kind != "simpo":
        # KL(reference || model) wherever the answers are the reference's own.
        stats["kl"] = (-moved.sum(), len(moved))
    return Outcome(LOSSES[options.kind](h, options).sum(), pairs, stats)


def _sigmoid(h: Tensor, options: Options) -> Tensor:
    won, lost = -F.logsigmoid(options.beta * h), -F.logsigmoid(-options.beta * h)
    return (1 - options.smoothing) * won + options.smoothing * lost


def _robust(h: Tensor, options: Options) -> Tensor:
    won, lost = -F.logsigmoid(options.beta * h), -F.logsigmoid(-options.beta * h)
    return ((1 - options.smoothing) * won - options.smoothing * lost) / (1 - 2 * options.smoothing)


def _hinge(h: Tensor, options: Options) -> Tensor:
    return F.relu(1 - options.beta * h)


def _ipo(h: Tensor, options: Options) -> Tensor:
    return (h - 1 / (2 * options.beta)) ** 2


def _simpo(h: Tensor, options: Options) -> Tensor:
    return -F.logsigmoid(options.beta * h - options.gamma)


LOSSES: dict[str, Callable[[Tensor, Options], Tensor]] = {
    "sigmoid": _sigmoid, "robust": _robust, "hinge": _hinge, "ipo": _ipo, "simpo": _simpo,
}  # fmt: skip
PER_TOKEN = ("ipo", "simpo")
