"""The process in which schemas are read."""

import os
import subprocess
from typing import Any

import pytest

from myna.forms import worker


def test_a_ctrl_c_in_the_terminal_does_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(worker.subprocess, "Popen", start)
    worker.Workers().ask({"do": "lower", "kind": "schema", "source": "{}", "strict": True, "special": {}})
    assert [os.getpgid(child.pid) for child in started] == [child.pid for child in started] != [os.getpgrp()]
    started[0].kill()
    started[0].wait()
