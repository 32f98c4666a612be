"""What an approximation costs: the served path's logits over a given text, beside exact ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

from myna.engine.blocks import blocks_for
from myna.engine.request import Plan, Request, Slice
from myna.engine.request import Sequence as Running
from myna.engine.runner import PagedRunner
from myna.model import Causal, Decoder
from myna.records import Sampling

ROWS = 64  # compared at once: a few copies of 64 x 150,000 numbers, not of a whole text


@dataclass(frozen=True, slots=True)
class Loss:
    """A number for each position of a text of T tokens.

    kl            [T]      Kullback-Leibler divergence of the approximation from the exact next-token distribution, nats
    agrees        [T]      bool: both have the same first choice
    nll, exact    [T - 1]  minus the log-probability that each gives the token that comes; exp of the mean is perplexity
    """

    kl: Tensor
    agrees: Tensor
    nll: Tensor
    exact: Tensor


def compare(ids: Sequence[int], exact: Tensor, logits: Tensor) -> Loss:
    """exact: log-probabilities [T, V]; logits [T, V] of the approximation. What is not a number stays one."""
    return joined(
        [_compare(ids[i : i + ROWS + 1], exact[i : i + ROWS], logits[i : i + ROWS]) for i in range(0, len(ids), ROWS)]
    )


def _compare(ids: Sequence[int], exact: Tensor, logits: Tensor) -> Loss:
    close = logits.log_softmax(-1)
    following = torch.tensor(ids[1:])[:, None]
    return Loss(
        kl=(exact.exp() * (exact - close)).sum(-1),
        agrees=exact.argmax(-1) == close.argmax(-1),
        nll=-close[: len(following)].gather(1, following)[:, 0],
        exact=-exact[: len(following)].gather(1, following)[:, 0],
    )


def joined(losses: Sequence[Loss]) -> Loss:
    return Loss(*(torch.cat([getattr(loss, f.name) for loss in losses]) for f in fields(Loss)))


@torch.inference_mode()
def exact_logits(model: Decoder, ids: Sequence[int]) -> Tensor:
    """[T, V] of one plain forward pass: no pages, no steps."""
    return model.logits(model(torch.tensor([ids]), torch.arange(len(ids))[None], Causal())[0])


def served_logits(runner: PagedRunner, ids: Sequence[int], *, chunk: int = 128, decoded: int = 32) -> Iterator[Tensor]:
    """Logits [n, V] of all positions in order, as an engine computes them: the prompt in chunks, its last `decoded` tokens
    one a step. A chunk asks for the logits of all its rows the way a guess is verified. Good until the next is asked for.
    """
    table = list(range(blocks_for(len(ids))))
    assert len(table) <= runner.pages.keys.shape[1], "more tokens than the pages hold"
    prompt = max(len(ids) - decoded, 0)
    cuts = [*range(0, prompt, chunk), *range(prompt, len(ids) + 1)]
    for start, stop in pairwise(cuts):
        running = Running(Request(0, tuple(ids), Sampling()), 0, [*ids[: start + 1]], blocks=table)
        yield runner.run(Plan((Slice(running, start, stop, draft=tuple(ids[start + 1 : stop])),)))
