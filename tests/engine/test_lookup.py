"""Prompt lookup: what it guesses, and how sure it is."""

import random

import pytest

from myna.engine.lookup import LONGEST, NGRAM, Lookup
from myna.engine.request import Request, Sequence
from myna.records import Sampling


def sequence(prompt: list[int]) -> Sequence:
    return Sequence(Request(0, tuple(prompt), Sampling()), 0, [*prompt])


def guess(lookup: Lookup, s: Sequence, most: int) -> list[int]:
    return lookup.draft({s: most})[s] if lookup.chances(s, most) else []


def test_what_followed_the_last_tokens_before_is_the_guess_and_a_period_goes_on() -> None:
    lookup = Lookup()
    assert guess(lookup, sequence([1, 2, 3, 4, 5, 9, 9, 1, 2, 3]), 4) == [4, 5, 9, 9]
    assert guess(lookup, sequence([7, 1, 2, 3, 4, 1, 2, 3, 4]), 10) == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]
    assert guess(lookup, sequence([5, 5, 5, 5]), 3) == [5, 5, 5]


def test_no_more_tokens_agree_than_there_are() -> None:
    lookup, s = Lookup(), sequence([1, 2, 3, 1, 2, 3])
    lookup.chances(s, 1)
    assert lookup._readings[s].length == 3, "nothing is before the first"


@pytest.mark.parametrize("prompt", [[1], [1, 2], [1, 2, 3], list(range(50)), [1, 2, 9, 1, 2, 8, 2]])
def test_what_was_not_seen_before_is_not_guessed(prompt: list[int]) -> None:
    assert guess(Lookup(), sequence(prompt), 4) == []


def test_a_text_that_is_copied_with_a_change_goes_on_behind_the_change() -> None:
    lookup, text = Lookup(), list(range(100, 130))
    s = sequence([*text, 1, 100, 101, 102])
    assert guess(lookup, s, 2) == [103, 104]
    s.tokens += [103, 104, 7]  # instead of 105
    assert guess(lookup, s, 3) == [106, 107, 108]


def test_every_guess_is_what_really_followed_somewhere_and_never_past_the_end() -> None:
    rng = random.Random(1)
    for _ in range(200):
        lookup, s = Lookup(), sequence([rng.randrange(3) for _ in range(rng.randrange(1, 40))])
        for _ in range(rng.randrange(30)):
            s.tokens += [rng.randrange(3) for _ in range(rng.randrange(1, 4))]
            said, at = guess(lookup, s, 5), lookup._readings[s].at
            assert len(said) in (0, 5)
            if at is not None:
                assert 0 < at < len(s.tokens)
                assert (s.tokens + said)[at : at + 5] == said
                assert lookup._readings[s].length <= LONGEST


def test_reading_token_by_token_or_many_at_once_gives_the_same_guesses_and_chances() -> None:
    rng = random.Random(2)
    tokens = [rng.randrange(4) for _ in range(300)]
    slow, fast = Lookup(), Lookup()
    one, other = sequence(tokens[:20]), sequence(tokens[:20])
    for token in tokens[20:]:
        slow.chances(one, 3)
        one.tokens.append(token)
    other.tokens += tokens[20:]
    fast.chances(other, 3)
    assert slow.chances(one, 8) == fast.chances(other, 8)
    assert guess(slow, one, 8) == guess(fast, other, 8)


def test_chances_are_learned_from_tokens_that_nobody_guessed() -> None:
    """Random text repeats n-grams by accident: it is found out without one guess being computed."""
    rng, lookup = random.Random(3), Lookup()
    prose, code = sequence([0]), sequence([0])
    prose.tokens += [rng.randrange(6) for _ in range(600)]
    while not lookup.chances(prose, 1):
        prose.tokens.append(rng.randrange(6))
    assert lookup.chances(prose, 1)[0] < 0.35
    code.tokens += [*range(50)] * 6
    chances = lookup.chances(code, 40)
    assert chances[0] > 0.9
    assert chances == sorted(chances)
    assert NGRAM == 3, "the prompts above are made for it"


def test_a_new_sequence_begins_with_what_others_showed_and_forgets_nothing_of_them() -> None:
    lookup = Lookup()
    for _ in range(5):
        code = sequence([*range(50)] * 2)
        code.tokens += [*range(50)] * 4
        lookup.chances(code, 1)
        lookup.forget(code)
    assert not lookup._readings
    fresh = sequence([1, 2, 3, 4, 5, 1, 2, 3])
    assert lookup.chances(fresh, 30)[-1] > Lookup().chances(sequence([1, 2, 3, 4, 5, 1, 2, 3]), 30)[-1]
