"""Sampling against transformers' own logits processors, and the laws of the noise."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from myna.engine.request import Request, Sequence
from myna.engine.sample import BrokenLogits, Choice, choose, derive_seed, distribution, edit_logits, uniform
from myna.records import DEFAULTS, Sampling

V = 900  # more than the 512 tokens top_p looks at first


def sequence(
    sampling: Sampling, prompt: list[int] | None = None, answer: list[int] | None = None, candidate: int = 0
) -> Sequence:
    prompt = prompt or [1]
    request = Request(0, tuple(prompt), sampling.resolve(DEFAULTS))
    return Sequence(request, candidate, prompt + (answer or []))


def transformers_distribution(logits: torch.Tensor, s: Sampling, tokens: list[int]) -> torch.Tensor:
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    steps = LogitsProcessorList()
    if s.repetition_penalty:
        steps.append(RepetitionPenaltyLogitsProcessor(s.repetition_penalty))
    if s.temperature:
        steps.append(TemperatureLogitsWarper(s.temperature))
    if s.top_k:
        steps.append(TopKLogitsWarper(s.top_k))
    if s.top_p is not None:
        steps.append(TopPLogitsWarper(s.top_p))
    if s.min_p:
        steps.append(MinPLogitsWarper(s.min_p))
    return steps(torch.tensor([tokens]), logits[None])[0].softmax(-1)


@pytest.mark.parametrize("sampling", [
    Sampling(temperature=0.7),
    Sampling(temperature=1.0, top_k=5),
    Sampling(temperature=1.5, top_p=0.9),
    Sampling(temperature=1.0, top_p=0.999),
    Sampling(temperature=1.0, top_p=0.0),
    Sampling(temperature=2.0, min_p=0.1),
    Sampling(temperature=1.2, top_k=40, top_p=0.8, min_p=0.02, repetition_penalty=1.3),
    Sampling(temperature=0.5, repetition_penalty=0.8),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_the_distribution_is_the_one_transformers_samples_from(sampling: Sampling, spread: float) -> None:
    generator = torch.Generator().manual_seed(4)
    for _ in range(5):
        logits = torch.randn(V, generator=generator) * spread
        seq = sequence(sampling, [3, 4, 5], [5, 6])
        ids, weights = distribution(edit_logits(logits, seq), seq.request.sampling)
        ours = torch.zeros(V, dtype=torch.double).scatter(0, ids, weights / weights.sum())
        torch.testing.assert_close(
            ours.float(), transformers_distribution(logits, sampling, seq.tokens), atol=2e-6, rtol=2e-4
        )


def test_penalties_count_the_answer_and_bias_is_added_first() -> None:
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((7, 2.0),), repetition_penalty=2.0)
    edited = edit_logits(torch.ones(10), sequence(sampling, [1, 2], [7, 7, 3]))
    expected = [1, 0.5, 0.5, 0.5 - 0.75, 1, 1, 1, 3 / 2 - 1.0, 1, 1]
    assert edited.tolist() == pytest.approx(expected)


def test_greedy_takes_the_lowest_of_equals() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0]])
    assert choose(logits, [sequence(Sampling(temperature=0.0))]) == [Choice(1)]


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-38, 1e-45, 1e-300])
def test_a_temperature_close_to_zero_is_close_to_greedy(temperature: float) -> None:
    logits = torch.tensor([[0.0, 90.0, 1.0, -3.0]])
    assert choose(logits, [sequence(Sampling(temperature=temperature, top_p=0.9, seed=1))]) == [Choice(1)]


def test_more_alternatives_than_tokens_are_all_of_them() -> None:
    """A row that raised would end every sequence of its step."""
    (choice,) = choose(torch.tensor([[0.0, 2.0, 1.0]]), [sequence(Sampling(temperature=0.0, logprobs=20))])
    assert isinstance(choice, Choice)
    assert [id for id, _ in choice.top] == [1, 2, 0]


def test_draws_follow_the_distribution() -> None:
    """Chi-square over 20,000 draws at different positions; 27.9 is the 0.1% point of 9 degrees of freedom."""
    logits = torch.log(torch.arange(1.0, 11.0))
    seq = sequence(Sampling(temperature=1.0, seed=9))
    counts: Counter[int] = Counter()
    for _ in range(20_000):
        (choice,) = choose(logits[None], [seq])
        assert isinstance(choice, Choice)
        counts[choice.id] += 1
        seq.tokens.append(0)
    expected = [20_000 * k / 55 for k in range(1, 11)]
    assert sum((counts[i] - e) ** 2 / e for i, e in enumerate(expected)) < 27.9


def test_noise_is_even_and_independent_between_neighbours() -> None:
    draws = [uniform(seed, position) for seed in range(100) for position in range(100)]
    bins = Counter(int(u * 20) for u in draws)
    assert sum((bins[b] - 500) ** 2 / 500 for b in range(20)) < 43.8  # 0.1% point of 19 degrees of freedom
    pairs = torch.tensor([draws[:-1], draws[1:]])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.04
    across = torch.tensor([draws[:-100], draws[100:]])  # same position, next seed
    assert abs(float(torch.corrcoef(across)[0, 1])) < 0.04


@given(st.integers(-(2**63), 2**64 - 1), st.integers(0, 127), st.integers(0, 10**6))
def test_noise_depends_on_seed_candidate_and_position_alone(seed: int, candidate: int, position: int) -> None:
    assert 0 <= uniform(derive_seed(seed, candidate), position) < 1
    assert uniform(seed, position) == uniform(seed, position)
    assert derive_seed(seed, 0) == seed


@given(st.integers(0, 2**32), st.integers(0, 5))
@settings(max_examples=30)
def test_a_row_is_chosen_the_same_alone_and_in_company(seed: int, place: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, V, generator=generator)
    warm = Sampling(temperature=1.1, top_p=0.9, logprobs=2)
    rows = [sequence(replace(warm, seed=seed + k)) for k in range(6)]
    assert choose(logits, rows)[place] == choose(logits[place : place + 1], rows[place : place + 1])[0]


def test_one_broken_row_is_reported_and_the_others_are_not_touched() -> None:
    logits = torch.zeros(4, 8)
    logits[1, 3] = torch.nan
    logits[2, 3] = torch.inf
    logits[3] = -torch.inf
    logits[0, 5] = 1.0
    choices = choose(logits, [sequence(Sampling(temperature=0.0)) for _ in range(4)])
    assert choices[0] == Choice(5)
    assert [isinstance(c, BrokenLogits) for c in choices] == [False, True, True, True]
