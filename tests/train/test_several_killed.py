"""Processes started as torchrun starts them, by a user's command, and killed for real."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from every import files, flags, last, lines, written

from myna.train import checkpoint

__all__ = ["files"]
LONGEST = 120  # seconds after which a process counts as hung


@contextmanager
def started(size: int, *words: str) -> Iterator[list[subprocess.Popen[str]]]:
    """`myna train ...` in several processes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(found.getsockname()[1]), "WORLD_SIZE": str(size)}
    command = [sys.executable, "-m", "myna", "train", *words]
    some = [
        subprocess.Popen(
            command, env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    try:
        yield some
    finally:
        for process in some:
            process.kill()
            process.communicate()


def wait_until(true: Callable[[], bool], some: list[subprocess.Popen[str]]) -> None:
    until = time.monotonic() + LONGEST
    while not true() and time.monotonic() < until and all(process.poll() is None for process in some):
        time.sleep(0.002)
    assert true() or all(process.poll() == 0 for process in some), [process.communicate()[1] for process in some]


@pytest.mark.parametrize("dies", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_one_that_dies_ends_the_other_with_a_word(files: Path, tmp_path: Path, dies: int) -> None:
    with started(2, *flags("pretrain", files, tmp_path / "run", "--run.steps", "100000")) as some:
        wait_until(lambda: bool(checkpoint.steps(tmp_path / "run")), some)
        some[dies].send_signal(signal.SIGKILL)
        _, said = some[1 - dies].communicate(timeout=LONGEST)
    assert some[1 - dies].returncode == 2
    assert f"process {1 - dies} of 2 has lost another one" in said
    assert "--resume" in said
    assert "Traceback" not in said


def another(run: Path) -> Callable[[], bool]:
    """Whether it has a checkpoint that it has not now."""
    before = checkpoint.steps(run)
    return lambda: checkpoint.steps(run) != before


@pytest.mark.slow
@pytest.mark.parametrize("case", ["pretrain", "grpo again"])
def test_killed_at_any_moment_two_go_on_as_if_they_had_never_stopped(files: Path, tmp_path: Path, case: str) -> None:
    """kill -9 of one or of both, again and again, at moments that are drawn. A checkpoint is written at every step."""
    told = ("--run.save", "1", "--run.steps", "30", "--optim.lr", "1e-4")
    whole, cut, moments, kills = tmp_path / "whole", tmp_path / "cut", random.Random(0), 0
    words = flags(case, files, cut, *told)
    while kills < 6:
        with started(2, *words) as some:
            wait_until(another(cut), some)
            time.sleep(moments.uniform(0.0, 0.4))
            if some[0].poll() is not None:
                break
            for process in some if kills % 2 else [some[kills // 2 % 2]]:
                process.send_signal(signal.SIGKILL)
            for process in some:
                process.communicate(timeout=LONGEST)
        kills, words = kills + 1, ["--resume", str(cut)]
    assert kills >= 3
    for told_again in (["--resume", str(cut)], flags(case, files, whole, *told)):
        with started(2, *told_again) as some:
            assert [process.communicate(timeout=LONGEST) and process.returncode for process in some] == [0, 0]
    one, other = last(whole), last(cut)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert lines(whole) == lines(cut)
    assert written(whole) == written(cut)


@pytest.mark.slow
def test_torchrun_starts_it_and_says_who_died(files: Path, tmp_path: Path) -> None:
    """As docs/scale.md has it: a run of two; and one of which a process is killed ends, with an error, all of its processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "myna", "train"]
    done = subprocess.run(
        [*torchrun, *flags("sft", files, tmp_path / "run")], capture_output=True, text=True, timeout=LONGEST
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "run/model")]
    endless = flags("sft", files, tmp_path / "endless", "--run.steps", "100000")
    with subprocess.Popen([*torchrun, *endless], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as agent:
        wait_until(lambda: bool(checkpoint.steps(tmp_path / "endless")), [agent])
        workers = psutil.Process(agent.pid).children()
        workers[1].kill()
        _, said = agent.communicate(timeout=LONGEST)
    assert agent.returncode == 1
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in workers)
    assert "has lost another one" in said
    assert "SIGKILL" in said
