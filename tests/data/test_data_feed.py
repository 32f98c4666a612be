"""Packing and steps: everything once an epoch, in rows that are full, the same whatever was asked before."""

import numpy as np
import pytest

from myna.data import Feed, Listed, Tokenized
from myna.data.pack import WINDOW, pack


def listed(lengths: list[int]) -> Listed:
    return Listed([(Tokenized(np.full(n, i), np.ones(n, np.float32)),) for i, n in enumerate(lengths)])


def seen(feed: Feed, steps: range) -> list[list[list[int]]]:
    return [[[int(example[0].ids[0]) for example in row] for row in feed.step(n)] for n in steps]


def test_every_example_is_in_exactly_one_row_and_no_row_is_over_full() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, WINDOW + 500)
    rows = pack(lengths, 512, seed=1, epoch=0)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))
    assert max(int(lengths[row].sum()) for row in rows) <= 512
    assert lengths.sum() / (len(rows) * 512) > 0.97


def test_rows_depend_on_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 900)
    first, again, later, other = (pack(lengths, 512, *of) for of in ((1, 0), (1, 0), (1, 1), (2, 0)))
    assert [r.tolist() for r in first] == [r.tolist() for r in again]
    assert [r.tolist() for r in first] != [r.tolist() for r in later]
    assert [r.tolist() for r in first] != [r.tolist() for r in other]


def test_an_example_no_row_has_room_for_is_named() -> None:
    with pytest.raises(ValueError, match="example 1 has 600 tokens, and a row has room for 512"):
        pack(np.array([5, 600]), 512, 0, 0)


def test_the_rows_of_a_step_are_the_same_whatever_was_asked_before() -> None:
    lengths = np.random.default_rng(3).integers(1, 60, 200).tolist()
    walked = seen(Feed(listed(lengths), context=64, rows=7, seed=5), range(40))
    for start in (0, 13, 39):
        assert seen(Feed(listed(lengths), context=64, rows=7, seed=5), range(start, 40)) == walked[start:]


def test_an_epoch_shows_everything_once_though_steps_reach_over_its_end() -> None:
    lengths = np.random.default_rng(3).integers(1, 60, 50).tolist()
    feed = Feed(listed(lengths), context=64, rows=1, seed=5)
    first, second = feed.epoch_rows(0), feed.epoch_rows(1)
    for rows in (range(first), range(first, first + second)):
        assert sorted(
            i for n in rows for example in [feed.row(n)] for i in [int(e[0].ids[0]) for e in example]
        ) == list(range(50))


def test_epochs_become_steps() -> None:
    feed = Feed(listed([64] * 30), context=64, rows=4, seed=0)
    assert (feed.steps(1), feed.steps(2), feed.steps(0.01), feed.steps(1.1)) == (8, 15, 1, 9)
