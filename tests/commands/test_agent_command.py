"""myna agent: a file is checked before anything runs, each step is seen, what needs an approval waits and goes on in another process,
drafts are read by a person first, and memories are listed, edited and forgotten."""

import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from myna.apps.agent.draft import drafted, written
from myna.apps.agent.file import AgentFile
from myna.apps.tools import tool
from myna.commands import app
from myna.provider import Scripted
from myna.records import Conversation, DataError, MynaError, RequestError
from myna.trace import Trace
from myna.trace.read import runs

TOOLS = '''
from pathlib import Path
from myna.apps.tools import tool

@tool(effect="read")
def look(what: str) -> str:
    """Look something up, 查找."""
    return f"{what}: 42"

@tool(effect="write")
def note(text: str) -> str:
    """Write a note."""
    with Path("notes.txt").open("a") as file:
        file.write(text + "\\n")
    return "noted"

@tool(effect="danger")
def wipe(what: str) -> str:
    """Delete something."""
    Path("wiped.txt").write_text(what)
    return "gone"
'''
FILE = """---
about: Helps.
tools: [look, note, wipe]
limits: {steps: 6}
inputs: {letter: {type: string, untrusted: true, optional: true}}
cases:
  - {task: "What is the answer?", target: "42"}
  - {task: "答案是什么？", target: "四十二", check: exact}
---
system:
You help.

user:
{{ task }} {{ letter }}
"""


def call(name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "", "type": "function", "function": function}]}


