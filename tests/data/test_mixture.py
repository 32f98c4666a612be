"""A mixture has the tokens its weights ask for, of every source, and is the same for the same seed."""

import numpy as np
import pytest

from myna.data import Feed, Listed, Tokenized
from myna.data.mixture import Mixture, Part
from myna.records import DataError


def source(mark: int, lengths: list[int]) -> Listed:
    """Examples whose ids say which source and which example they are."""
    ones = (np.full(n, mark * 1000 + i) for i, n in enumerate(lengths))
    return Listed([(Tokenized(ids, np.ones(len(ids), np.float32)),) for ids in ones])


def drawn(mixture: Mixture) -> list[int]:
    return [int(mixture[i][0].ids[0]) for i in range(len(mixture.lengths))]


LENGTHS = np.random.default_rng(0).integers(5, 50, 400).tolist()


def test_tokens_are_in_proportion_to_weights_and_everything_is_seen() -> None:
    mixture = Mixture([Part("a", source(1, LENGTHS), 3), Part("b", source(2, LENGTHS[:40]), 1)], seed=0)
    assert mixture.tokens[0] / mixture.tokens[1] == pytest.approx(3, rel=0.02)
    found = drawn(mixture)
    assert {id for id in found if id < 2000} == set(range(1000, 1400))
    assert {id for id in found if id >= 2000} == set(range(2000, 2040))
    counts = np.unique([id for id in found if id >= 2000], return_counts=True)[1]
    assert set(counts) <= {int(mixture.rounds[1]), int(mixture.rounds[1]) + 1}
    assert mixture.rounds[0] == 1
    assert mixture.rounds[1] == pytest.approx(sum(LENGTHS) / 3 / sum(LENGTHS[:40]), rel=0.02)


def test_equal_sources_of_equal_weight_are_each_seen_once() -> None:
    mixture = Mixture([Part("a", source(1, LENGTHS)), Part("b", source(2, LENGTHS))], seed=5)
    assert sorted(drawn(mixture)) == [*range(1000, 1400), *range(2000, 2400)]


def test_an_epoch_can_be_shorter_than_the_sources() -> None:
    mixture = Mixture([Part("a", source(1, LENGTHS), 1), Part("b", source(2, LENGTHS), 3)], seed=0, tokens=2000)
    assert int(mixture.lengths.sum()) == pytest.approx(2000, abs=50)
    assert mixture.rounds[1] < 1
    assert len(set(drawn(mixture))) == len(drawn(mixture))


def test_lengths_are_those_of_the_examples_and_each_knows_its_source() -> None:
    mixture = Mixture([Part("a", source(1, LENGTHS), 2), Part("b", source(2, [7, 9]))], seed=1)
    for i in range(0, len(mixture.lengths), 7):
        assert mixture.lengths[i] == len(mixture[i][0])
        name, index = mixture.origin(i)
        assert int(mixture[i][0].ids[0]) == {"a": 1000, "b": 2000}[name] + index


def test_the_same_seed_draws_the_same_and_another_seed_another_part() -> None:
    def chosen(seed: int) -> list[int]:
        parts = [Part("a", source(1, LENGTHS)), Part("b", source(2, LENGTHS))]
        return drawn(Mixture(parts, seed=seed, tokens=3000))

    assert chosen(1) == chosen(1)
    assert set(chosen(1)) != set(chosen(2))


def test_a_feed_takes_a_mixture() -> None:
    feed = Feed(Mixture([Part("a", source(1, LENGTHS))], seed=0), context=64, rows=4, seed=0)
    assert sum(len(row) for n in range(feed.epoch_rows()) for row in [feed.row(n)]) == 400


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(DataError, match="a: weight"):
        Mixture([Part("a", source(1, [3]), weight)], seed=0)


def test_an_empty_source_is_named() -> None:
    with pytest.raises(DataError, match="b: there is nothing"):
        Mixture([Part("a", source(1, [3])), Part("b", Listed([]))], seed=0)
