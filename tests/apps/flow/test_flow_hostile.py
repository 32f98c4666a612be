"""What goes wrong around a flow: damaged and full journals, steps without an end, exceptions without words, changed code, Ctrl-C."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from myna.apps.flow import Flow, FlowError, Journal, JournalError, flow, resume, run, step
from myna.apps.flow import running as running_file
from myna.apps.flow.load import load
from myna.apps.flow.lock import lock_path, running
from myna.provider import Provider, Scripted, complete
from myna.provider.replay import replay
from myna.records import Conversation

made: list[str] = []


@pytest.fixture(autouse=True)
def _none_made() -> None:
    made.clear()


@step
async def note(text: str) -> str:
    made.append(text)
    return text


@flow
async def notes(texts: list[str]) -> list[str]:
    return [await note(text) for text in texts]


def test_what_is_journaled_is_on_the_disk_before_anything_else_happens(tmp_path: Path) -> None:
    """PRAGMA synchronous: 2 is FULL, an fsync with every commit; 1, NORMAL, may lose commits with the power."""
    assert Journal(tmp_path / "j.sqlite").rows("PRAGMA synchronous") == [(2,)]


@pytest.mark.parametrize("damage", ["nonsense", "half", "another", "later", "folder"])
def test_a_journal_that_is_none_is_refused_and_left_as_it_is(folder: Path, damage: str) -> None:
    path = folder / "j.sqlite"
    if damage == "nonsense":
        path.write_bytes(b"not a database" * 1000)
    elif damage == "half":
        Journal(path).close()
        path.write_bytes(path.read_bytes()[:3000])
    elif damage == "folder":
        path.mkdir()
    else:
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE mine (x)" if damage == "another" else "PRAGMA user_version = 99")
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(JournalError, match=r"j\.sqlite"):
        asyncio.run(run(notes, Journal(path), {"texts": ["a"]}))
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert made == []


def test_an_output_that_was_changed_in_the_file_is_not_believed(journal: Journal) -> None:
    ended = asyncio.run(run(notes, journal, {"texts": ["a", "b"]}))
    with journal.write() as db:
        db.execute("UPDATE runs SET outcome = NULL")
        db.execute("UPDATE steps SET output = CAST('\"A\"' AS BLOB) WHERE path = 'note'")
    with pytest.raises(JournalError, match="the output of note in run 1 is damaged"):
        asyncio.run(resume(notes, journal, ended.run))


def test_on_a_full_disk_nothing_is_done_that_is_not_written_down(journal: Journal) -> None:
    """The file may grow by some pages, and no further."""
    number = asyncio.run(run(notes, journal, {"texts": ["a"]})).run
    (pages,) = journal.rows("PRAGMA page_count")[0]
    journal.rows(f"PRAGMA max_page_count = {pages + 20}")
    made.clear()
    with pytest.raises(JournalError, match=r"full.*can be resumed"):
        asyncio.run(run(long_notes, journal, {"n": 50}))
    rows = journal.steps(number + 1)
    assert 0 < len(made) <= len(rows) < 50
    journal.rows("PRAGMA max_page_count = 1000000")
    made.clear()
    finished = [row for row in rows if row.state == "done"]
    assert asyncio.run(resume(long_notes, journal, number + 1)).outcome == "done"
    assert len(made) == 50 - len(finished)


@flow
async def long_notes(n: int) -> int:
    return len([await note(f"{i}" * 9000) for i in range(n)])


def test_a_journal_that_another_program_holds_is_an_error(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.rows("PRAGMA busy_timeout = 50")
    with sqlite3.connect(journal.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            asyncio.run(run(notes, journal, {"texts": ["a"]}))
        other.execute("ROLLBACK")
    assert made == []


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "said"),
    [(Unprintable(), "Unprintable"), (ValueError("half \ud800 \x1b[31m"), r"\ud800"), (ValueError("x" * 1_000_000), "xxx ... [998000 characters more] ("), (KeyError(), "KeyError")],
)  # fmt: skip
def test_an_exception_is_told_in_words_that_can_be_stored(journal: Journal, error: Exception, said: str) -> None:
    @step
    async def raises() -> None:
        raise error

    @flow
    async def raising() -> None:
        await raises()

    ended = asyncio.run(run(raising, journal, {}))
    assert (ended.outcome, ended.path) == ("failed", "raises")
    assert said in ended.error
    assert len(ended.error) < 2500
    assert "test_flow_hostile.py:" in ended.error


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_step_without_an_end_is_ended(journal: Journal, monkeypatch: pytest.MonkeyPatch, stubborn: bool) -> None:
    monkeypatch.setattr(running_file, "GRACE", 0.05)
    release = asyncio.Event()

    @step(timeout=0.05, retry=1)
    async def endless() -> str:
        made.append("begun")
        while not release.is_set():
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                if not stubborn:
                    raise
        return "late"

    @flow
    async def waiting() -> str:
        return await endless()

    async def freed() -> Any:
        ended = await run(waiting, journal, {})
        release.set()
        return ended

    ended = asyncio.run(freed())
    assert (ended.outcome, ended.path, made) == ("failed", "endless", ["begun", "begun"])
    assert "more than 0.05 seconds" in ended.error
    assert {row.state for row in journal.steps(ended.run)} == {"failed"}


@step
async def says(question: str, *, provider: Provider) -> str:
    return (await complete(provider, Conversation.ask(question))).text


@flow(max_calls=2)
async def asks(question: str, *, provider: Provider) -> str:
    first = await says(question, provider=provider)
    return first + await says(first, provider=provider)


def test_cancelling_stops_the_model_and_leaves_a_run_that_can_be_resumed(journal: Journal) -> None:
    slow = Scripted(["one", "x" * 4000], delay=0.005)

    async def cancelled() -> None:
        task = asyncio.create_task(run(asks, journal, {"question": "q"}, {"provider": slow}))
        while len(slow.requests) < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    assert [seen.outcome for seen in slow.requests] == ["finished", "closed"]
    assert journal.run(1).outcome == "stopped"
    assert not lock_path(journal.path, 1).exists()
    again = Scripted(["two"])
    assert asyncio.run(resume(asks, journal, 1, {"provider": again})).value == "onetwo"
    assert len(again.requests) == 1


def test_cancelling_stops_our_own_engine(journal: Journal) -> None:
    """The engine gives back every block that the answer held."""
    local = replay(lambda request, candidate: [65] * 5000, seconds=0.01)
    engine = local.loop.engine

    async def cancelled() -> None:
        task = asyncio.create_task(run(asks, journal, {"question": "问"}, {"provider": local}))
        while not engine.scheduler.running:
            await asyncio.sleep(0.005)
        task.cancel()
        await task

    try:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(cancelled())
        for _ in range(500):
            if engine.idle:
                break
            time.sleep(0.01)
        assert engine.idle
    finally:
        local.close()
    assert [(row.state, row.failure) for row in journal.steps(1)] == [("failed", "stopped")]


SLOW = """
import asyncio
from pathlib import Path
from myna.apps.flow import flow, step

