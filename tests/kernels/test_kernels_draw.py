"""The tokens that are drawn natively are those that torch draws, at every level: same distribution, same noise."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from kernel_cases import LEVELS, native, needs_compiler

from myna.engine.request import Request, Sequence, Slice
from myna.engine.sample import BrokenLogits, Choice, _by_torch, choose, choose_by_torch
from myna.records import DEFAULTS, Sampling

pytestmark = [needs_compiler, pytest.mark.parametrize("level", LEVELS)]

SAMPLINGS = [
    Sampling(temperature=0.0),
    Sampling(temperature=0.0, repetition_penalty=3.0, frequency_penalty=0.5),
    Sampling(temperature=1.0),
    Sampling(temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.1),
    Sampling(temperature=1.5, top_k=7, min_p=0.2),
    Sampling(temperature=1.0, top_p=0.9),
    Sampling(temperature=2.0, top_p=0.9999),
    Sampling(temperature=1.0, top_p=0.0),
    Sampling(temperature=1.3, min_p=0.01),
    Sampling(temperature=1.0, top_k=3, presence_penalty=1.5, frequency_penalty=-0.25),
    Sampling(temperature=0.9, logit_bias=((0, 3.0), (0, 1.0)), repetition_penalty=0.6),
]


def slice_of(sampling: Sampling, vocab: int, seed: int, draft: tuple[int, ...] = ()) -> Slice:
    """The last token of a prompt of 40 and an answer of 20, in which tokens recur, and guesses."""
    some = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, min(vocab, 30), (60,), generator=some).tolist()
    request = Request(0, tuple(tokens[:40]), replace(sampling, seed=seed).resolve(DEFAULTS))
    return Slice(Sequence(request, seed % 3, tokens), 59, 60 + len(draft), draft)


@pytest.mark.parametrize("spread", [0.0003, 3.0, 30.0])
@pytest.mark.parametrize("vocab", [1, 15, 16, 65, 1025, 5000])
def test_the_token_is_the_one_that_torch_draws(level: str, vocab: int, spread: float) -> None:
    logits = torch.randn(40, vocab, generator=torch.Generator().manual_seed(vocab)) * spread
    for sampling in SAMPLINGS:
        slices = [slice_of(sampling, vocab, seed) for seed in range(len(logits))]
        before = logits.clone()
        with native(level):
            chosen = choose(logits, slices)
        assert torch.equal(logits, before), "penalties are taken back"
        at = _by_torch(logits, slices)
        assert chosen == [[at(row)] for row in range(len(slices))], sampling


def test_of_equals_the_lowest_ids_win(level: str) -> None:
    logits = torch.randint(0, 4, (30, 3000), generator=torch.Generator().manual_seed(2)).float()
    logits[0, [2999, 100]] = 9.0
    with native(level):
        greedy = choose(logits, [slice_of(Sampling(temperature=0.0), 3000, seed) for seed in range(30)])
        some = choose(logits, [slice_of(Sampling(temperature=1.0, top_k=6), 3000, seed) for seed in range(30)])
    order = logits.sort(descending=True, stable=True).indices[:, :6].tolist()
    assert greedy == [[Choice(row[0])] for row in order]
    assert all(choice.id in row for (choice,), row in zip(some, order, strict=True))


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_a_broken_row_is_named_and_stays_alone(level: str, sampling: Sampling) -> None:
    """Also where the bad number is in the tail that no whole vector covers; -inf forbids a token and is no damage."""
    logits = torch.randn(8, 1003, generator=torch.Generator().manual_seed(1))
    slices = [slice_of(sampling, 1003, seed) for seed in range(8)]
    with native(level):
        whole = choose(logits, slices)
        logits[1, 1002], logits[2, 5], logits[3, 1001], logits[4] = torch.nan, torch.nan, torch.inf, -torch.inf
        logits[5, ::2] = -torch.inf
        found = choose(logits, slices)
    assert [isinstance(row, BrokenLogits) for row in found] == [False, True, True, True, True, False, False, False]
    assert [found[row] for row in (0, 6, 7)] == [whole[row] for row in (0, 6, 7)]
    assert isinstance(found[5], list)
    assert found[5][0].id % 2 == 1


@pytest.mark.parametrize("sampling", SAMPLINGS[3:6], ids=str)
def test_a_row_is_chosen_the_same_alone_unaligned_and_on_any_number_of_threads(level: str, sampling: Sampling) -> None:
    loose = torch.empty(9 * 4099 + 1)[1:].view(9, 4099).copy_(torch.randn(9, 4099))
    slices = [slice_of(replace(sampling, logprobs=3), 4099, seed) for seed in range(9)]
    with native(level, threads=1):
        alone = [choose(loose[row : row + 1].clone(), [piece])[0] for row, piece in enumerate(slices)]
    for threads in (1, 2, 5):
        with native(level, threads=threads):
            assert choose(loose, slices) == alone


def test_logprobs_are_float64s_and_the_models_own(level: str) -> None:
    logits = torch.randn(4, 3001, generator=torch.Generator().manual_seed(5)) * 4
    logits[2, 7:] = -torch.inf
    sampling = Sampling(temperature=1.5, repetition_penalty=2.0, logit_bias=((3, 4.0),), logprobs=20)
    with native(level):
        chosen = choose(logits, [slice_of(sampling, 3001, seed) for seed in range(4)])
    exact = logits.double().log_softmax(-1)
    for row, (choice,) in enumerate(chosen):
        assert choice.logprob == pytest.approx(float(exact[row, choice.id]), abs=1e-5)
        values, ids = exact[row].topk(7 if row == 2 else 20)  # what cannot be is no alternative
        assert [id for id, _ in choice.top] == ids.tolist()
        assert [logprob for _, logprob in choice.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_rows_beyond_a_wrong_guess_do_not_count(level: str) -> None:
    """Each row's penalties see the guesses before it, as they would had they been sampled: all rows like the same tokens."""
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(800, generator=random) + 0.01 * torch.randn(5, 800, generator=random)
    sampling = Sampling(temperature=0.0, repetition_penalty=5.0, frequency_penalty=2.0)
    sequence, tokens = slice_of(sampling, 800, 0).sequence, []
    with native(level):
        for at, row in enumerate(logits, 59):
            (choice,) = choose(row[None], [Slice(sequence, at, at + 1)])[0]
            tokens.append(choice.id)
            sequence.tokens.append(choice.id)
        assert len(set(tokens)) == 5
        assert choose(logits, [slice_of(sampling, 800, 0, (*tokens[:4],))]) == [[Choice(token) for token in tokens]]
        wrong = (*tokens[:2], (tokens[2] + 1) % 800, tokens[3])
        assert choose(logits, [slice_of(sampling, 800, 0, wrong)]) == [[Choice(token) for token in tokens[:3]]]


