"""Choosing the next token. The order is Sampling's: bias, penalties, temperature, top_k, top_p, min_p, then one draw.

The noise of a draw depends on (seed, candidate, position) alone, so batch-mates, arrival order and preemption cannot
change a seeded answer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from myna.engine.request import Sequence
from myna.records import Sampling

MASK64 = 2**64 - 1
COLDEST = 1e-30  # greedy long before; a smaller divisor overflows to infinity, and inf - inf is NaN
HEAD = 512  # top_p looks at this many tokens first: sorting a 150k vocabulary takes 10 ms, and p rarely reaches further


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token. With logprobs asked for: its log-probability and (id, log-probability) of the likeliest tokens."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class BrokenLogits(Exception):
    """The model gave NaN or no finite logit for this sequence. It ends; its batch-mates do not notice."""


def choose(logits: Tensor, sequences: list[Sequence]) -> list[Choice | BrokenLogits]:
    """One choice per row of logits [R, V] float32, row i being the next token of sequences[i]."""
    # max is NaN if anything in the row is, +inf if anything is, -inf if nothing is possible.
    sound = torch.isfinite(logits.amax(dim=-1)).tolist()
    greedy = logits.argmax(dim=-1).tolist()  # ties go to the lowest id
    choices: list[Choice | BrokenLogits] = []
    for row, sequence, token, ok in zip(logits, sequences, greedy, sound, strict=True):
        if not ok:
            choices.append(BrokenLogits("the model's output is not a number"))
            continue
        sampling = sequence.request.sampling
        if sampling.temperature != 0 or _edits_logits(sampling):
            token = draw(row, sequence)
        choices.append(_with_logprobs(row, token, sampling.logprobs))
    return choices


def draw(logits: Tensor, sequence: Sequence) -> int:
    """Sample one token from logits [V]."""
    sampling = sequence.request.sampling
    logits = edit_logits(logits, sequence) if _edits_logits(sampling) else logits
    if sampling.temperature == 0:
        return int(logits.argmax())
    ids, probabilities = distribution(logits, sampling)
    u = uniform(derive_seed(sampling.seed or 0, sequence.candidate), len(sequence.tokens))
    reached = probabilities.cumsum(0)
    index = int(torch.searchsorted(reached, u * reached[-1], right=True))
    return int(ids[min(index, len(ids) - 1)])


def edit_logits(logits: Tensor, sequence: Sequence) -> Tensor:
    """logit_bias, then the repetition, presence and frequency penalties, on a copy of logits [V]."""
    sampling, prompt = sequence.request.sampling, len(sequence.request.ids)
    logits = logits.clone()
    if sampling.logit_bias:
        tokens, biases = zip(*sampling.logit_bias, strict=True)
        logits.index_add_(0, torch.tensor(tokens), torch.tensor(biases, dtype=logits.dtype))
    if (penalty := sampling.repetition_penalty or 1) != 1:
        seen = torch.tensor(sequence.tokens).unique()
        value = logits[seen]
        logits[seen] = torch.where(value > 0, value / penalty, value * penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and sequence.generated:
        said, counts = torch.tensor(sequence.tokens[prompt:]).unique(return_counts=True)
        logits[said] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return logits


def distribution(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn from logits [V] and their (unnormalised, float64) probabilities, in order of id.

    In order of id and not of probability, so that a rounding difference between near-equal tokens cannot swap them.
    """
    assert sampling.temperature, "greedy draws nothing"
    logits = logits / max(sampling.temperature, COLDEST)
    values, ids = logits, None
    if sampling.top_k and sampling.top_k < len(logits):
        values, ids = logits.topk(sampling.top_k)
    if sampling.top_p is not None and sampling.top_p < 1:
        values, ids = _nucleus(values, ids, sampling.top_p)
    weights = (values.double() - values.max().double()).exp()
    if sampling.min_p:
        weights = torch.where(weights >= sampling.min_p, weights, 0)
    if ids is None:
        return torch.arange(len(weights)), weights
    order = ids.argsort()
    return ids[order], weights[order]


def _nucleus(values: Tensor, ids: Tensor | None, p: float) -> tuple[Tensor, Tensor]:
    """The fewest likeliest of `values` whose probability reaches p, with their ids; at least one."""
    total = values.logsumexp(0)
    if ids is None:
        head, ids = values.topk(min(HEAD, len(values)))
        if (head - total).exp().sum() < p:
            head, ids = values.sort(descending=True, stable=True)
        values = head
    before = (values - total).exp().cumsum(0) - (values - total).exp()
    keep = max(int((before < p).sum()), 1)
    return values[:keep], ids[:keep]


def _edits_logits(s: Sampling) -> bool:
    return bool(s.logit_bias or s.repetition_penalty != 1 or s.presence_penalty or s.frequency_penalty)


def _with_logprobs(logits: Tensor, token: int, k: int | None) -> Choice:
    """The model's own log-probabilities, before bias, penalties and temperature: what a trainer would compute."""
    if k is None:
        return Choice(token)
    total = logits.logsumexp(0)
    values, ids = logits.topk(min(k, len(logits)))
    top = tuple(zip(ids.tolist(), (values - total).tolist(), strict=True))
    return Choice(token, float(logits[token] - total), top)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments (splitmix64, Steele et al. 2014, run twice)."""
    return (_mix(_mix(seed & MASK64) + position) >> 11) / 2**53


def derive_seed(seed: int, candidate: int) -> int:
    """The seed of a request's candidate: candidate k of seed s is candidate 0 of derive_seed(s, k)."""
    return seed if candidate == 0 else _mix(_mix(seed & MASK64) ^ candidate)


def _mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)
