"""Evaluation rows inside the training data are found, in words and in characters, and a likeness is not a copy."""

import random

import pytest

from myna.data.overlap import Overlap, Watch
from myna.data.sources import Place, Sourced
from myna.records import Conversation, Document, Message

WORDS = [f"word{n}" for n in range(500)]
CHARACTERS = [chr(0x4E00 + n) for n in range(500)]


def texts(alphabet: list[str], count: int, size: int, seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [[rng.choice(alphabet) for _ in range(size)] for _ in range(count)]


def placed(name: str, rows: list[str]) -> list[Sourced]:
    return [Sourced(Place(name, n), Document(row)) for n, row in enumerate(rows, start=1)]


def overlap(train: list[str], evals: list[str]) -> Overlap:
    watch = Watch.over(placed("eval", evals))
    for place, record in placed("train", train):
        watch.add(place, record)
    return watch.overlap()


@pytest.mark.parametrize(("alphabet", "blank"), [(WORDS, " "), (CHARACTERS, "")])
def test_planted_rows_are_found_with_their_share_and_no_others(alphabet: list[str], blank: str) -> None:
    evals, train = texts(alphabet, 50, 40, 1), texts(alphabet, 200, 80, 2)
    train[7] = train[7][:20] + evals[3] + train[7][20:]  # whole, in the middle of another
    train[9] = train[9][:30] + evals[4][5:25] + train[9][30:]  # twenty in a row: 8 of its 28 13-grams
    train[11] = train[11][:30] + evals[5][5:17] + train[11][30:]  # twelve in a row: none
    found = overlap([blank.join(t) for t in train], [blank.join(t) for t in evals])
    assert [(f.train, f.eval) for f in found.findings] == [("train:8", "eval:4"), ("train:10", "eval:5")]
    assert [f.share for f in found.findings] == [1.0, pytest.approx(8 / 28)]
    assert (found.eval_rows, found.touched, found.inside, found.same, found.train_rows) == (50, 2, 1, 0, 200)
    assert found.share == 2 / 50


@pytest.mark.parametrize("at_once", [1, 500, 1 << 15])
def test_rows_compared_together_are_as_rows_compared_alone(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight training rows have 30 units of an evaluation row, and beside them rows whose ends together say it whole."""
    monkeypatch.setattr("myna.data.overlap.AT_ONCE", at_once)
    evals, train = texts(WORDS, 20, 40, 1), texts(WORDS, 100, 80, 2)
    for n in range(8):
        train[10 * n] = train[10 * n][:20] + evals[n][5:35]
        train[10 * n + 1] = train[10 * n + 1] + evals[19][:9]
        train[10 * n + 2] = evals[19][9:20] + train[10 * n + 2]
    rows = placed("train", [" ".join(t) for t in train])
    together, alone = (Watch.over(placed("eval", [" ".join(t) for t in evals])) for _ in range(2))
    for place, record in rows:
        together.add(place, record)
        alone.look(place, record)
    assert together.overlap() == alone.overlap()
    assert [(f.train, f.eval) for f in alone.overlap().findings] == [
        (f"train:{10 * n + 1}", f"eval:{n + 1}") for n in range(8)
    ]


def test_punctuation_case_and_width_hide_nothing() -> None:
    row = "The quick brown fox jumps over the lazy dog and then runs away again."
    found = overlap(["THE QUICK, brown fox -- jumps over the lazy dog; and ｔｈｅｎ runs away again!"], [row])
    assert found.inside == 1
    assert found.same == 0


def test_a_short_row_is_compared_whole_and_a_shorter_one_only_with_itself() -> None:
    ten = "one two three four five six seven eight nine ten"
    found = overlap([f"zero {ten} eleven", "what is the capital of France"], [ten, "what is the capital of Spain"])
    assert [(f.eval, f.share) for f in found.findings] == [("eval:1", 1.0)]
    assert found.too_short == 1
    assert overlap(["What is  the capital of Spain"], ["what is the capital of Spain"]).same == 1


def test_a_shared_system_prompt_is_no_overlap() -> None:
    system = Message("system", " ".join(WORDS[:40]))
    rows = [Conversation((system, Message("user", t), Message("assistant", t))) for t in ("one", "two")]
    watch = Watch.over([Sourced(Place("eval", 1), rows[0])])
    assert watch.look(Place("train", 1), rows[1]) == []
    (same,) = watch.look(Place("train", 2), rows[0])
    assert same.same


def test_json_gives_it_back() -> None:
    found = overlap(["a b c d e f g h"], ["a b c d e f g h"])
    assert Overlap.from_json(found.to_json()) == found


def test_a_row_that_stands_in_a_longer_evaluation_row_is_inside() -> None:
    """A question whose evaluation row has a long answer too."""
    asked, answered = (" ".join(words) for words in texts(WORDS, 2, 60, 3))
    found = overlap([asked + " 42"], [f"{asked} {answered}"])
    assert found.inside == 1
    assert found.findings[0].share == pytest.approx(48 / 49)
