"""What is kept passed its check, twice; nobody's copy, nobody's evaluation row; and an interruption changes nothing."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from test_run import base, files, words  # noqa: F401  (fixtures)

from myna.checks import Verdict, named
from myna.data.sources import Place, Sourced
from myna.provider import Scripted
from myna.provider.local import Loading, load
from myna.records import Candidate, Conversation, DataError, Message, Unjudged, jsonl
from myna.train import reject
from myna.train.reject import Draw, Kept, sample, verify


def sums(count: int) -> list[Sourced[Conversation]]:
    """With an answer each, which is not to be shown."""
    rows = (Conversation.of(("user", f"{n}+1?"), ("assistant", "?"), target=str(n + 1)) for n in range(count))
    return [Sourced(Place("sums.jsonl", n + 1), row) for n, row in enumerate(rows)]


def answering(*offsets: int) -> Scripted:
    """The candidates of a request are off by so much, in turn."""
    turns = count()

    def turn(what: Any) -> str:
        return f"{int(what.messages[-1].text[:-3]) + 1 + offsets[next(turns) % len(offsets)]}"

    return Scripted(turn for _ in count())


def gather(provider: Scripted, out: Path, prompts: Sequence[Sourced[Conversation]] | None = None, **more: Any) -> Kept:
    evals = more.pop("evals", ())
    draw = Draw(**{"check": "number", "n": 2} | more)
    return asyncio.run(sample(provider, sums(5) if prompts is None else prompts, out, draw, evals=evals))


def test_what_passes_is_kept_and_passes_again(tmp_path: Path) -> None:
    out = tmp_path / "kept.jsonl"
    found = gather(answering(5, 0), out)
    assert (found.prompts, found.answers, found.right, found.solved, found.kept) == (5, 10, 5, 5, 5)
    rows = [*jsonl.read(out, Conversation)]
    assert [row.messages[-1].text for row in rows] == ["1", "2", "3", "4", "5"]
    assert [[m.role for m in row.messages] for row in rows] == [["user", "assistant"]] * 5
    assert verify(out, "number") == []
    assert rows[2].meta["sampled"] == {"model": "scripted", "seed": 2, "drawn": 2, "right": 1}
    assert not [*tmp_path.glob("*.journal")]


def test_prompts_are_asked_without_the_answer_they_have_and_each_with_a_seed_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reject, "AT_ONCE", 2)
    provider = answering(0)
    gather(provider, tmp_path / "out", seed=2)
    assert all([m.role for m in seen.what.messages] == ["user"] for seen in provider.requests)  # type: ignore[union-attr]
    assert [seen.sampling.seed for seen in provider.requests] == [2_000_006 + n for n in range(5)]


def test_the_best_is_one_and_all_are_those_that_differ(tmp_path: Path) -> None:
    def gathered(keep: str) -> tuple[Kept, list[str]]:
        provider = Scripted(["It is 1.", "1", "1", "2"])
        found = gather(provider, tmp_path / keep, sums(1), n=4, keep=keep)
        return found, [row.messages[-1].text for row in jsonl.read(tmp_path / keep, Conversation)]

    found, texts = gathered("best")
    assert texts == ["It is 1."]
    found, texts = gathered("all")
    assert texts == ["It is 1.", "1"]
    assert (found.right, found.duplicates, found.kept) == (3, 1, 2)


def test_the_tokens_of_an_answer_go_with_it_and_a_cut_answer_is_not_kept(tmp_path: Path) -> None:
    cut = Candidate((Message("assistant", "1"),), finish_reason="length")
    found = gather(Scripted([cut, "1 it is"]), tmp_path / "out", sums(1))
    assert (found.cut, found.right, found.kept) == (1, 2, 1)
    assert [row.messages[-1].text for row in jsonl.read(tmp_path / "out", Conversation)] == ["1 it is"]


def test_prompts_of_evaluation_rows_are_not_asked(tmp_path: Path) -> None:
    held = [Sourced(Place("eval.jsonl", 1), replace(sums(5)[3].value, messages=sums(5)[3].value.messages[:1]))]
    provider = answering(0)
    found = gather(provider, tmp_path / "out", evals=held)
    assert (found.prompts, found.held_out) == (4, 1)
    assert not any(seen.what.messages[0].text == "3+1?" for seen in provider.requests)  # type: ignore[union-attr]
    with pytest.raises(DataError, match="but those of evaluation rows"):
        gather(provider, tmp_path / "none", evals=sums(5))


def test_interrupted_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reject, "AT_ONCE", 2)
    gather(answering(5, 0), tmp_path / "whole")
    failing = Scripted(["9", "1", "9", "2", RuntimeError("the lights went out")])
    with pytest.raises(RuntimeError):
        gather(failing, tmp_path / "cut")
    journal = tmp_path / "cut.journal"
    journal.write_bytes(journal.read_bytes() + b'{"messages": [')  # and a line was cut
    again = answering(5, 0)
    gather(again, tmp_path / "cut")
    assert len(again.requests) == 3
    texts = [[row.messages for row in jsonl.read(tmp_path / name, Conversation)] for name in ("whole", "cut")]
    assert texts[0] == texts[1]


def test_a_journal_of_other_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        gather(Scripted([RuntimeError()]), tmp_path / "out")
    with pytest.raises(DataError, match="another n, temperature"):
        gather(answering(0), tmp_path / "out", n=3, temperature=0.5)
    with pytest.raises(DataError, match="another prompts"):
        gather(answering(0), tmp_path / "out", sums(4))


def test_a_prompt_that_cannot_be_judged_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    provider = answering(0)
    rows = [Sourced(place, replace(row, target=None)) for place, row in sums(1)]
    with pytest.raises(DataError, match="no target"):
        gather(provider, tmp_path / "out", rows)
    with pytest.raises(DataError, match="no prompts"):
        gather(provider, tmp_path / "out", [])
    assert not provider.requests


def test_a_check_that_changes_its_mind_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it says yes to all; the fresh process has the true one."""
    lenient: Callable[[Any, Any], Verdict] = lambda conversation, candidate: Verdict.of(True)  # noqa: E731
    monkeypatch.setattr(reject, "named", lambda name: lenient)
    assert named("number") is not lenient
    with pytest.raises(DataError, match="passed 5 answers when they were drawn"):
        gather(answering(7), tmp_path / "out", n=1)
    assert not (tmp_path / "out").exists()


