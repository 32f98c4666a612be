"""Copies are found, likenesses estimated as brute force computes them, and what is merely similar is left alone."""

import random

import numpy as np
import pytest

from myna.data.dedup import PERMUTATIONS, bands, content, fingerprint, shingles, signature, twins
from myna.records import Candidate, Conversation, DataError, Document, Message

ENGLISH = "the river runs past old mills and quiet fields where nobody has walked since winter came over hills".split()
CHINESE = list("春眠不觉晓处处闻啼鸟夜来风雨声花落知多少床前明月光疑是地上霜举头望明月低头思故乡白日依山尽黄河入海流")


def writing(rng: random.Random, words: list[str], size: int) -> list[str]:
    return [rng.choice(words) + (str(rng.randrange(1000)) if rng.random() < 0.4 else "") for _ in range(size)]


def changed(rng: random.Random, words: list[str], share: float) -> list[str]:
    return [w if rng.random() > share else f"x{rng.randrange(10**6)}" for w in words]


def brute_force(a: str, b: str) -> float:
    """Jaccard of character 5-grams as sets of strings: shares nothing with the code under test."""
    x, y = (
        {t[i : i + 5] for i in range(len(t) - 4)} for t in (" ".join(a.lower().split()), " ".join(b.lower().split()))
    )
    return len(x & y) / len(x | y)


@pytest.mark.parametrize("words", [ENGLISH, CHINESE])
def test_likeness_is_what_brute_force_says_and_signatures_estimate_it(words: list[str]) -> None:
    rng = random.Random(1)
    errors = []
    for step in range(40):
        first = writing(rng, words, 300)
        a, b = ("".join(t) if words is CHINESE else " ".join(t) for t in (first, changed(rng, first, step / 80)))
        exact = brute_force(a, b)
        x, y = ({*shingles(text).tolist()} for text in (a, b))
        assert len(x & y) / len(x | y) == pytest.approx(exact, abs=1e-12)
        errors.append(float(np.mean(signature(a) == signature(b))) - exact)
    assert abs(np.mean(errors)) < 3 * 0.5 / np.sqrt(PERMUTATIONS * len(errors))
    assert np.std(errors) < 1.3 * 0.5 / np.sqrt(PERMUTATIONS)


@pytest.mark.parametrize("words", [ENGLISH, CHINESE])
def test_planted_copies_are_found_and_nothing_else(words: list[str]) -> None:
    rng = random.Random(2)
    texts = [writing(rng, words, 200) for _ in range(300)]
    planted = {}
    for n in range(60):  # a word in a hundred changed: about 0.9 alike
        planted[len(texts)] = n
        texts.append(changed(rng, texts[n], 0.01))
    for n in range(60, 120):  # every third word changed: far below 0.8
        texts.append(changed(rng, texts[n], 0.33))
    joined = [("" if words is CHINESE else " ").join(text) for text in texts]
    near = {b: a for b, a in planted.items() if brute_force(joined[a], joined[b]) > 0.85}
    assert len(near) > 50
    found = twins(joined)
    missed = near.keys() - found.near.keys() - found.exact.keys()
    assert len(missed) <= 1
    assert all(brute_force(joined[a], joined[b]) > 0.7 for b, a in (found.near | found.exact).items())
    assert all(brute_force(joined[a], joined[b]) == 1 for b, a in found.exact.items())


def test_copies_that_differ_in_case_width_and_white_space_are_exact() -> None:
    found = twins(["Hello  world", "something else entirely", "ｈｅｌｌｏ\nWORLD", "hello world!"], threshold=None)
    assert found.exact == {2: 0}
    assert found.near == {}


def test_the_first_of_many_copies_is_kept_whatever_links_them() -> None:
    rng = random.Random(3)
    base = writing(rng, ENGLISH, 400)
    texts = [" ".join(base)]
    for _ in range(120):  # more than one bucket compares pair by pair
        texts.append(" ".join(changed(rng, base, 0.005)))
    found = twins(texts)
    assert {**found.exact, **found.near} == dict.fromkeys(range(1, 121), 0)


@pytest.mark.parametrize("texts", [[], ["a"], ["", ""], ["ab", "abc", "ab"]])
def test_short_texts_are_only_like_themselves(texts: list[str]) -> None:
    found = twins(texts)
    assert found.exact == ({1: 0} if texts == ["", ""] else {2: 0} if len(texts) == 3 else {})
    assert found.near == {}


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
def test_bands_find_what_is_just_alike_enough(threshold: float) -> None:
    count, rows = bands(threshold)
    assert count * rows <= PERMUTATIONS
    assert 1 - (1 - threshold**rows) ** count >= 0.99


def test_a_conversation_says_what_everybody_says() -> None:
    ask = Message("user", "a")
    one, other = (Conversation((ask,), candidates=(Candidate((Message("assistant", t),), 1.0),)) for t in "bc")
    assert fingerprint(content(one)) != fingerprint(content(other))
    assert content(Document("text")) == "text"


def test_a_threshold_that_would_find_everything_is_refused() -> None:
    with pytest.raises(DataError, match=r"threshold 0\.1"):
        twins(["a"], threshold=0.1)
