"""Choosing the next token. The order is Sampling's: form, bias, penalties, temperature, top_k, top_p, min_p, then one draw.

The noise of a draw depends on (seed, candidate, position) alone, so batch-mates, arrival order and preemption cannot
change a seeded answer.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping
from ctypes import c_float, c_int32
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from myna.engine.constraint import Mask
from myna.engine.request import Request, Sequence, Slice
from myna.kernels import library
from myna.kernels.draw import Draw, choose_rows
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


NO_MASKS: Mapping[Sequence, Mask] = MappingProxyType({})
# (logits, slices, masks) -> what is chosen in a row of the logits, None where it is broken
Rows = Callable[[Tensor, list[Slice], Mapping[Sequence, Mask]], Callable[[int], Choice | None]]


class BrokenLogits(Exception):
    """The model gave NaN or no finite logit for this sequence. It ends; its batch-mates do not notice."""


def choose_by_torch(
    logits: Tensor, slices: Iterable[Slice], masks: Mapping[Sequence, Mask] = NO_MASKS
) -> list[list[Choice] | BrokenLogits]:
    """As `choose`, with no native code: the truth that it is compared with."""
    return _choose(logits, [*slices], masks, _by_torch)


def choose(
    logits: Tensor, slices: Iterable[Slice], masks: Mapping[Sequence, Mask] = NO_MASKS
) -> list[list[Choice] | BrokenLogits]:
    """The next tokens of each slice, from logits [sum of answers, V] float32: one, and one more for each right guess.

    masks   the tokens that may follow, for sequences that have a form. They may have fewer rows than the slice has answers:
            the guesses beyond are wrong.
    """
    return _choose(logits, [*slices], masks, _by_torch if library() is None else _natively)


def _choose(
    logits: Tensor, slices: list[Slice], masks: Mapping[Sequence, Mask], by: Rows
) -> list[list[Choice] | BrokenLogits]:
    at = by(logits, slices, masks)
    answers: list[list[Choice] | BrokenLogits] = []
    first = 0
    for piece in slices:
        answers.append(_follow(piece, first, at))
        first += piece.answers
    return answers


def _follow(piece: Slice, first: int, at: Callable[[int], Choice | None]) -> list[Choice] | BrokenLogits:
    """The choices of row after row for as long as the guesses are right. `at` gives a row's, None where it is broken."""
    choices: list[Choice] = []
    for row, guess in enumerate([*piece.draft, None], first):
        if (choice := at(row)) is None:
            return BrokenLogits("the model's output is not a number")
        choices.append(choice)
        if choice.id != guess:
            break
    return choices


def _natively(
    logits: Tensor, slices: list[Slice], masks: Mapping[Sequence, Mask] = NO_MASKS
) -> Callable[[int], Choice | None]:
    """All rows in one call: a row counts only if the guesses before it are right, so what came before it is known."""
    draws = (Draw * len(logits))()
    rows = iter(draws)
    kept = []
    for piece in slices:
        mine = [next(rows) for _ in range(piece.answers)]
        kept.append(_describe(piece, mine))
        if (mask := masks.get(piece.sequence)) is not None:
            _describe_mask(mask, mine, logits.shape[1])
    choose_rows(logits, draws)
    choices = [_read(draw) for draw in draws]
    del kept  # only now: the draws point at it
    return choices.__getitem__


def _describe(piece: Slice, draws: list[Draw]) -> list[array]:
    """Write down how to choose from a slice's rows; returns what they point at."""
    sequence, s = piece.sequence, piece.sequence.request.sampling
    length = len(sequence.tokens)
    kept: list[array] = []
    seed = derive_seed(s.seed or 0, sequence.candidate) if s.temperature else 0
    for ahead, draw in enumerate(draws):
        draw.repetition = 1
        if s.temperature:
            draw.temperature, draw.top_k, draw.top_p, draw.min_p = s.temperature, s.top_k, s.top_p, s.min_p
            draw.uniform = uniform(seed, length + ahead)
        if s.logprobs is not None:
            kept += [array("i", [0] * s.logprobs), array("f", [0] * s.logprobs)]
            draw.top_ids, draw.top_logprobs = (numbers.buffer_info()[0] for numbers in kept[-2:])
            draw.wants_logprob, draw.tops = True, s.logprobs
    return kept + (_describe_edits(piece, s, draws) if _edits_logits(s) else [])


def _describe_mask(mask: Mask, draws: list[Draw], vocab: int) -> None:
    assert mask.dtype == "uint32"
    assert mask.flags.c_contiguous
    assert 32 * mask.shape[1] >= vocab
    for draw, row in zip(draws, mask, strict=False):
        draw.mask = row.ctypes.data


