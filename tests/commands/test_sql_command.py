"""myna sql: query, rows, words; what is asked can be seen before, is in the trace after, and can be said again from it."""

import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pytest

from myna.commands import app
from myna.provider.budget import BudgetExceeded
from myna.records import MynaError, SqlError
from myna.trace import Trace
from myna.trace.read import runs

SQL = "SELECT country, count(*) AS n FROM singer GROUP BY country ORDER BY n DESC"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "t.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect("songs.sqlite")) as db:
        db.executescript(
            "CREATE TABLE singer (name TEXT, country TEXT);"
            "INSERT INTO singer VALUES ('Ann', 'France'), ('Bo', 'France'), ('李白', '中国');"
        )
    Path("s.jsonl").write_text(
        json.dumps(SQL) + "\n" + json.dumps("法国有 2 位，中国有 7 位。") + "\n", encoding="utf-8"
    )
    return tmp_path


def myna(*words: object) -> None:
    app([str(word) for word in words], result_action="return_value")


def test_a_question_gives_query_rows_and_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("sql", "songs.sqlite", "每个国家有多少歌手？", "--model", "script:s.jsonl")
    out = capsys.readouterr().out
    assert f"{SQL.replace('count(', 'COUNT(')} LIMIT 1001\n" in out  # on one line, however narrow
    assert "中国" in out
    assert "法国有 2 位，中国有 7[?] 位。" in out
    (run,) = runs(Trace(here / "t.sqlite").store)
    assert (run.kind, run.name, len(run.below)) == ("sql", "每个国家有多少歌手？", 2)


def test_a_first_try_is_shown_as_it_was_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["SELECT nam,\n    [b]x\x1b[31m\nFROM singer", "SELECT name FROM singer", "Ann |\nBo\x1b[J"]
    Path("s.jsonl").write_text("".join(json.dumps(one) + "\n" for one in said))
    myna("sql", "songs.sqlite", "Who?", "--model", "script:s.jsonl")
    out = capsys.readouterr().out
    assert "first try:\n  SELECT nam,\n      [b]x\\x1b[31m\n  FROM singer\n  " in out
    assert "\nAnn |\nBo\\x1b[J\n" in out


def test_a_recorded_question_is_answered_again_without_a_network(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    myna("sql", "songs.sqlite", "每个国家有多少歌手？", "--model", "script:s.jsonl", "--json")
    first = json.loads(capsys.readouterr().out)
    Path("s.jsonl").unlink()

    def refused(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    (run,) = runs(Trace(here / "t.sqlite").store)
    myna("sql", "songs.sqlite", "每个国家有多少歌手？", "--model", f"replay:t.sqlite#{run.id}", "--json")
    assert json.loads(capsys.readouterr().out) == first
    assert first["rows"] == [["France", 2], ["中国", 1]]


def test_what_would_be_asked_is_shown_and_nothing_is_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("sql", "songs.sqlite", "Who sings?", "--model", "script:none.jsonl", "--show")
    out = capsys.readouterr().out
    assert "TABLE singer" in out
    assert out.rstrip().endswith("Who sings?")
    assert not Path("t.sqlite").exists()


def test_a_chart_is_drawn_as_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("sql", "songs.sqlite", "How many?", "--model", "script:s.jsonl", "--chart", "c.json")
    drawn = json.loads(Path("c.json").read_text(encoding="utf-8"))
    assert [list(row.values()) for row in drawn["data"]["values"]] == [["France", 2], ["中国", 1]]
    assert "c.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("--rows", "0"),
        ("--rows", "0", "--show"),
        ("--timeout", "nan"),
        ("--calls", "0"),
        ("--seconds", "nan"),
        ("--chart", "c.txt"),
        ("--chart", "none/c.json"),
        ("--chart", "."),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(here: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(MynaError):
        myna("sql", "songs.sqlite", "How many?", "--model", "script:s.jsonl", *words)
    assert not Path("t.sqlite").exists()


@pytest.mark.parametrize("question", ["", " ", "几" * 120_000])
def test_what_is_no_question_is_refused_before_a_model_is_loaded(here: Path, question: str) -> None:
    with pytest.raises(SqlError, match="question"):
        myna("sql", "songs.sqlite", question, "--model", "no such model")


def test_a_budget_is_kept_and_the_rows_are_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("sql", "songs.sqlite", "How many?", "--model", "script:s.jsonl", "--calls", "1")
    out = capsys.readouterr().out
    assert "中国" in out
    assert "note: not put into words: calls: 0 left" in out
    (run,) = runs(Trace(here / "t.sqlite").store)
    assert len(run.below) == 1
    for limit in ("--tokens", "--cost"):
        with pytest.raises(BudgetExceeded):
            myna("sql", "songs.sqlite", "How many?", "--model", "script:s.jsonl", limit, "1")


def test_all_that_answers_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    myna("sql", "--help")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for word in ("replay:TRACE#RUN", "--calls", "--tokens", "--cost", "--seconds"):
        assert word in said
