"""The process in which schemas are read."""

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from myna.forms import worker

QUESTION = {"do": "lower", "kind": "schema", "source": "{}", "strict": True, "special": {}}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The children of a test, in order."""
    children: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(popen(*args, **options))
        return children[-1]

    monkeypatch.setattr(worker.subprocess, "Popen", start)
    yield children
    for child in children:
        child.kill()
        child.wait()


def test_a_ctrl_c_in_the_terminal_does_not_reach_it(started: list[subprocess.Popen[bytes]]) -> None:
    worker.Workers().ask(QUESTION)
    assert [os.getpgid(child.pid) for child in started] == [child.pid for child in started] != [os.getpgrp()]


@pytest.mark.parametrize("unwritten", [b"", b"half a question"], ids=["idle", "with words that it never read"])
def test_a_child_that_was_killed_is_replaced(started: list[subprocess.Popen[bytes]], unwritten: bytes) -> None:
    workers = worker.Workers()
    assert "lark" in workers.ask(QUESTION)
    assert started[0].stdin
    started[0].stdin.write(unwritten)
    os.kill(started[0].pid, signal.SIGKILL)
    os.waitid(os.P_PID, started[0].pid, os.WEXITED | os.WNOWAIT)
    for _ in range(3):
        assert "lark" in workers.ask(QUESTION)
    assert [child.poll() for child in started] == [-signal.SIGKILL, None]
    assert started[0].stdin.closed


def test_time_that_is_used_up_is_refused_without_a_child(started: list[subprocess.Popen[bytes]]) -> None:
    for seconds in (0.0, -1.0):
        with pytest.raises(worker.WorkerFailed, match="10 seconds"):
            worker.Workers().ask(QUESTION, seconds)
    assert started == []