@step
async def first() -> str:
    with Path("first").open("a") as out:
        out.write("x")
    return "first"

@step
async def second(text: str) -> str:
    Path("begun").touch()
    await asyncio.sleep(0 if Path("mended").exists() else 60)
    return text + " second"

@flow
async def slow() -> str:
    return await second(await first())
"""


def test_ctrl_c_leaves_a_run_that_can_be_resumed(folder: Path) -> None:
    (folder / "slow.py").write_text(SLOW)
    env = {**os.environ, "MYNA_JOURNAL": str(folder / "j.sqlite"), "MYNA_TRACE": str(folder / "t.sqlite")}
    myna = [sys.executable, "-m", "myna", "flow"]
    child = subprocess.Popen([*myna, "run", "slow.py"], cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    while not (folder / "begun").exists():
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "run 1 is stopped. To go on: myna flow resume 1" in err
    (folder / "mended").touch()
    done = subprocess.run([*myna, "resume", "1"], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("first second\n", 0)
    assert (folder / "first").read_text() == "x"


FLOW = """
import asyncio, sys
from myna.apps.flow import flow, step

LIMIT = 3
def helper(x: int) -> int:
    return x + 1

@step
async def first(x: int) -> int:
    '''A docstring.'''
    return helper(x) + LIMIT

@step
async def second(x: int) -> int:
    if STOP:
        raise ValueError("stop")
    return x * 2

STOP = True

@flow
async def two(x: int) -> int:
    return await second(await first(x))
