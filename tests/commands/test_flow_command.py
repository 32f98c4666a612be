"""myna flow: run, list, show, resume, answer, report."""

import json
from pathlib import Path

import pytest

from myna.commands import app
from myna.records import DataError, RequestError

FLOW = """
from pathlib import Path
from myna.apps.flow import flow, step
from myna.provider import Provider, complete
from myna.records import Conversation

@step
async def rewrite(question: str, n: int, *, provider: Provider) -> str:
    return (await complete(provider, Conversation.ask(f"{question} {n}"))).text

@step(effect="write")
async def send(text: str) -> str:
    with Path("sent.txt").open("a") as out:
        out.write(text)
    if Path("broken").exists():
        raise OSError("the line broke")
    return f"sent {text}"

@flow(max_calls=rewrite.max_calls)
async def letter(question: str, n: int = 1, *, provider: Provider) -> str:
    return await send(await rewrite(question, n, provider=provider))

@flow
async def plain(words: list[str]) -> list[str]:
    return sorted(words)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "t.sqlite"))
    monkeypatch.setenv("MYNA_JOURNAL", str(tmp_path / "j.sqlite"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("letters.py").write_text(FLOW, encoding="utf-8")
    Path("s.jsonl").write_text('"an answer\\u001b[31m"\n"二"\n"three"\n', encoding="utf-8")
    return tmp_path


def myna(*words: object) -> int:
    try:
        app([str(word) for word in words], result_action="return_value")
    except SystemExit as e:
        return int(e.code or 0)
    return 0


RUN = ("flow", "run", "letters.py:letter", "-v", "question=你好", "--model", "script:s.jsonl")


def test_a_flow_runs_and_is_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert myna(*RUN) == 0
    out, err = capsys.readouterr()
    assert out == "sent an answer\\x1b[31m\n"
    assert err == "letter: at most 1 model call\n"
    myna("flow", "list")
    assert "letter  done   2 of 2  1" in capsys.readouterr().out
    myna("flow", "show", 1)
    out = capsys.readouterr().out
    assert "run 1 of letter" in out
    assert "trace run 1" in out
    assert "send     done  takes rewrite" in out
    assert "\x1b" not in out
    myna("flow", "show", 1, "--mermaid")
    assert capsys.readouterr().out.splitlines()[0] == "flowchart TD"
    myna("flow", "show", 1, "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["steps"][0]["inputs"] == {"question": "你好", "n": 1}
    myna("trace", "show", 1)
    assert "step rewrite: 1 of 1 passed" in capsys.readouterr().out


def test_what_a_run_asks_is_answered_and_it_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken").touch()
    assert myna(*RUN) == 1
    err = capsys.readouterr().err
    assert "run 1 ended: unknown. send: nobody knows whether it happened: OSError: the line broke (letters.py:" in err
    assert "myna flow answer 1 'send' happened [--value JSON], or myna flow answer 1 'send' not-happened" in err
    assert myna("flow", "resume", 1) == 1
    myna("flow", "show", 1)
    assert "Look whether send happened" in capsys.readouterr().out
    myna("flow", "answer", 1, "send", "happened", "--value", '"sent by hand"')
    assert capsys.readouterr().out == "myna flow resume 1\n"
    assert myna("flow", "resume", 1) == 0
    assert capsys.readouterr().out == "sent by hand\n"
    assert Path("sent.txt").read_text() == "an answer\x1b[31m"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (("--value", "5"), "'send' gives str, and 5 is none: Input should be a valid string"),
        ((), "gives str, and null is none"),
        (("--value", "{"), "not JSON"),
    ],
)
def test_an_answer_that_the_step_cannot_give_is_refused_when_it_is_given(
    here: Path, value: tuple[str, ...], why: str
) -> None:
    Path("broken").touch()
    myna(*RUN)
    with pytest.raises((RequestError, DataError), match=why):
        myna("flow", "answer", 1, "send", "happened", *value)
    Path("letters.py").rename("moved.py")
    assert myna("flow", "answer", 1, "send", "happened", "--file", "moved.py:letter", "--value", '"好"') == 0


def test_a_change_is_refused_by_name_until_somebody_decides(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken").touch()
    myna(*RUN)
    myna("flow", "answer", 1, "send", "not-happened")
    Path("broken").unlink()
    Path("letters.py").write_text(FLOW.replace('f"{question} {n}"', "question"), encoding="utf-8")
    capsys.readouterr()
    assert myna("flow", "resume", 1) == 1
    assert "rewrite is finished, but its code changed (rewrite)" in capsys.readouterr().err
    assert myna("flow", "resume", 1, "--changed", "keep") == 0


def test_a_recorded_flow_is_run_from_its_trace(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna(*RUN)
    assert myna(*RUN[:-1], f"replay:{here}/t.sqlite#1") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_cases_make_a_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"inputs": {"question": one}, "expect": {"rewrite": {"check": "contains", "target": target}}}
        for one, target in (("a", "answer"), ("二", "二"), ("c", "four"))
    ]
    Path("c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert myna("flow", "run", "letters.py:letter", "--cases", "c.jsonl", "--model", "script:s.jsonl") == 1
    assert "run 3: rewrite is not as expected" in capsys.readouterr().err
    Path("c.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert (
        myna("flow", "run", "letters.py:letter", "--cases", "c.jsonl", "--model", "script:s.jsonl", "--journal", "o")
        == 0
    )
    Path("c.jsonl").write_text("\n")
    with pytest.raises(DataError, match="has no cases"):
        myna("flow", "run", "letters.py:letter", "--cases", "c.jsonl", "--model", "script:s.jsonl")
    capsys.readouterr()
    myna("flow", "report", "letter")
    out = capsys.readouterr().out
    assert [line.split()[:3] for line in out.splitlines() if line.strip().startswith(("rewrite", "send", "product", "whole"))] == [
        ["rewrite", "3", "66.7%"], ["send", "3", "100.0%"], ["product", "66.7%", "66.7%"], ["whole", "runs", "3"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("run", "letters.py:letter", "-v", "n=x", "-v", "question=a"), "inputs.n: is not JSON"),
        (("run", "letters.py:letter", "-v", "n=7"), "inputs.question: missing"),
        (("run", "letters.py:letter", "-v", "what=7"), "inputs.what"),
        (("run", "letters.py:letter"), "give inputs"),
        (("run", "letters.py:other", "-v", "a=b"), "no flow 'other'; it has letter, plain"),
        (("run", "letters.py", "-v", "a=b"), "letter, plain"),
        (("run", "none.py", "-v", "a=b"), "no file"),
    ],
)
def test_wrong_words_are_refused_before_a_model_is_asked_for(here: Path, words: tuple[str, ...], why: str) -> None:
    from myna.apps.flow import FlowError

    with pytest.raises((RequestError, DataError, FlowError), match=why):
        myna("flow", *words, "--model", "script:none.jsonl")
    assert not (here / "j.sqlite").exists()


@pytest.mark.parametrize(
    "words", [("list",), ("show", "1"), ("resume", "1"), ("answer", "1", "a", "happened"), ("report",)]
)
def test_a_journal_that_is_not_there_is_not_made(here: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="there is no journal"):
        myna("flow", *words)
    assert not (here / "j.sqlite").exists()


def test_a_flow_without_a_model_needs_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert myna("flow", "run", "letters.py:plain", "-v", 'words=["b", "a"]') == 0
    assert capsys.readouterr().out == '["a","b"]\n'
