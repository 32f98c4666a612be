"""What a step costs is learned from noisy steps, and what is not known is tried again."""

import random

import pytest

from myna.engine.costs import HALF_LIFE, Costs

TRUE = {1: 4.0, 2: 5.4, 4: 5.6, 7: 8.8, 8: 8.8, 16: 13.0}  # a machine with steps in its curve, milliseconds


def noisy(rng: random.Random, seconds: float) -> float:
    """Some percent of noise, and every eighth step somebody else has the machine."""
    return seconds * rng.uniform(0.95, 1.1) * (rng.uniform(2, 10) if rng.random() < 0.125 else 1)


def test_nothing_is_known_before_the_first_step() -> None:
    costs = Costs(16)
    assert not costs.known
    costs.learn(17, 1.0)
    assert not costs.known, "more rows than anybody guesses with"
    costs.learn(1, 1.0)
    assert costs.known


def test_what_was_asked_before_does_not_hold_when_the_machine_changes() -> None:
    costs = Costs(4)
    for seconds in (1.0, 3.0):
        for _ in range(10):
            costs.learn(1, seconds)
        assert costs.seconds(1) == pytest.approx(seconds)


@pytest.mark.parametrize("seed", range(5))
def test_the_curve_is_found_through_noise(seed: int) -> None:
    rng, costs = random.Random(seed), Costs(16)
    for _ in range(600):
        rows = rng.choice([1, 1, 1, *TRUE])
        costs.learn(rows, noisy(rng, TRUE[rows]))
    for rows, seconds in TRUE.items():
        assert costs.seconds(rows) / costs.seconds(1) == pytest.approx(seconds / TRUE[1], rel=0.15)
    assert costs.seconds(1) == pytest.approx(TRUE[1], rel=0.2)


def test_long_runs_of_the_same_rows_wear_nothing_away() -> None:
    """Beside its like a step says nothing about the curve; it must not confirm what was guessed at first."""
    costs = Costs(8)
    for _ in range(4):
        for rows, seconds in ((1, 1.0), (4, 2.0)):
            for _ in range(60):
                costs.learn(rows, seconds)
    assert costs.seconds(4) / costs.seconds(1) == pytest.approx(2.0, rel=0.1)


def test_rows_that_were_never_seen_cost_a_little_more_than_one_row_fewer() -> None:
    costs = Costs(8)
    for _ in range(50):
        costs.learn(1, 1.0)
        costs.learn(4, 3.0)
    assert costs.seconds(4) == pytest.approx(3.0, rel=0.1)
    assert costs.seconds(4) < costs.seconds(5) < costs.seconds(8)


def test_a_slow_step_moves_nothing() -> None:
    costs = Costs(8)
    for _ in range(50):
        costs.learn(1, 1.0)
        costs.learn(4, 1.5)
    before = [costs.seconds(rows) for rows in (1, 4)]
    costs.learn(4, 100.0)
    assert [costs.seconds(rows) for rows in (1, 4)] == pytest.approx(before, rel=0.05)


def test_a_machine_that_slows_down_keeps_its_curve() -> None:
    """Another process, a longer context: the seconds follow at once, the ratios stay."""
    costs = Costs(8)
    for _ in range(60):
        costs.learn(1, 1.0)
        costs.learn(4, 1.5)
    for _ in range(20):
        costs.learn(1, 3.0)
    assert costs.seconds(1) == pytest.approx(3.0, rel=0.1)
    assert costs.seconds(4) / costs.seconds(1) == pytest.approx(1.5, rel=0.1)


def test_what_was_dear_once_is_tried_again_one_day() -> None:
    """Otherwise one bad moment at the start would keep guessing off for ever."""
    costs = Costs(8)
    for _ in range(20):
        costs.learn(1, 1.0)
    for _ in range(5):
        costs.learn(2, 10.0)
    dear = costs.seconds(2) / costs.seconds(1)
    for _ in range(8 * HALF_LIFE):
        costs.learn(1, 1.0)
    assert dear > 2
    assert costs.seconds(2) / costs.seconds(1) < 1.2
