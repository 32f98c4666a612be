"""A teacher's own tasks: new ones alone, answered twice alike where a check asks for it, and the same after an interruption."""

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from myna.data.sources import Place, Sourced
from myna.provider import Scripted
from myna.records import Candidate, Conversation, DataError, Message, jsonl
from myna.train import synthesize as of_synthesis
from myna.train.synthesize import Made, Wish, synthesize, tasks_in

SEEDS = [Conversation.of(("user", f"Name the river of {city}."), ("assistant", "?")) for city in ("Rome", "Paris")]
WORDS = (
    "apple bridge copper dolphin ember falcon glacier harbor island jungle kettle lantern meadow needle orchard".split()
)


def teacher(answers: Any = None, listed: Any = None) -> Scripted:
    """Writes two new tasks for each list it is asked for, and answers tasks."""
    lists, said = count(), count()

    def turn(what: Any) -> Any:
        if "numbered list" in what.messages[0].text:
            n = next(lists)
            if listed:
                return listed(n)
            a, b = WORDS[2 * n % len(WORDS)], WORDS[(2 * n + 1) % len(WORDS)]
            return f"Here you are:\n1. Write {n} lines about a {a}, please.\n2) How would {n} people carry one {b}?"
        return answers(next(said)) if answers else f"Like this: {len(what.messages[0].text)}"

    return Scripted(turn for _ in count())


def make(provider: Scripted, out: Path, **more: Any) -> Made:
    evals = more.pop("evals", ())
    return asyncio.run(synthesize(provider, SEEDS, out, Wish(**{"rows": 6} | more), evals=evals))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_synthesis, "AT_ONCE", 2)


def test_new_tasks_are_answered_and_kept(tmp_path: Path) -> None:
    provider = teacher()
    found = make(provider, tmp_path / "out")
    rows = [*jsonl.read(tmp_path / "out", Conversation)]
    assert found.kept == len(rows) == 6
    assert found.malformed == 4  # "Here you are:" of four lists
    assert rows[0].messages[0].text == "Write 0 lines about a apple, please."
    assert [m.role for m in rows[0].messages] == ["user", "assistant"]
    assert rows[0].meta == {"teacher": "scripted", "seed": 0}
    shown = provider.requests[0].what.messages[0].text  # type: ignore[union-attr]
    assert "Name the river of Rome." in shown
    later = next(seen for seen in provider.requests[3:] if "numbered" in seen.what.messages[0].text)  # type: ignore[union-attr]
    assert "apple" in later.what.messages[0].text or "bridge" in later.what.messages[0].text  # type: ignore[union-attr]


def test_copies_of_seeds_and_of_each_other_and_evaluation_rows_are_left_out(tmp_path: Path) -> None:
    def listed(n: int) -> str:
        return f"1. Name the river of Rome.\n2. Sing of {WORDS[n % 9]} and {WORDS[(n + 3) % 9]} {n}!\n3. What is an evaluation?\n4. ?"

    held = [Sourced(Place("eval.jsonl", 1), Conversation.ask("What is an evaluation?"))]
    found = make(teacher(listed=listed), tmp_path / "out", evals=held, rows=3)
    assert found.copies >= 4
    assert found.held_out == found.malformed == 4  # once a list: as an evaluation row, and as too short
    asked = [row.messages[0].text for row in jsonl.read(tmp_path / "out", Conversation)]
    assert len({*asked}) == 3
    assert all(text.startswith("Sing") for text in asked)


def test_with_a_check_two_answers_must_agree(tmp_path: Path) -> None:
    """Some pairs differ, and some hold no number at all."""
    found = make(
        teacher(answers=lambda n: f"It is {n // 3}." if n % 7 else "no number"), tmp_path / "out", check="number"
    )
    assert found.disagreed
    for row in jsonl.read(tmp_path / "out", Conversation):
        assert row.messages[-1].text == row.target
        assert row.meta["check"] == "number"


def test_a_teacher_that_repeats_itself_comes_to_an_end(tmp_path: Path) -> None:
    found = make(teacher(listed=lambda n: "1. Tell me about the sea."), tmp_path / "out")
    assert found.kept == 1
    assert found.asked == 2 * (1 + of_synthesis.BARREN)
    with pytest.raises(DataError, match="nothing that could be kept"):
        make(teacher(listed=lambda n: "I would rather not."), tmp_path / "none")


def test_what_was_cut_is_no_task_and_no_answer(tmp_path: Path) -> None:
    def listed(n: int) -> Candidate:
        text = f"1. Tell me of {WORDS[n % 15]} number {n}.\n2. Then write abo"
        return Candidate((Message("assistant", text),), finish_reason="length")

    short = Candidate((Message("assistant", "It is"),), finish_reason="length")
    found = make(teacher(listed=listed, answers=lambda n: short if n % 2 else f"Yes {n}"), tmp_path / "out", rows=3)
    assert found.cut
    assert not any("abo" in row.messages[0].text for row in jsonl.read(tmp_path / "out", Conversation))


def test_interrupted_it_goes_on_with_what_it_had(tmp_path: Path) -> None:
    asked = count()

    def fails(n: int) -> str:
        if next(asked) >= 5:
            raise RuntimeError
        return f"Yes {n}"

    with pytest.raises(RuntimeError):
        make(teacher(answers=fails), tmp_path / "out", rows=12)
    provider = teacher(
        listed=lambda n: f"1. Draw a {WORDS[14 - n % 15]} for {n} friends.\n2. Write 0 lines about a apple, please."
    )
    found = make(provider, tmp_path / "out", rows=12)
    rows = [*jsonl.read(tmp_path / "out", Conversation)]
    assert found.kept == len(rows) == 12
    assert rows[0].messages[0].text == "Write 0 lines about a apple, please."
    assert len({row.messages[0].text for row in rows}) == 12
    with pytest.raises(DataError, match="no seeds"):
        asyncio.run(synthesize(teacher(), [], tmp_path / "none", Wish(rows=1)))


@pytest.mark.parametrize(
    ("text", "tasks", "stray"),
    [
        ("1. Do it\n2) Do that\n3、做这个", ["Do it", "Do that", "做这个"], 0),
        ("Sure!\n\n1. Do\nand do\n\n2. Go", ["Do\nand do", "Go"], 1),
        ("", [], 0),
        ("1.\n2. ", [], 2),
    ],
)
def test_tasks_of_a_list(text: str, tasks: list[str], stray: int) -> None:
    assert tasks_in(text) == (tasks, stray)