"""


def written(folder: Path, *changes: tuple[str, str]) -> Flow[Any, Any]:
    text = FLOW
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (folder / "my_flow.py").write_text(text, encoding="utf-8")
    os.utime(folder / "my_flow.py", ns=(time.time_ns(), time.time_ns()))
    return load(f"{folder}/my_flow.py:two")


MENDED = ("STOP = True", "STOP = False")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("x + 1", "x + 2"), "helper"),
        (("LIMIT = 3", "LIMIT = 4"), "LIMIT"),
        (("return helper(x)", "return -helper(x)"), "first"),
    ],
)
def test_changed_code_of_a_finished_step_is_seen_and_named(
    journal: Journal, folder: Path, change: tuple[str, str], named: str
) -> None:
    assert asyncio.run(run(written(folder), journal, {"x": 1})).outcome == "failed"
    mended = written(folder, change, MENDED)
    ended = asyncio.run(resume(mended, journal, 1))
    assert (ended.outcome, ended.path) == ("changed", "first")
    assert f"its code changed ({named})" in ended.error
    assert asyncio.run(resume(mended, journal, 1, changed="keep")).value == 10
    other = asyncio.run(run(written(folder), journal, {"x": 1})).run
    anew = asyncio.run(resume(written(folder, change, MENDED), journal, other, changed="rerun"))
    assert anew.value == {"helper": 12, "LIMIT": 12, "first": 2}[named]


def test_comments_docstrings_and_other_steps_are_no_change(journal: Journal, folder: Path) -> None:
    """Mending the step that failed does not touch the one that is finished."""
    assert asyncio.run(run(written(folder), journal, {"x": 1})).outcome == "failed"
    mended = written(folder, MENDED, ("'''A docstring.'''", "'''Another.'''  # and more"), ("@step\nasync def first", "@step(timeout=9)\nasync def first"))  # fmt: skip
    ended = asyncio.run(resume(mended, journal, 1))
    assert (ended.outcome, ended.value) == ("done", 10)


def test_a_flow_that_no_longer_asks_for_a_finished_step_says_so(journal: Journal, folder: Path) -> None:
    asyncio.run(run(written(folder), journal, {"x": 1}))
    ended = asyncio.run(
        resume(written(folder, MENDED, ("await second(await first(x))", "await second(x)")), journal, 1)
    )
    assert (ended.outcome, ended.value, ended.unasked) == ("done", 2, ("first",))


@pytest.mark.parametrize(
    ("text", "why"),
    [("import nothing_of_this_name", r"nothing_of_this_name.*bad_flow.py:1"), ("def f(:", "SyntaxError"), ("x = 1", "no flow"), ("raise SystemError", "SystemError")],
)  # fmt: skip
def test_a_file_that_cannot_be_run_is_an_error_that_names_the_line(folder: Path, text: str, why: str) -> None:
    (folder / "bad_flow.py").write_text(text)
    with pytest.raises(FlowError, match=why):
        load(f"{folder}/bad_flow.py:two")
    with pytest.raises(FlowError, match="no file"):
        load(f"{folder}/absent.py:two")


CHILD = """
import asyncio, sys
from pathlib import Path
from myna.apps.flow import Journal, flow, resume, run, step

@step
async def hold() -> str:
    Path(sys.argv[1], "begun").touch()
    await asyncio.sleep(60)
    return "held"

@flow
async def holding() -> str:
    return await hold()

asyncio.run(run(holding, Journal(Path(sys.argv[1]) / "flows.sqlite"), {}))
"""


def test_two_processes_do_not_run_one_run(folder: Path) -> None:
    @step
    async def hold() -> str:
        return "held"

    @flow
    async def holding() -> str:
        return await hold()

    (folder / "child.py").write_text(CHILD)
    child = subprocess.Popen([sys.executable, folder / "child.py", folder])
    try:
        while not (folder / "begun").exists():
            assert child.poll() is None
            time.sleep(0.01)
        journal = Journal(folder / "flows.sqlite")
        assert running(journal.path, 1)
        with pytest.raises(JournalError, match="run 1 is running in another process"):
            asyncio.run(resume(holding, journal, 1))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not running(journal.path, 1)
    assert asyncio.run(resume(holding, journal, 1, changed="rerun")).outcome == "done"


def test_a_failure_that_the_flow_got_over_is_not_made_anew(journal: Journal) -> None:
    """What a resumed run sees is what the flow saw: else it would take both of two ways."""
    broken = {"now": True, "end": True}

    @step
    async def shaky() -> str:
        made.append("shaky")
        if broken["now"]:
            raise ValueError("down")
        return "up"

    @flow
    async def with_a_way_round() -> str:
        try:
            way = await shaky()
        except FlowError:
            way = await note("the other way")
        if broken["end"]:
            raise ValueError("killed, as it were")
        return way

    asyncio.run(run(with_a_way_round, journal, {}))
    broken.update(now=False, end=False)
    ended = asyncio.run(resume(with_a_way_round, journal, 1))
    assert (ended.value, made) == ("the other way", ["shaky", "the other way"])