def test_an_answer_without_a_verdict_is_counted_and_is_neither_right_nor_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def shy(conversation: Conversation, candidate: Candidate) -> Verdict:
        if candidate.text == "99":
            raise Unjudged("the judge said nothing")
        return named("number")(conversation, candidate)  # type: ignore[return-value]

    monkeypatch.setattr(reject, "named", lambda name: shy)
    found = gather(Scripted(["99", "1", "7", "99"]), tmp_path / "out", sums(1), n=4)
    assert (found.answers, found.right, found.unjudged, found.kept) == (4, 1, 2, 1)
    assert found.to_json()["pass@1"] == 0.5


def test_our_own_engine_gives_the_tokens_and_a_row_carries_them(
    base: Path,  # noqa: F811
) -> None:
    provider = load(str(base / "model"), Loading(kv_gb=0.1))
    draw, prompt = Draw(check="contains", n=3, max_tokens=5, seed=1), Conversation.ask("a", target="e")
    first, again = (asyncio.run(reject._draw(provider, draw, prompt, 4)) for _ in range(2))
    provider.close()
    assert [c.tokens for c in first] == [c.tokens for c in again]
    judged = asyncio.run(reject._judged(named(draw.check), prompt, first))
    for candidate in judged.candidates:
        row = reject._row(judged, candidate, {})
        tokens = row.messages[-1].tokens
        assert tokens
        assert len(tokens.ids) == len(tokens.logprobs or ()) == 5
        assert Conversation.from_json(row.to_json()) == row
