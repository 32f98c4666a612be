"""myna trace: what was recorded, for people and for programs."""

import asyncio
import json
from pathlib import Path

import pytest

from myna.commands import app
from myna.commands.trace import opened
from myna.provider import Provider, Scripted, complete
from myna.provider.traced import Traced
from myna.records import Conversation, DataError, Message, RequestError, Sampling, jsonl
from myna.trace import Trace


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run (1) of two steps (2, 4) with a call each (3, 5)."""
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "t.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    trace = Trace(tmp_path / "t.sqlite")
    provider = Traced(Scripted(["晴", "雨", "\x1b[31m好"]), trace)
    with trace.span("flow", "[bold]天气[/]"):
        with trace.span("step", "ask") as step:
            talk(provider, Sampling(n=2))
            step.check("length", False, 0.0, "too short")
        with trace.span("step", "answer"):
            talk(provider)
    return tmp_path / "t.sqlite"


def talk(provider: Provider, sampling: Sampling = Sampling()) -> None:
    asyncio.run(complete(provider, Conversation.of(("system", "一句话"), ("user", "天气?")), sampling))


def myna(*words: object) -> None:
    app([str(word) for word in words], result_action="return_value")


def test_runs_are_listed_with_what_they_took(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "myna").mkdir()
    (file.parent / "myna/prices.yaml").write_text(
        "currency: 元\nprices: [{model: scripted, input: 1000000, output: 0}]\n"
    )
    talk(Traced(Scripted(["x"]), opened(None)))
    myna("trace", "list")
    _, newest, first = capsys.readouterr().out.splitlines()
    assert "call scripted" in newest
    assert "flow [bold]天气[/]" in first
    assert first.split()[-3] == "2"
    assert first.split()[-1] == "?"
    assert newest.split()[-2:] == ["2.0000", "元"]


def test_a_call_is_shown_exactly_and_moves_no_cursor(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("trace", "show", 5)
    out = capsys.readouterr().out
    assert "[system]\n一句话\n[user]\n天气?\n[answer, stop]\n\\x1b[31m好\n" in out
    myna("trace", "show", 1)
    out = capsys.readouterr().out
    assert "check length: FAILED 0 too short" in out
    assert "step ask: 0 of 1 passed" in out
    myna("trace", "show", 1, "--json")
    shown = json.loads(capsys.readouterr().out)
    call = shown["below"][0]["below"][0]["call"]
    assert [one["messages"][0]["content"] for one in call["answers"]] == ["晴", "雨"]
    assert call["asked"]["messages"][1] == {"role": "user", "content": "天气?"}
    assert call["sampling"] == {"n": 2}


def test_a_run_is_asked_again_of_another_model(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = file.parent / "other.jsonl"
    script.write_text('"晴"\n"雨"\n"阴"\n', encoding="utf-8")
    myna("trace", "replay", 1, "--model", f"script:{script}")
    out = capsys.readouterr().out
    assert "- \\x1b[31m好\n+ 阴" in out
    assert "1 of 2 answers are the same" in out
    myna("trace", "replay", 1, "--model", f"replay:{file}#1")
    assert "2 of 2 answers are the same" in capsys.readouterr().out


def test_only_what_came_with_consent_is_exported(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.parent / "rows.jsonl"
    myna("trace", "feedback", 5, "thumb", "down")
    myna("trace", "export", "--out", out)
    assert [*jsonl.read(out, Conversation)] == []
    myna("trace", "feedback", 3, "choice", "1", "--consent")
    myna("trace", "export", "--out", out)
    (row,) = jsonl.read(out, Conversation)
    assert row.messages[-1].text == "雨"
    assert row.meta == {"run": 1, "span": 3, "model": "scripted"}
    myna("trace", "feedback", 2, "edit", "改", "--consent")  # a span above: its calls may be used, their answers stand
    myna("trace", "feedback", 3, "edit", "改", "--consent")
    myna("trace", "export", "--out", out, "--preferences")
    (row,) = jsonl.read(out, Conversation)
    assert [(one.text, one.score) for one in row.candidates] == [("晴", 0.0), ("雨", 0.0), ("改", 1.0)]
    assert row.messages[-1] == Message("user", "天气?")
    myna("trace", "export", "--out", out, "--everything")
    assert len([*jsonl.read(out, Conversation)]) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 of 2 calls")


@pytest.mark.parametrize(
    "words",
    [
        ("show", 99),
        ("replay", 2000),
        ("export", 99, "--out", "x"),
        ("feedback", 5, "thumb", "sideways"),
        ("feedback", 5, "choice", "best"),
    ],
)
def test_what_is_not_there_is_said(file: Path, words: tuple[object, ...]) -> None:
    with pytest.raises(RequestError):
        myna("trace", *words)
    with pytest.raises(DataError, match="no trace file"):
        myna("trace", "list", "--trace", file.parent / "none.sqlite")
    assert not (file.parent / "none.sqlite").exists()
