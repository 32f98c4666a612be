"""What is told of a run that goes on: on a terminal of any width, in JSON lines, and when somebody presses Ctrl-C."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest

from myna.train.progress import interruptible

SHOW = """
import os, signal
from myna.train.checkpoint import State
from myna.train.progress import Progress, interruptible
state = State()
shown = Progress(30, state, flops=(1e6, 1e3))
with shown, interruptible(shown.stopping) as asked:
    for n in range(30):
        state.step += 1
        bad = n == 7
        state.skipped += bad
        line = dict(step=n, loss=2.5 if not bad else float("nan"), reward=0.25, accuracy=0.5, margin=1.5, tokens=100, seconds=0.25)
        shown.step(line | {"grad_norm": float("inf") if bad else 1.0}, state)
        if n == 14:
            shown.evaluated({"bits_per_byte": 1.25, "loss": 0.625, "kl": float("inf")}, 15, True)
        if n == 20:
            os.kill(os.getpid(), signal.SIGINT)
            assert asked()
"""


def in_terminal(columns: int) -> str:
    """What the program writes to a terminal of this width."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    # COLUMNS, which pytest-xdist's workers have, would be believed before the terminal.
    plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    child = subprocess.Popen(
        [sys.executable, "-c", SHOW], stderr=there, env=plain | {"TERM": "xterm-256color"}, close_fds=True
    )
    os.close(there)
    said = b""
    try:
        while some := os.read(here, 65536):
            said += some
    except OSError:  # the other side is closed
        pass
    os.close(here)
    assert child.wait() == 0
    return said.decode()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_of_any_width_shows_what_it_has_room_for(columns: int) -> None:
    said = in_terminal(columns)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)
    frames = [line.strip("\n ") for line in re.split(r"[\r\n]+", plain) if "━" in line]
    assert all(len(line) <= columns for line in frames)
    last = frames[-1]
    assert "30/30" in last
    assert "loss 2.5" in last
    assert [said in last for said in ("400 tokens/s", "MFU 40%")] == [columns > 40] * 2
    assert ("margin 1.5" in last) == (columns == 200)
    assert "step 15 evaluated: loss 0.625  bits per byte 1.25  kl inf  (best so far)" in plain
    assert "step 7 is skipped: the gradient's norm is inf" in plain
    assert "once more to stop at once" in plain


def test_elsewhere_every_line_is_json() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line, parse_constant=pytest.fail) for line in done.stderr.splitlines()]
    events = [line["event"] for line in lines]
    assert events == ["progress", "skipped", "eval", "stopping", "progress"]
    assert lines[0]["mfu"] == 0.4
    assert lines[-1]["done"] == 30
    assert lines[2]["step"] == 15
    assert lines[2]["kl"] is None


def test_the_second_ctrl_c_stops_at_once() -> None:
    heard: list[int] = []
    with interruptible(lambda: heard.append(1)) as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [1]