def test_draws_from_a_large_vocabulary_follow_the_distribution(level: str) -> None:
    """Chi-square over 4000 draws from 3 chunks of tokens; 27.9 is the 0.1% point of 9 degrees of freedom."""
    logits = torch.full((4000, 3000), math.log(1 / 300)).clone()
    with native(level):
        chosen = choose(logits, [slice_of(Sampling(temperature=1.0), 3000, seed) for seed in range(4000)])
    counts = torch.tensor([choices[0].id for choices in chosen if isinstance(choices, list)]).div(300).int().bincount()
    assert float(((counts - 400) ** 2 / 400).sum()) < 27.9


def test_no_rows_are_no_choices(level: str) -> None:
    with native(level):
        assert choose(torch.empty(0, 40), []) == []


@pytest.mark.parametrize("vocab", [1, 33, 1025])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_what_a_mask_forbids_is_never_drawn_and_the_rest_as_torch_draws_it(
    level: str, vocab: int, share: float
) -> None:
    some = np.random.default_rng(vocab)
    logits = torch.randn(20, vocab, generator=torch.Generator().manual_seed(vocab)) * 3
    for sampling in (*SAMPLINGS, Sampling(temperature=1.0, logprobs=4)):
        slices = [slice_of(sampling, vocab, seed) for seed in range(len(logits))]
        bits = some.random((20, -(-vocab // 32) * 32)) < share
        bits[:, some.integers(vocab)] = True
        words = np.packbits(bits, axis=1, bitorder="little").view(np.uint32)
        masks = {piece.sequence: words[row : row + 1] for row, piece in enumerate(slices) if row % 3}
        before = logits.clone()
        with native(level):
            chosen = choose(logits, slices, masks)
        assert torch.equal(logits, before), "the logits are left as they were"
        truth = choose_by_torch(logits, slices, masks)
        ids = [[choice.id for choice in found] for found in chosen if not isinstance(found, BrokenLogits)]
        assert ids == [[choice.id for choice in found] for found in truth if not isinstance(found, BrokenLogits)]
        assert all(bits[row, id] for row, (id,) in enumerate(ids) if row % 3), sampling


def test_a_mask_that_leaves_nothing_possible_breaks_its_row_alone(level: str) -> None:
    logits = torch.randn(3, 100)
    logits[1, 5] = -torch.inf
    slices = [slice_of(Sampling(temperature=1.0), 100, seed) for seed in range(3)]
    words = np.zeros((1, 4), np.uint32)
    words[0, 0] = 1 << 5
    with native(level):
        found = choose(logits, slices, {slices[1].sequence: words})
    assert [isinstance(row, BrokenLogits) for row in found] == [False, True, False]


def test_each_guess_has_the_mask_of_its_row(level: str) -> None:
    logits = torch.randn(3, 64)
    piece = slice_of(Sampling(temperature=0.0), 64, 0, (40, 41))
    words = np.zeros((3, 2), np.uint32)
    words[0, 1], words[1, 1], words[2, 0] = 1 << 8, 1 << 9, 1 << 3
    with native(level):
        assert choose(logits, [piece], {piece.sequence: words}) == [[Choice(40), Choice(41), Choice(3)]]
        assert choose_by_torch(logits, [piece], {piece.sequence: words}) == [[Choice(40), Choice(41), Choice(3)]]
