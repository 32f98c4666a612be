"""myna doubt: what is asked, what is said of it, and the exit status a script can act on."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from myna.commands import app
from myna.records import DataError, RequestError
from myna.records.lock import locked
from myna.trace import Trace
from myna.trace.read import runs


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "t.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def myna(*words: object) -> None:
    app([str(word) for word in words], result_action="return_value")


def script(*lines: str) -> str:
    Path("s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return "script:s.jsonl"


def test_the_answers_their_agreement_and_the_trace(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("doubt", "ask", "首都？", "--samples", 3, "--model", script("堪培拉", "悉尼\x1b[31m", "堪培拉。"))
    out = capsys.readouterr().out
    assert "2 of 3: 堪培拉" in out
    assert "悉尼\\x1b[31m" in out
    assert "agreement 0.667" in out
    (run,) = runs(Trace("t.sqlite").store)
    assert (run.kind, run.name) == ("doubt", "ask 首都？")


def test_a_threshold_made_from_measured_rows_holds_an_answer_back(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"问{i}?", "answers": ["是" if i % 4 else "yes"]} for i in range(120)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [one for i in range(120) for one in (("是", "是", "是") if i % 4 else ("a", "b", "c"))]
    myna("doubt", "measure", "q.jsonl", "rows.jsonl", "--samples", 3, "--model", script(*said))
    assert "90 of 120 right" in capsys.readouterr().out
    myna("doubt", "fit", "rows.jsonl", "--risk", 0.1, "--out", "t.json", "--plot", "c.json")
    out = capsys.readouterr().out
    assert "agreement  AUROC 1.000" in out
    assert "always     0.250 wrong" in out
    assert "90 of 120, 0 wrong" in out
    assert json.loads(Path("c.json").read_text())["layer"]
    with pytest.raises(SystemExit) as stopped:
        myna("doubt", "ask", "?", "--samples", 3, "--threshold", "t.json", "--model", script("a", "b", "c"))
    assert stopped.value.code == 1
    assert "no answer: agreement is not above" in capsys.readouterr().out
    myna("doubt", "ask", "?", "--samples", 3, "--threshold", "t.json", "--model", script("a", "a", "a"))
    assert "answer: a  (wrong at most" in capsys.readouterr().out


def test_measuring_goes_on_where_it_stopped(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("q.jsonl").write_text('{"question": "a?", "answers": ["a"]}\n{"question": "b?", "answers": ["b"]}\n')
    with pytest.raises(Exception, match="run out"):
        myna("doubt", "measure", "q.jsonl", "r.jsonl", "--samples", 1, "--model", script("a"))
    myna("doubt", "measure", "q.jsonl", "r.jsonl", "--samples", 1, "--model", script("b"))
    assert "2 of 2 right" in capsys.readouterr().out
    Path("q.jsonl").write_text('{"question": "other?", "answers": ["a"]}\n')
    with pytest.raises(DataError, match="other questions"):
        myna("doubt", "measure", "q.jsonl", "r.jsonl", "--samples", 1, "--model", script("b"))


def test_no_answer_is_a_wrong_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("q.jsonl").write_text('{"question": "a?", "answers": ["a"]}\n')
    myna("doubt", "measure", "q.jsonl", "r.jsonl", "--samples", 2, "--model", script("", ""))
    assert "0 of 1 right" in capsys.readouterr().out
    assert json.loads(Path("r.jsonl").read_text())["outcomes"] == {"empty": 2}


@pytest.mark.parametrize("half", ['{"question":"b?","answers":["b"],"ri', '{"que', '{"question":"b?","answers":["b"]}'])
def test_a_measurement_that_was_killed_in_the_middle_of_a_row_goes_on(
    here: Path, half: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("q.jsonl").write_text('{"question": "a?", "answers": ["a"]}\n{"question": "b?", "answers": ["b"]}\n')
    whole = '{"question":"a?","answers":["a"],"right":true}\n'
    Path("r.jsonl").write_text(whole + half)
    myna("doubt", "measure", "q.jsonl", "r.jsonl", "--samples", 1, "--model", script("b"))
    assert " of 2 right" in capsys.readouterr().out
    assert Path("r.jsonl").read_text().startswith(whole)
    assert len(Path("r.jsonl").read_text().splitlines()) == 2


def test_a_measurement_touches_no_other_file_and_is_one_at_a_time(here: Path) -> None:
    Path("q.jsonl").write_text('{"question": "a?", "answers": ["a"]}\n')
    Path("notes.txt").write_text("Buy milk")
    with pytest.raises(DataError, match=r"notes\.txt:1"):
        myna("doubt", "measure", "q.jsonl", "notes.txt", "--model", script("a"))
    assert Path("notes.txt").read_text() == "Buy milk"
    with locked(Path("r.jsonl.lock"), "", DataError), pytest.raises(DataError, match="running in another process"):
        myna("doubt", "measure", "q.jsonl", "r.jsonl", "--samples", 1, "--model", script("a"))


def test_a_measurement_that_cannot_be_kept_names_its_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, mode: str = "r", *more: Any, **how: Any) -> Any:
        if mode == "ab":
            raise OSError(errno.ENOSPC, "No space left on device")
        return open(path, mode, *more, **how)

    Path("q.jsonl").write_text('{"question": "a?", "answers": ["a"]}\n')
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=r"r\.jsonl cannot be written: No space left"):
        myna("doubt", "measure", "q.jsonl", "r.jsonl", "--samples", 1, "--model", script("a"))


def test_a_fit_does_not_write_over_its_rows(here: Path) -> None:
    Path("r.jsonl").write_text('{"question": "a?", "answers": ["a"]}\n')
    for flag in ("--out", "--plot"):
        with pytest.raises(RequestError, match="holds the rows"):
            myna("doubt", "fit", "r.jsonl", "--risk", 0.1, flag, "./r.jsonl")


def test_too_few_rows_are_refused_and_the_curve_is_drawn_all_the_same(here: Path) -> None:
    row = {"question": "?", "answers": ["a"], "right": True, "confidence": {"agreement": 1.0}}
    Path("r.jsonl").write_text((json.dumps(row) + "\n") * 20)
    with pytest.raises(DataError, match="at least 51"):
        myna("doubt", "fit", "r.jsonl", "--risk", 0.1, "--plot", "c.json")
    assert Path("c.json").exists()


@pytest.mark.parametrize("line", ["{}", "[]", '{"question": "a"}', '{"question": "a", "answers": [1]}', "nonsense"])
def test_bad_rows_are_named_by_line(here: Path, line: str) -> None:
    Path("r.jsonl").write_text('{"question": "a", "answers": ["b"]}\n' + line + "\n")
    with pytest.raises(DataError, match=r"r\.jsonl:2"):
        myna("doubt", "fit", "r.jsonl", "--risk", 0.1)


def test_quotes_claims_and_verification_are_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("e.txt").write_text("黑豹队只丢了308分。", encoding="utf-8")
    Path("text.txt").write_text("丢了308分。", encoding="utf-8")
    said = "Quote: 只丢了308分\nAnswer: 308分"
    myna("doubt", "quote", "多少分？", "--evidence", "e.txt", "--model", script(said))
    assert capsys.readouterr().out == "e.txt:3-10: 只丢了308分\nanswer: 308分\n"
    myna("doubt", "claims", "text.txt", "--evidence", "e.txt", "--model", script("Quote: 丢了308分\nAnswer: supported"))
    assert capsys.readouterr().out.startswith("supported    丢了308分。\n")
    myna("doubt", "verify", "多少分？", "--model", script("307", "丢了多少分？", "308", "308"))
    assert capsys.readouterr().out == "draft: 307\n  丢了多少分？  308\nanswer (changed, 4 calls): 308\n"


def test_what_has_no_evidence_ends_with_status_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("e.txt").write_text("黑豹队只丢了308分。", encoding="utf-8")
    for words in (("quote", "谁？"), ("claims", "e.txt")):
        with pytest.raises(SystemExit) as stopped:
            myna("doubt", *words, "--evidence", "e.txt", "--model", script("Quote: NONE"))
        assert stopped.value.code == 1
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        myna("doubt", "verify", "谁？", "--model", script(""))
    assert (stopped.value.code, capsys.readouterr().out) == (1, "no answer: the model said nothing\n")
    with pytest.raises(DataError, match=r"there is no file none\.txt; `ls \.`"):
        myna("doubt", "quote", "?", "--evidence", "none.txt", "--model", script("x"))
