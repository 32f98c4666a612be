"""myna ask: an answer with the documents' own words, before, during and after."""

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from myna.apps.answers import Answer, Turn
from myna.commands import app
from myna.commands.ask import Desk, shown_as_it_comes
from myna.provider.budget import BudgetExceeded
from myna.records import DataError, RequestError
from myna.trace import Trace
from myna.trace.read import runs, tree


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "t.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()
    Path("docs/茶.md").write_text(
        "# 龙井茶\n\n龙井茶产于浙江杭州西湖一带。明前茶每斤约需40000个芽头。\n", encoding="utf-8"
    )
    os.utime("docs/茶.md", (0, 1709632800))  # 5 March 2024
    myna("index", "add", "docs")
    said = ["明前茶每斤约需40000个芽头。[1]龙井茶有2000种。[1][7]", "龙井茶产于哪里？", "龙井茶产于杭州。[1]"]
    Path("s.jsonl").write_text("\n".join(json.dumps(one) for one in said), encoding="utf-8")
    return tmp_path


def myna(*words: object) -> None:
    app([str(word) for word in words], result_action="return_value")


def test_an_answer_its_sources_and_what_nobody_should_rely_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    myna("ask", "明前茶每斤要多少芽头，产于哪里？", "--model", "script:s.jsonl")
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "明前茶每斤约需40000个芽头。[1] 龙井茶有2000种。[1][—]"
    assert "茶.md, file of 2024-03-05 (龙井茶): 明前茶每斤约需40000个芽头。" in out
    assert "[—] 龙井茶有2000种。: not in the passage" in out
    assert "citations of nothing, taken out: 7" in out
    (run,) = runs(Trace(here / "t.sqlite").store)
    assert (run.kind, run.facts["way"], run.checks[0].ok, run.checks[0].score) == ("ask", "retrieve", False, 0.5)


def test_a_conversation_understands_follow_ups(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("明前茶每斤要多少芽头？\n它产于哪里？\n"))
    myna("ask", "-i", "--model", "script:s.jsonl", "--enough", "0")
    out = capsys.readouterr().out
    assert "understood as: 龙井茶产于哪里？" in out
    assert "龙井茶产于杭州。[1]" in out


def test_nothing_is_shown_that_would_not_be_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["-k", 0], ["-k", 50], ["--room", -5], ["--rewrites", 99], ["--enough", 5], ["--enough", "nan"]):
        with pytest.raises(RequestError):
            myna("ask", "龙井茶产于哪里？", "--explain", *words)
    with pytest.raises(RequestError):
        myna("ask", "-i", "--explain")
    capsys.readouterr()
    myna("ask", "Who built the Ardal bridge?", "--explain")
    out = capsys.readouterr().out
    assert "nothing would be asked" in out
    assert "[system]" not in out


def test_an_empty_question_is_no_conversation(here: Path) -> None:
    with pytest.raises(RequestError, match="the question is empty"):
        myna("ask", "", "--model", "script:s.jsonl")


def test_what_would_be_asked_is_shown_and_nothing_is_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("ask", "明前茶每斤要多少芽头？", "--explain", "--model", "script:none.jsonl")
    out = capsys.readouterr().out
    assert "<untrusted" in out
    assert out.rstrip().endswith("Question: 明前茶每斤要多少芽头？")
    assert not (here / "t.sqlite").exists()
    myna("ask", "你好", "--explain")
    assert "nothing is searched for" in capsys.readouterr().out