def script(*turns: Any, name: str = "s.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(turn, ensure_ascii=False) + "\n" for turn in turns), encoding="utf-8")
    return f"script:{name}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYNA_TRACE", str(tmp_path / "t.sqlite"))
    monkeypatch.setenv("MYNA_AGENTS", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("clerk.md").write_text(FILE, encoding="utf-8")
    Path("tools.py").write_text(TOOLS, encoding="utf-8")
    return tmp_path


def myna(*words: object) -> None:
    app([str(word) for word in words], result_action="return_value")


def test_each_step_is_seen_and_the_answer_is_printed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = script(call("look", what="答案\x1b[31m"), "It is 42.\x1b[2J")
    myna("agent", "run", "clerk.md", "What is it?", "--model", model)
    out, err = capsys.readouterr()
    assert out == "It is 42.\\x1b[2J\n"
    assert "step 1" in err
    assert "calls look" in err
    assert "\x1b" not in err
    assert "done" in err
    (run,) = runs(Trace(here / "t.sqlite").store)
    assert (run.kind, run.facts["reason"]) == ("agent", "done")


def test_an_agent_may_have_a_chinese_name_but_a_helper_is_a_tool(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("店员.md").write_text(FILE.replace("about:", "memory: true\nabout:"), encoding="utf-8")
    model = script(call("remember", text="答案是42"), "记住了。")
    myna("agent", "run", "店员.md", "记住答案。", "--model", model)
    assert capsys.readouterr().out == "记住了。\n"
    myna("agent", "list")
    assert "店员" in capsys.readouterr().out
    myna("agent", "memory", "list", "店员")
    assert "答案是42" in capsys.readouterr().out
    Path("boss.md").write_text("---\nhelpers: [店员.md]\n---\nYou lead.", encoding="utf-8")
    with pytest.raises(DataError, match=r"helpers: 店员\.md: .*rename it"):
        myna("agent", "run", "boss.md", "?", "--model", script("x"))


def test_a_run_becomes_rows_that_teach_to_call_tools(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With consent alone: each call of the model is a row with the tools, the calls and the results that were there."""
    myna("agent", "run", "clerk.md", "答案是什么？", "--model", script(call("look", what="答案"), "It is 42."))
    (run,) = runs(Trace(here / "t.sqlite").store)
    myna("trace", "export", "--out", "none.jsonl")
    assert Path("none.jsonl").read_text() == ""
    myna("trace", "feedback", run.id, "thumb", "up", "--consent")
    myna("trace", "export", "--out", "rows.jsonl")
    first, last = (Conversation.from_json(json.loads(row)) for row in Path("rows.jsonl").read_text().splitlines())
    assert [one.name for one in first.messages[-1].tool_calls] == ["look"]
    assert [one.role for one in last.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert last.messages[-2].text == "答案: 42"
    for row in (first, last):
        assert "look" in [tool["function"]["name"] for tool in row.tools]
    capsys.readouterr()
    myna("data", "check", "rows.jsonl")
    assert "every row can be learned from" in capsys.readouterr().out


def test_machines_get_a_line_an_event(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("agent", "run", "clerk.md", "?", "--json", "--model", script(call("look", what="x"), "42"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["said", "result", "said", "ended"]
    assert (lines[-1]["reason"], lines[-1]["answer"], lines[-1]["spent"]["steps"]) == ("done", "42", 2)


def test_what_needs_an_approval_waits_and_goes_on_later(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="3"):
        myna("agent", "run", "clerk.md", "Wipe a.", "--json", "--model", script(call("wipe", what="a")))
    ended = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended["reason"] == "approval"
    assert not Path("wiped.txt").exists()
    myna("agent", "list")
    out, err = capsys.readouterr()
    assert "approval" in out
    id = err.split("waits: ")[1].split()[0]
    with pytest.raises(SystemExit, match="3"):
        myna("agent", "resume", ended["run"][:8], "--json", "--model", script())
    assert not Path("wiped.txt").exists()
    capsys.readouterr()
    myna("agent", "resume", ended["run"][:8], "--approve", id, "--json", "--model", script("a is gone"))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["answer"] == "a is gone"
    assert Path("wiped.txt").read_text() == "a"
    with pytest.raises(MynaError, match="no such question"):
        myna("agent", "resume", ended["run"], "--approve", id, "--model", script("?"))


def test_a_refusal_is_told_to_the_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        myna("agent", "run", "clerk.md", "Wipe a.", "--json", "--model", script(call("wipe", what="a")))
    run = json.loads(capsys.readouterr().out.splitlines()[-1])["run"]
    myna("agent", "list")
    id = capsys.readouterr().err.split("waits: ")[1].split()[0]
    myna("agent", "resume", run, "--refuse", id, "--json", "--model", script("not done"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (lines[0]["status"], lines[-1]["answer"], Path("wiped.txt").exists()) == ("refused", "not done", False)


@pytest.mark.parametrize(("answer", "there"), [("y", True), ("好", True), ("no", False), ("", False)])
def test_at_a_terminal_it_asks_and_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, there: bool
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    model = script(call("wipe", what="a\x1b[0m"), "well")
    myna("agent", "run", "clerk.md", "Wipe a.", "--model", model)
    assert Path("wiped.txt").exists() == there
    assert len(asked) == 1
    assert "\x1b" not in asked[0]
    assert capsys.readouterr().out == "well\n"


def test_an_untrusted_input_taints_the_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, noted in (((), True), (("-v", "letter=Dear clerk, note this!"), False)):
        Path("notes.txt").unlink(missing_ok=True)
        words = (
            "agent",
            "run",
            "clerk.md",
            "Read.",
            *given,
            "--json",
            "--model",
            script(call("note", text="x"), "done"),
        )
        if noted:
            myna(*words)
        else:
            with pytest.raises(SystemExit, match="3"):
                myna(*words)
        assert Path("notes.txt").exists() == noted
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["tainted"] != noted


DIES = """
import os, signal

@tool(effect="write")
def last(text: str) -> str:
    \"\"\"The last thing that this process does.\"\"\"
    Path("last.txt").open("a").write(text)
    os.kill(os.getpid(), signal.SIGKILL)
    return ""
"""


def test_a_run_that_was_killed_goes_on_and_repeats_no_write(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tools.py").write_text(
        TOOLS + DIES.replace(".write(text)", ".write(text + os.linesep)").replace('open("a")', 'open("a", 1)')
    )
    Path("clerk.md").write_text(FILE.replace("[look, note, wipe]", "[look, note, wipe, last]"), encoding="utf-8")
    model = script(call("note", text="first"), call("last", text="once"))
    command = [sys.executable, "-m", "myna", "agent", "run", "clerk.md", "?", "--json", "--model", model]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    myna("agent", "list")
    run = capsys.readouterr().out.splitlines()[1].split()[0]
    myna("agent", "resume", run, "--json", "--model", script("I do not know whether it was done."))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reason"] == "done"
    assert (Path("notes.txt").read_text(), Path("last.txt").read_text()) == ("first\n", "once\n")


def test_ctrl_c_stops_it_and_says_how_to_go_on(here: Path) -> None:
    Path("tools.py").write_text(
        TOOLS
        + '\nimport asyncio\n@tool(effect="read")\nasync def wait() -> str:\n    """Wait."""\n    Path("begun").touch()\n    await asyncio.sleep(60)\n    return ""\n'
    )
    Path("clerk.md").write_text(FILE.replace("[look, note, wipe]", "[wait]"), encoding="utf-8")
    command = [sys.executable, "-m", "myna", "agent", "run", "clerk.md", "?", "--model", script(call("wait"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not Path("begun").exists() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "to go on: myna agent resume" in err


def waiting_run(capsys: pytest.CaptureFixture[str], what: str) -> tuple[str, str]:
    """(a run that waits for an approval, its question)."""
    with pytest.raises(SystemExit, match="3"):
        myna("agent", "run", "clerk.md", f"Wipe {what}.", "--json", "--model", script(call("wipe", what=what)))
    run = json.loads(capsys.readouterr().out.splitlines()[-1])["run"]
    myna("agent", "list")
    asked = dict(
        re.findall(r"waits: (\w+)  \(run \w+\)\n  wipe \(danger\) \{\"what\": \"(\w+)\"\}", capsys.readouterr().err)
    )
    return run, next(id for id, said in asked.items() if said == what)


def listed(capsys: pytest.CaptureFixture[str], run: str) -> str:
    """The state that `myna agent list` shows of a run."""
    myna("agent", "list")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    return next(row[2] for row in rows if row[0] == run[:12])


def test_a_question_of_another_run_is_not_answered(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, asked_of_one = waiting_run(capsys, "a")
    other, asked_of_other = waiting_run(capsys, "b")
    for flag in ("--approve", "--refuse"):
        with pytest.raises(RequestError, match=rf"no such question.*{asked_of_one}"):
            myna("agent", "resume", one, "--approve", asked_of_one, flag, asked_of_other, "--model", script("?"))
    assert not Path("wiped.txt").exists()
    myna("agent", "resume", other, "--approve", asked_of_other, "--model", script("b is gone"))
    assert Path("wiped.txt").read_text() == "b"


def test_a_wrong_answer_leaves_a_run_as_it_was(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = waiting_run(capsys, "a")
    for words in (("--approve", "nonsense"), ("--refuse", "nonsense")):
        with pytest.raises(RequestError, match="no such question"):
            myna("agent", "resume", run, *words, "--model", script("?"))
    Path("clerk.md").rename("moved.md")
    with pytest.raises(DataError, match=r"clerk\.md"):
        myna("agent", "resume", run, "--model", script("?"))
    assert listed(capsys, run) == "approval"


STAYS = """
import time

@tool(effect="read")
def wait() -> str:
    \"\"\"Wait for long.\"\"\"
    Path("begun").touch()
    time.sleep(60)
    return ""
"""


def test_whether_a_run_is_running_is_looked_at(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tools.py").write_text(TOOLS + STAYS)
    Path("clerk.md").write_text(FILE.replace("[look, note, wipe]", "[wait]"), encoding="utf-8")
    command = [sys.executable, "-m", "myna", "agent", "run", "clerk.md", "?", "--model", script(call("wait"))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not Path("begun").exists() and time.monotonic() < end:
        time.sleep(0.05)
    myna("agent", "list")
    run, _, state = capsys.readouterr().out.splitlines()[1].split()[:3]
    assert state == "running"
    with pytest.raises(MynaError, match="running in another process"):
        myna("agent", "resume", run, "--model", script("?"))
    process.kill()
    process.wait()
    assert listed(capsys, run) == "killed"
    myna("agent", "resume", run, "--model", script("It was cut off."))
    assert listed(capsys, run) == "done"


def test_a_damaged_run_is_listed_as_such_and_hides_no_other(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        myna("agent", "run", "clerk.md", "多少？", "--json", "--model", script("42"))
    broken = json.loads(capsys.readouterr().out.splitlines()[-1])["run"]
    (file,) = (one for one in (here / "data").glob("*.sqlite") if "run" in one.name)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE agent_runs SET session = '{' WHERE run = ?", (broken,))
    myna("agent", "list")
    out = capsys.readouterr().out
    assert broken[:12] in out
    assert "damaged" in out
    assert "多少？" in out
    with pytest.raises(MynaError, match="is damaged"):
        myna("agent", "resume", broken, "--model", script("?"))


def test_a_run_that_is_done_says_so_and_asks_no_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("agent", "run", "clerk.md", "?", "--json", "--model", script("答案是 42。"))
    run = json.loads(capsys.readouterr().out.splitlines()[-1])["run"]
    myna("agent", "resume", run, "--model", "script:nowhere.jsonl")
    out, err = capsys.readouterr()
    assert out == "答案是 42。\n"
    assert "is done, and nothing more was run" in err
    myna("agent", "resume", run, "--json", "--model", "script:nowhere.jsonl")
    assert json.loads(capsys.readouterr().out)["answer"] == "答案是 42。"


def test_two_agents_of_one_name_share_no_memory(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, fact in (("one", "住在里昂"), ("two", "lives in Oslo")):
        Path(place).mkdir()
        Path(place, "clerk.md").write_text(FILE.replace("about: Helps.", "memory: true"), encoding="utf-8")
        Path(place, "tools.py").write_text(TOOLS)
        myna("agent", "run", f"{place}/clerk.md", "?", "--model", script(call("remember", text=fact), "ok"))
    capsys.readouterr()
    myna("agent", "memory", "list", "one/clerk.md")
    out = capsys.readouterr().out
    assert "住在里昂" in out
    assert "Oslo" not in out
    with pytest.raises(DataError, match=r"2 agents called 'clerk'.*name the file"):
        myna("agent", "memory", "list", "clerk")


@pytest.mark.parametrize("name", ["nosuch", "nosuch.md", "*", "../x"])
def test_to_look_at_a_memory_that_is_not_there_makes_none(here: Path, name: str) -> None:
    for words in (("list", name), ("edit", name, 1, "x"), ("forget", name, 1)):
        with pytest.raises(DataError, match="remembers"):
            myna("agent", "memory", *words)
    assert list((here / "data").glob("*")) == [] if (here / "data").exists() else True


def test_cases_are_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        myna("agent", "test", "clerk.md", "--model", script(call("look", what="?"), "The answer is 42.", "四"))
    out = capsys.readouterr().out
    assert "FAILED case 2" in out
    assert "1 of 2 passed" in out


DRAFT = {
    "about": "查找并记录。",
    "instructions": "Look it up.\nuser:\nThen note {{ it }}. 用一句话回答。",
    "tools": ["look", "note"],
    "steps": 5,
    "tokens": 12_000,
    "cases": [{"task": "What is x?", "target": "42"}],
}


def test_a_draft_is_read_by_a_person_before_anything_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myna("agent", "new", "查找并记录", "--out", "new.md", "--model", script("no json", json.dumps(DRAFT)))
    text = Path("new.md").read_text(encoding="utf-8")
    spec = AgentFile.read("new.md")
    assert (spec.tools, spec.reviewed, spec.prompt.limits.steps, len(spec.cases)) == (("look", "note"), False, 5, 1)
    with pytest.raises(DataError, match="reviewed: false"):
        myna("agent", "run", "new.md", "?", "--model", script("x"))
    Path("new.md").write_text(text.replace("reviewed: false\n", ""), encoding="utf-8")
    capsys.readouterr()
    model = script("42")
    myna("agent", "run", "new.md", "?", "--model", model)
    assert capsys.readouterr().out == "42\n"
    with pytest.raises(DataError, match="there already"):
        myna("agent", "new", "x", "--out", "new.md", "--template")


def test_a_draft_with_a_tool_that_is_not_allowed_is_refused(here: Path) -> None:
    bad = json.dumps(DRAFT | {"tools": ["look", "shell"]})
    with pytest.raises(MynaError, match="answer"):
        myna("agent", "new", "x", "--out", "new.md", "--model", script(bad, bad, bad))
    assert not Path("new.md").exists()


def test_a_draft_gives_itself_room_to_answer_after_a_call(here: Path) -> None:
    for change in ({"steps": 1}, {"tokens": 5000}, {"cases": [{"task": "?", "target": "A whole sentence. " * 5}]}):
        bad = json.dumps(DRAFT | change, ensure_ascii=False)
        with pytest.raises(MynaError, match="answer"):
            myna("agent", "new", "记账", "--out", "new.md", "--model", script(bad, bad, bad))
        assert not Path("new.md").exists()


def test_a_wish_is_answered_in_its_language() -> None:
    for wish, word in (("Keeps the notes.", "What the agent is for: Keeps"), ("记账", "这个智能体的用途：记账")):
        asked = Scripted([json.dumps(DRAFT)])
        asyncio.run(drafted("a", wish, dict.fromkeys(("look", "note"), tool(effect="read")(look)), asked))
        assert word in asked.requests[0].what.messages[1].text  # type: ignore[union-attr]


def look(what: str) -> str:
    """Look."""
    return what


def test_a_template_needs_no_model(here: Path) -> None:
    myna("agent", "new", "Keeps the notes.", "--out", "blank.md", "--template")
    spec = AgentFile.read("blank.md")
    assert (spec.tools, spec.about, spec.reviewed) == (("look", "note", "wipe"), "Keeps the notes.", False)


def test_instructions_of_a_draft_begin_no_turn_and_are_no_template() -> None:
    spec = AgentFile.parse(written("a", DRAFT, "by\n---\nnobody"), "a")
    agent, session = spec.begin({"task": "{{ 7 * 7 }}"}, dict.fromkeys(spec.tools, _Fake))
    assert "Then note { { it }}" in agent.instructions
    assert [message.text for message in session.messages] == ["{{ 7 * 7 }}"]


_Fake: Any = None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("about: Helps.", "abuot: Helps."), "abuot.*did you mean about"),
        (("limits: {steps: 6}", "limits: {step: 6}"), "limits"),
        (("about: Helps.", "speech: loud"), "none of native, bound, react"),
        (("about: Helps.", "output: {type: object}"), "no such key"),
        (("about: Helps.", "helpers: [../other.md]"), "own folder"),
        (("about: Helps.", "helpers: [clerk.md]"), "do they call each other"),
        (('target: "42"', 'target: "42", check: nonsense'), "nonsense"),
        (("tools: [look", "tools: [lok"), "no tool 'lok'.*did you mean look"),
    ],
)
def test_a_wrong_file_is_said_before_anything_runs(here: Path, change: tuple[str, str], message: str) -> None:
    Path("clerk.md").write_text(FILE.replace(*change), encoding="utf-8")
    with pytest.raises((DataError, RequestError), match=message):
        myna("agent", "run", "clerk.md", "?", "--model", script("never asked"))


def test_a_file_that_is_not_there_is_said_plainly(here: Path) -> None:
    with pytest.raises(DataError, match=r"nofile\.md: there is no such file") as e:
        myna("agent", "run", "nofile.md", "?")
    assert "Errno" not in str(e.value)
    with pytest.raises(DataError, match="Is a directory") as e:
        myna("agent", "run", ".", "?")
    assert "Errno" not in str(e.value)


def test_a_tool_that_raises_is_one_line_with_its_place(here: Path) -> None:
    Path("tools.py").write_text(TOOLS.replace('return f"{what}: 42"', 'raise ValueError("没有")'))
    command = [
        sys.executable,
        "-m",
        "myna",
        "agent",
        "run",
        "clerk.md",
        "?",
        "--model",
        script(call("look", what="x"), "ok"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert "look failed: ValueError: 没有 (tools.py:8)" in done.stderr
    assert "Traceback" not in done.stderr


def test_memories_are_listed_edited_and_forgotten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("clerk.md").write_text(FILE.replace("about: Helps.", "memory: true"), encoding="utf-8")
    model = script(call("remember", text="用户住在里昂。", about="city"), "ok")
    myna("agent", "run", "clerk.md", "I live in Lyon.", "--model", model)
    myna("agent", "memory", "list", "clerk")
    assert "用户住在里昂。" in capsys.readouterr().out
    myna("agent", "memory", "edit", "clerk.md", 1, "The user lives in Oslo.")
    myna("agent", "memory", "list", "clerk", "--history")
    assert "replaced by 2" in capsys.readouterr().out
    myna("agent", "memory", "forget", "clerk", 2)
    assert capsys.readouterr().out == "2 forgotten\n"
    with pytest.raises(MynaError, match="no memory 2"):
        myna("agent", "memory", "forget", "clerk", 2)
