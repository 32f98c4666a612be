import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.apps.hallucination.signals import entropy, semantic_entropy, signals, weighted_semantic_entropy
from myna.records import Sampled


def token(logprob: float | None, *top: float | None) -> Sampled:
    return Sampled(1, b"x", logprob, tuple(Sampled(1, b"x", one) for one in top))


def test_mean_least_and_sum_are_of_the_chosen_tokens() -> None:
    found = signals([token(-1.0, -1.0), token(-3.0, -0.5)])
    assert (found.mean, found.least, found.total, found.tokens) == (-2.0, -3.0, -4.0, 2)


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf, 0.5])
def test_one_token_without_a_usable_log_probability_leaves_no_number(bad: float) -> None:
    found = signals([token(-1.0, -1.0), token(bad, -1.0)])
    assert (found.mean, found.least, found.total, found.entropy) == (None,) * 4
    assert found.why == "1 of 2 tokens have no usable log-probability"


def test_an_endpoint_without_log_probabilities_is_said_and_not_guessed() -> None:
    found = signals([token(None), token(None)])
    assert (found.mean, found.entropy, found.why) == (None, None, "the endpoint gives no log-probabilities")
    assert signals([]).mean is None
    assert "alternatives" in signals([token(-1.0)]).why


def test_alternatives_that_are_no_distribution_give_no_entropy() -> None:
    assert entropy([-0.1, -0.1, -0.1]) is None
    assert entropy([-0.1, math.nan]) is None
    assert entropy([]) is None
    assert signals([token(-1.0, -0.1, -0.1)]).entropy is None


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=30))
def test_entropy_of_the_likeliest_grows_to_the_whole_distributions(weights: list[float]) -> None:
    p = sorted((w / math.fsum(weights) for w in weights), reverse=True)
    whole = -math.fsum(x * math.log(x) for x in p)
    seen = [entropy([math.log(x) for x in p[:k]]) for k in range(1, len(p) + 1)]
    assert all(a is not None and b is not None and a <= b + 1e-9 for a, b in itertools.pairwise(seen))
    assert seen[-1] == pytest.approx(whole, abs=1e-9)


def test_what_is_not_listed_counts_as_one_outcome() -> None:
    assert entropy([math.log(0.5)]) == pytest.approx(math.log(2))
    assert entropy([0.0]) == 0.0


def test_semantic_entropy_is_zero_where_all_agree_and_log_n_where_none_do() -> None:
    assert semantic_entropy([5]) == 0.0
    assert semantic_entropy([1] * 5) == pytest.approx(math.log(5))
    assert semantic_entropy([3, 2]) == pytest.approx(0.6730116670092565)  # scipy.stats.entropy([.6, .4])
    assert semantic_entropy([]) is None


def test_weighted_semantic_entropy_weighs_by_probability() -> None:
    # Two meanings of probability 0.9 and 0.1: scipy.stats.entropy([.9, .1]).
    assert weighted_semantic_entropy([[0], [1]], [math.log(0.9), math.log(0.1)]) == pytest.approx(0.3250829733914482)
    assert weighted_semantic_entropy([[0, 1], [2]], [-1.0, -1.0, -1.0]) == pytest.approx(
        0.6365141682948128
    )  # [2/3, 1/3]
    assert weighted_semantic_entropy([[0], [1]], [-9000.0, -9000.0]) == pytest.approx(math.log(2))
    assert weighted_semantic_entropy([[0], [1]], [-1.0, None]) is None
    assert weighted_semantic_entropy([], []) is None