def test_programs_get_json_with_places(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    myna("ask", "明前茶每斤要多少芽头？", "--model", "script:s.jsonl", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["decision"]["way"] == "retrieve"
    assert found["sources"][0]["end"] - found["sources"][0]["start"] == len(found["sources"][0]["text"])


def test_no_index_and_no_question_say_what_to_do(here: Path) -> None:
    with pytest.raises(DataError, match="myna index add"):
        myna("ask", "?", "--index", "none.sqlite")
    with pytest.raises(RequestError, match="-i"):
        myna("ask")


def test_in_a_conversation_what_goes_wrong_ends_one_answer_and_not_all(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = ["x" * 9000, "明前茶每斤要多少芽头？", "龙井茶产于哪里？", "它产于哪里？", ""]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(questions)))
    interrupted = iter([KeyboardInterrupt])
    ask = Desk.ask

    def once(desk: Desk, question: str, before: Sequence[Turn] = ()) -> Answer:
        if question == "龙井茶产于哪里？" and (stop := next(interrupted, None)):
            raise stop
        return ask(desk, question, before)

    monkeypatch.setattr(Desk, "ask", once)
    myna("ask", "-i", "--model", "script:s.jsonl", "--enough", "0")
    said = capsys.readouterr()
    assert "8000 characters" in said.err
    assert "stopped" in said.err
    assert "明前茶每斤约需40000个芽头。[1]" in said.out
    assert "龙井茶产于杭州。[1]" in said.out


def test_on_a_terminal_the_words_are_seen_as_they_come_and_control_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", screen)
    with shown_as_it_comes() as tell:
        assert tell is not None
        tell("龙井茶 [bold]")
        tell("\x1b]0;title\x07")
    assert "龙井茶 [bold]" in screen.getvalue()
    assert "\\x1b]0;title\\x07" in screen.getvalue()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with shown_as_it_comes() as tell:
        assert tell is None


@pytest.mark.parametrize(("flag", "amount"), [("--seconds", "nan"), ("--seconds", "-1"), ("--cost", "-0.1"), ("--tokens", "0"), ("--calls", "-3"), ("--seconds", "inf")])  # fmt: skip
def test_what_is_no_amount_is_refused_before_a_model_is_loaded(here: Path, flag: str, amount: str) -> None:
    with pytest.raises(RequestError, match=flag.removeprefix("--")):
        myna("ask", "龙井茶产于哪里？", "--model", "script:none.jsonl", f"{flag}={amount}")


def test_a_budget_ends_an_answer_and_says_what_was_spent(here: Path) -> None:
    with pytest.raises(BudgetExceeded, match=r"calls: 0 left, and 1 may be needed; spent: 1 call, \d+ tokens"):
        myna("ask", "明前茶每斤要多少芽头？", "--rewrites", 2, "--calls", 1, "--model", "script:s.jsonl")
    with pytest.raises(
        BudgetExceeded, match=r"tokens: 30 left, and [\d,]+ may be needed; spent: (nothing|[\d.]+ seconds)"
    ):
        myna("ask", "明前茶每斤要多少芽头？", "--tokens", 30, "--model", "script:s.jsonl")


def test_rounds_are_told_and_counted_into_what_may_be_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("docs/商号.md").write_text("永泰行在杭州卖龙井茶。\n", encoding="utf-8")
    Path("docs/住址.md").write_text("永泰行设在清河坊。\n", encoding="utf-8")
    myna("index", "add", "docs")
    said = ["卖茶的商号", "SEARCH: 永泰行设在哪里？", "SEARCH: 永泰行设在哪里？", "永泰行设在清河坊。[2]"]
    Path("r.jsonl").write_text("\n".join(json.dumps(one) for one in said), encoding="utf-8")
    capsys.readouterr()
    ask = ("ask", "在杭州卖龙井茶的商号设在哪里？", "-k", 1, "--rewrites", 1, "--rounds", 2)
    myna(*ask, "--model", "script:r.jsonl")
    out = capsys.readouterr().out
    assert "round 1: searched for '永泰行设在哪里？': " in out
    assert "round 2: searched for '永泰行设在哪里？': 0 new passages; that was searched for already" in out
    (run, *_) = runs(Trace(here / "t.sqlite").store)
    assert [one.kind for one in tree(Trace(here / "t.sqlite").store, run.id).spans].count("round") == 2
    myna(*ask, "--explain")
    assert "before that at most 3 calls" in capsys.readouterr().out
    with pytest.raises(BudgetExceeded):
        myna(*ask, "--calls", 1, "--model", "script:r.jsonl")
