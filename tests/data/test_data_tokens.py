"""Rows as arrays: what is a target, what is context, who sees whom."""

import numpy as np
import pytest

from myna.data import IGNORED, PADDING, Tokenized, collate


def sequence(*ids: int, weights: list[float] | None = None, **more: float) -> Tokenized:
    kept = np.array(weights or [1.0] * len(ids), np.float32)
    return Tokenized(np.array(ids), kept, {"logprob": -np.array(ids, np.float32)}, more)


def test_a_target_is_the_next_token_of_the_same_sequence() -> None:
    batch = collate([[(sequence(5, 6, 7),), (sequence(8, 9),)]], 8)
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9, 0, 0, 0]]
    assert batch.targets.tolist() == [[6, 7, IGNORED, 9, *[IGNORED] * 4]]
    assert batch.docs.tolist() == [[0, 0, 0, 1, 1, *[PADDING] * 3]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0, 0]]


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.int64])
def test_what_is_no_target_is_none_whatever_ids_are_kept_as(kind: type) -> None:
    """-100 among uint16 would be token 65436."""
    ids, weights = np.array([5, 60_000, 7], kind), np.array([1, 1, 0], np.float32)
    assert collate([[(Tokenized(ids, weights),)]], 3).targets.tolist() == [[60_000, IGNORED, IGNORED]]


def test_context_is_no_target_and_numbers_stand_with_the_token_they_are_of() -> None:
    batch = collate([[(sequence(5, 6, 7, 8, weights=[1, 0, 1, 0.5]),)]], 4)
    assert batch.targets.tolist() == [[IGNORED, 7, 8, IGNORED]]
    assert batch.weights.tolist() == [[0, 1, 0.5, 0]]
    assert batch.numbers["logprob"].tolist() == [[-6, -7, -8, 0]]
    assert batch.supervised == 2 == sequence(5, 6, 7, 8, weights=[1, 0, 1, 0.5]).supervised


def test_the_sides_of_a_pair_are_neighbours_and_facts_belong_to_sequences() -> None:
    pair = (sequence(1, 2, side=1.0), sequence(3, 4, side=0.0))
    batch = collate([[pair], [(sequence(5, 6),)]], 4)
    assert batch.docs.tolist() == [[0, 0, 1, 1], [2, 2, PADDING, PADDING]]
    assert batch.sequences == 3
    np.testing.assert_array_equal(batch.facts["side"], np.array([1, 0, np.nan], np.float32))


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 3 tokens, and there is room for 2"):
        collate([[(sequence(1),)], [(sequence(1, 2, 3),)]], 2)