def _describe_edits(piece: Slice, s: Sampling, draws: list[Draw]) -> list[array]:
    """The penalties and biases of a slice's rows; returns what they point at."""
    biases = s.logit_bias or ()
    tokens = array("i", [*piece.sequence.tokens, *piece.draft])
    kept: list[array] = [tokens, array("i", [id for id, _ in biases]), array("f", [bias for _, bias in biases])]
    addresses = [numbers.buffer_info()[0] for numbers in kept]
    prompt, first = len(piece.sequence.request.ids), len(piece.sequence.tokens)
    for count, draw in enumerate(draws, first):
        draw.tokens, draw.bias_ids, draw.biases = addresses
        draw.count, draw.prompt, draw.biased = count, prompt, len(biases)
        draw.repetition, draw.presence, draw.frequency = s.repetition_penalty, s.presence_penalty, s.frequency_penalty
    return kept


def _read(draw: Draw) -> Choice | None:
    if draw.token < 0:
        return None
    if not draw.wants_logprob:
        return Choice(draw.token)
    ids = (c_int32 * draw.found).from_address(draw.top_ids) if draw.found else ()
    logprobs = (c_float * draw.found).from_address(draw.top_logprobs) if draw.found else ()
    return Choice(draw.token, draw.logprob, tuple(zip(ids, logprobs, strict=True)))


def _by_torch(
    logits: Tensor, slices: list[Slice], masks: Mapping[Sequence, Mask] = NO_MASKS
) -> Callable[[int], Choice | None]:
    """What _natively does, where there is no native library; a row is drawn when it is asked for."""
    # max is NaN if anything in the row is, +inf if anything is, -inf if nothing is possible.
    sound = torch.isfinite(logits.amax(dim=-1)).tolist()
    greedy = logits.argmax(dim=-1).tolist()  # ties go to the lowest id
    rows = [(piece.sequence, piece.draft[:ahead]) for piece in slices for ahead in range(piece.answers)]

    def at(row: int) -> Choice | None:
        sequence, guessed = rows[row]
        sampling = sequence.request.sampling
        if not sound[row]:
            return None
        mask, ahead, possible = masks.get(sequence), len(guessed), logits[row]
        if masked := mask is not None and ahead < len(mask):
            possible = allow(possible, mask[ahead])
            if possible.max() == -torch.inf:
                return None
        plain = sampling.temperature == 0 and not _edits_logits(sampling) and not masked
        token = greedy[row] if plain else draw(possible, sequence, [*sequence.tokens, *guessed])
        return _with_logprobs(logits[row], token, sampling.logprobs)

    return at


def draw(logits: Tensor, sequence: Sequence, tokens: list[int]) -> int:
    """Sample the token that follows `tokens` from logits [V]."""
    sampling = sequence.request.sampling
    logits = edit_logits(logits, sequence.request, tokens) if _edits_logits(sampling) else logits
    if sampling.temperature == 0:
        return int(logits.argmax())
    ids, probabilities = distribution(logits, sampling)
    u = uniform(derive_seed(sampling.seed or 0, sequence.candidate), len(tokens))
    reached = probabilities.cumsum(0)
    index = int(torch.searchsorted(reached, u * reached[-1], right=True))
    # Rounding may take the noise to the very end, where a token may be that is impossible.
    return int(ids[index if index < len(ids) else probabilities.nonzero()[-1]])


def allow(logits: Tensor, mask: Mask) -> Tensor:
    """Logits [V] with -inf for every token whose bit is not set in uint32 [words]."""
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(logits)]
    return torch.where(torch.from_numpy(bits).bool(), logits, -torch.inf)


def edit_logits(logits: Tensor, request: Request, tokens: list[int]) -> Tensor:
    """logit_bias, then the repetition, presence and frequency penalties, on a copy of logits [V]. `tokens` is the prompt
    and the answer so far."""
    sampling, prompt = request.sampling, len(request.ids)
    logits = logits.clone()
    if sampling.logit_bias:
        ids, biases = zip(*sampling.logit_bias, strict=True)
        logits.index_add_(0, torch.tensor(ids), torch.tensor(biases, dtype=logits.dtype))
    if (penalty := sampling.repetition_penalty or 1) != 1:
        seen = torch.tensor(tokens).unique()
        value = logits[seen]
        logits[seen] = torch.where(value > 0, value / penalty, value * penalty)
    if (sampling.presence_penalty or sampling.frequency_penalty) and len(tokens) > prompt:
        said, counts = torch.tensor(tokens[prompt:]).unique(return_counts=True)
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
