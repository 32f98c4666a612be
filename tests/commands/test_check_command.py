"""myna check: rows scored, personal data masked, people asked and answered, judges compared with people."""

import io
import json
from pathlib import Path

import pytest

from myna.checks.judge import Judge, Label
from myna.commands import app
from myna.records import Candidate, Conversation, DataError, ProviderError, RequestError
from myna.trace import Trace
from myna.trace.export import pairs
from myna.trace.read import runs


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "t.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    rows = [
        ("2+2?", "4", {"target": "4", "label": "pass"}),
        ("几点?", "写信给a@example.com", {"target": "5", "label": "fail"}),
    ]
    lines = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}], **more}
        for q, a, more in rows
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def myna(*words: object) -> None:
    app([str(word) for word in words], result_action="return_value")


def script(*lines: object) -> str:
    Path("s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return "script:s.jsonl"


def test_rows_are_scored_and_those_that_fail_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as e:
        myna("check", "rows.jsonl", "--with", "pii", "--with", "length: {most: 99}")
    assert e.value.code == 1
    out = capsys.readouterr().out
    assert "rows.jsonl:2: pii: 1 email" in out
    assert "rows.jsonl:1" not in out
    assert [line.split()[:3] for line in out.splitlines()[1:3]] == [["pii", "1", "2"], ["length", "2", "2"]]
    myna("check", "rows.jsonl", "--with", "length: {most: 99}")


def test_a_row_without_a_verdict_is_in_no_mean(capsys: pytest.CaptureFixture[str]) -> None:
    judge = "judge: {rubric: 'Is it right?'}"
    with pytest.raises(SystemExit):
        myna("check", "rows.jsonl", "--with", judge, "--model", script("pass", "hm"), "--at-once", 1)
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["judge", "1", "1", "1.000", "1"]
    with pytest.raises(SystemExit):
        myna("check", "rows.jsonl", "--with", judge, "--model", script("pass", "hm"), "--at-once", 1, "--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["ok"]
    assert "score" not in rows[1]
    assert "'hm'" in rows[1]["unjudged"]


def test_what_is_wrong_with_a_check_is_said_before_the_rows_are_read() -> None:
    for text, error in (("lenght: {most: 1}", "Did you mean length"), ("{", "--with"), ("sql", "needs a guard")):
        with pytest.raises((DataError, RequestError), match=error):
            myna("check", "rows.jsonl", "--with", text)


def test_a_mask_is_reversible_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    myna("check", "mask", "a@example.com, 13812345678", "--values", "v.json")
    myna("check", "mask", "b@example.com, a@example.com", "--values", "v.json", "--kinds", "email")
    assert capsys.readouterr().out == "<EMAIL_1>, <PHONE_1>\n<EMAIL_2>, <EMAIL_1>\n"
    assert json.loads(Path("v.json").read_text())["<EMAIL_2>"] == "b@example.com"
    assert Path("v.json").stat().st_mode & 0o77 == 0
    with pytest.raises(RequestError, match="no kind"):
        myna("check", "mask", "x", "--kinds", "emial")


PROMPT = """---
checks: [{length: {most: 4, otherwise: escalate}}]
---
天气?
"""


def test_a_person_edits_what_waits_and_the_edit_becomes_a_preference(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from myna.checks.guard import Refused

    Path("p.md").write_text(PROMPT, encoding="utf-8")
    model = script("今天是大晴天", "今天是大晴天")
    with pytest.raises(Refused, match="review 1 waits for a person: myna check review 1"):
        myna("prompt", "run", "p.md", "--model", model)
    myna("check", "reviews")
    assert "[1] length: 6 characters, at most 4\n今天是大晴天\n1 wait" in capsys.readouterr().out
    myna("check", "review", 1)
    assert "[user]\n天气?\n[the answer]\n今天是大晴天" in capsys.readouterr().out
    myna("check", "review", 1, "edit", "晴天", "--consent")
    assert "review 1: edit; feedback on span 3 with consent" in capsys.readouterr().out
    myna("prompt", "run", "p.md", "--model", model)
    assert capsys.readouterr().out == "晴天\n"
    trace = Trace(here / "t.sqlite")
    (row,) = pairs(trace.store, runs(trace.store))
    assert [(one.text, one.score) for one in row.candidates] == [("今天是大晴天", 0), ("晴天", 1)]


def test_a_judge_is_compared_with_people_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    judge = "judge: {rubric: 'Is it right?'}"
    myna("check", "calibrate", "rows.jsonl", "--with", judge, "--model", script("pass", "pass"))
    assert (
        "scripted agrees with people on 50% of 2 rows, kappa 0.00; no verdict about 0 more"
        in capsys.readouterr().out.replace("\n", " ").replace("script:s.jsonl", "scripted")
    )
    myna("check", "rows.jsonl", "--with", judge, "--model", script("pass", "pass"), "--json")
    assert "agrees with people on 50% of 2 rows" in json.loads(capsys.readouterr().out.splitlines()[0])["reason"]
    with pytest.raises(DataError, match="label: 'pass' is none"):
        myna("check", "calibrate", "rows.jsonl", "--with", "judge: {rubric: x, labels: [a, b]}", "--model", script("a"))


def test_a_judge_whose_endpoint_fails_at_a_row_is_compared_on_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def label(judge: Judge, conversation: Conversation, candidate: Candidate) -> Label:
        if next(turns) == 0:
            raise ProviderError("worker died", status=500)
        return Label(1)

    monkeypatch.setattr(Judge, "label", label)
    judge = "judge: {rubric: 'Is it quick?'}"
    turns = iter([0, 1])
    myna("check", "calibrate", "rows.jsonl", "--with", judge, "--model", script("x"))
    assert "1 rows" in (said := capsys.readouterr().out.replace("\n", " "))
    assert "no verdict about 1 more" in said
    turns = iter([0, 0])
    with pytest.raises(ProviderError, match="worker died"):
        myna("check", "calibrate", "rows.jsonl", "--with", judge, "--model", script("x"))


def test_a_text_comes_through_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("call 13812345678"))
    myna("check", "mask", "-")
    assert capsys.readouterr().out == "call <PHONE_1>\n"


def test_reviews_are_not_made_by_looking_into_them() -> None:
    with pytest.raises(DataError, match=r"there is no file none\.sqlite"):
        myna("check", "reviews", "--reviews", "none.sqlite")
    assert not Path("none.sqlite").exists()


def test_no_rows_are_no_success() -> None:
    Path("none.jsonl").touch()
    with pytest.raises(DataError, match="no rows"):
        myna("check", "none.jsonl", "--with", "pii")


@pytest.mark.parametrize(
    ("check", "why"), [("judge: {rubric: polite?}", "expected"), ("pii: {otherwise: fix}", "leave `otherwise` out")]
)
def test_what_is_wrong_with_a_checks_words_is_said(check: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        myna("check", "rows.jsonl", "--with", check)
