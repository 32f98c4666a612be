"""Fusion: fitted, never below the better arm on what it was fitted on, and words alone where vectors are noise."""

import random

import pytest

from myna.apps.index.fusion import FEWEST, Fitted, Pool, fit, fuse, reciprocal_rank


def pools(seed: int, words: float, vectors: float, n: int = 60) -> list[Pool]:
    """Of ten chunks one is right; an arm gives it the best score with the chance given, else a random one."""
    draw = random.Random(seed)

    def arm(good: float) -> dict[int, float]:
        scores = {chunk: draw.random() for chunk in range(10)}
        return scores | {0: 1.5} if draw.random() < good else scores

    return [Pool(arm(words), arm(vectors), frozenset((0,))) for _ in range(n)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("words", "vectors"), [(0.9, 0.0), (0.0, 0.9), (0.6, 0.6), (0.9, 0.5), (0.0, 0.0)])
def test_what_is_fitted_is_not_worse_than_words_nor_much_worse_than_vectors(
    seed: int, words: float, vectors: float
) -> None:
    made = fit(pools(seed, words, vectors))
    assert made.fused >= made.lexical
    assert made.fused >= made.dense - 0.05  # less than a standard error is no reason to leave words


def test_vectors_that_are_noise_cost_next_to_nothing_on_other_questions() -> None:
    losses = []
    for seed in range(10):
        weight = fit(pools(seed, 0.9, 0.0)).weight
        others = pools(seed + 100, 0.9, 0.0, 200)
        losses += [reciprocal_rank(pool, 0.0) - reciprocal_rank(pool, weight) for pool in others]
    assert sum(losses) / len(losses) < 0.005


def test_vectors_that_cannot_help_get_no_weight_and_that_is_said() -> None:
    made = fit(pools(1, 1.0, 0.0))
    assert made.weight == 0
    assert "did not help" in str(made)


def test_words_that_are_noise_leave_it_to_the_vectors() -> None:
    assert all(fit(pools(seed, 0.0, 0.9)).weight >= 0.5 for seed in range(10))


def test_two_arms_that_err_apart_are_better_together() -> None:
    made = fit(pools(3, 0.6, 0.6, 400))
    assert 0 < made.weight < 1
    assert made.fused > max(made.lexical, made.dense) + 0.05


@pytest.mark.parametrize("count", [0, 1, FEWEST - 1])
def test_too_few_questions_fit_nothing(count: int) -> None:
    made = fit(pools(1, 0.0, 1.0, count))
    assert made.weight == 0
    assert ("1 question is" if count == 1 else f"{count} questions are") + " too few" in str(made)


def test_where_words_find_nothing_vectors_answer() -> None:
    assert fuse(Pool({}, {1: 0.5, 2: 0.25}), 0.0) == {1: 1.0, 2: 0.5}


def test_a_weight_of_nothing_is_the_order_of_words_and_of_one_that_of_vectors() -> None:
    pool = Pool({1: 3.0, 2: 1.5}, {2: 0.8, 3: 0.4})
    assert fuse(pool, 0.0) == {1: 1.0, 2: 0.5}
    assert fuse(pool, 1.0) == {2: 1.0, 3: 0.5}
    assert fuse(pool, 0.5) == {1: 0.5, 2: 0.75, 3: 0.25}


def test_a_tie_counts_as_wrong() -> None:
    assert reciprocal_rank(Pool({1: 1.0, 2: 1.0}, {}, frozenset((1,))), 0.0) == 0.5
    assert reciprocal_rank(Pool({1: 1.0}, {}, frozenset((9,))), 0.0) == 0.0


def test_what_was_fitted_says_on_what() -> None:
    assert str(Fitted(0.5, 100, 0.8, 0.7, 0.9, "made")).endswith(
        "100 made questions: words 0.800, vectors 0.700, together 0.900"
    )
