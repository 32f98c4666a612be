"""myna prompt: what a file sends, what comes back, what changed, whether its cases pass."""

import json
from pathlib import Path

import pytest

from myna.commands import app
from myna.provider.budget import BudgetExceeded
from myna.records import DataError, RequestError
from myna.trace import Trace
from myna.trace.read import runs

FILE = """---
inputs: {text: {type: string, untrusted: true}, most: integer}
examples: [{inputs: {text: 你好, most: 3}, output: {said: hello}}]
output: {type: object, properties: {said: {type: string}}, required: [said]}
---
Translate in at most {{ most }} words: {{ text }}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "t.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("p.md").write_text(FILE, encoding="utf-8")
    Path("s.jsonl").write_text('"nothing"\n"{\\"said\\": \\"hi\\"}"\n"{\\"said\\": \\"bye\\"}"\n')
    return tmp_path


def myna(*words: object) -> None:
    app([str(word) for word in words], result_action="return_value")


GIVEN = ("-v", "text=早上好\x1b[31m", "-v", "most=2")


def test_what_would_be_sent_is_shown_and_nothing_is_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.txt").write_text("早上好\x1b[31m", encoding="utf-8")
    myna("prompt", "show", "p.md", "-v", "text=@text.txt", "-v", "most=2")
    out = capsys.readouterr().out
    assert "[user]\nTranslate in at most 2 words: <untrusted" in out
    assert "早上好\\x1b[31m" in out
    assert "the prompt itself with 1 examples" in out
    assert not (here / "t.sqlite").exists()


def test_an_answer_is_printed_and_all_of_it_recorded(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("prompt", "run", "p.md", *GIVEN, "--model", "script:s.jsonl", "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["value"], said["calls"]) == ({"said": "hi"}, 2)
    (run,) = runs(Trace(here / "t.sqlite").store)
    assert len(run.below) == 2
    Path("other.md").write_text(FILE.replace("at most", "no more than"), encoding="utf-8")
    Path("p.md").unlink()  # the trace still has it
    myna("prompt", "diff", said["version"][:12], "other.md")
    out = capsys.readouterr().out
    assert "-Translate in at most" in out
    assert "+Translate in no more than" in out
    myna("prompt", "run", said["version"][:12], *GIVEN, "--model", f"replay:{here}/t.sqlite#{run.id}")
    assert capsys.readouterr().out == '{"said": "hi"}\n'


def test_cases_pass_or_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = {"inputs": {"text": "再见", "most": 1}}
    rows = [case, case | {"target": "bye", "check": "contains"}]
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    myna("prompt", "test", "p.md", "c.jsonl", "--model", "script:s.jsonl")
    assert capsys.readouterr().out.startswith("2 of 2 passed")
    Path("c.jsonl").write_text(json.dumps(case | {"target": "ciao", "check": "contains"}) + "\n")
    with pytest.raises(SystemExit) as e:
        myna("prompt", "test", "p.md", "c.jsonl", "--model", "script:s.jsonl")
    assert e.value.code == 1
    assert "FAILED c.jsonl:1" in capsys.readouterr().out


def test_a_budget_is_that_of_all_calls_together(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BudgetExceeded, match="calls: 0 left, and 1 may be needed"):  # the first answer is none
        myna("prompt", "run", "p.md", *GIVEN, "--model", "script:s.jsonl", "--calls", "1")
    with pytest.raises(RequestError, match=r"--tokens is above 0"):
        myna("prompt", "run", "p.md", *GIVEN, "--model", "script:none.jsonl", "--tokens", "0")
    case = {"inputs": {"text": "再见", "most": 1}}
    Path("c.jsonl").write_text((json.dumps(case) + "\n") * 3)
    with pytest.raises(SystemExit):
        myna("prompt", "test", "p.md", "c.jsonl", "--model", "script:s.jsonl", "--calls", "2")
    out = capsys.readouterr().out
    assert out.count("FAILED") == 2, "the first case took both calls"
    assert "1 of 3 passed" in out


@pytest.mark.parametrize(
    ("row", "error"),
    [({"inputs": {"text": "a"}}, "inputs.most"), ({"inputs": {"text": "a", "most": 1}, "target": "x"}, "target"), ({"input": {}}, "inputs"),
     ({"inputs": {"text": "a", "most": 1}, "target": "x", "check": "exactly"}, "exact")],
)  # fmt: skip
def test_a_wrong_case_is_said_before_anything_is_asked(here: Path, row: dict[str, object], error: str) -> None:
    Path("c.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=rf"c\.jsonl:1: .*{error}"):
        myna("prompt", "test", "p.md", "c.jsonl", "--model", "script:none.jsonl")


@pytest.mark.parametrize(
    ("words", "error"),
    [(("show", "p.md", "-v", "text"), "NAME=VALUE"), (("show", "p.md", "-v", "most=two"), "not JSON"), (("show", "p.md", "-v", "text=@none"), "none"),
     (("run", "p.md", "-v", "text=a", "--model", "script:none.jsonl"), "inputs.most"), (("show", "none.md"), "none.md"), (("show", "abcdef123"), "no trace file")],
)  # fmt: skip
def test_what_is_wrong_is_said(here: Path, words: tuple[str, ...], error: str) -> None:
    with pytest.raises((DataError, RequestError), match=error):
        myna("prompt", *words)
