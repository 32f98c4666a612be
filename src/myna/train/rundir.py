"""A run on disk: everything needed to explain, resume and compare it.

config.yaml     every key as it was resolved      command.txt   how it was started, and changed
env.json        versions, git, machine            data.json     files with their hashes, and the audit
log.jsonl       an object a step, see Log         samples/      what the model answered, step-N.md
checkpoints/    see checkpoint.py                 report.html   curves; opens offline
model/          the finished model

Of a run that went on with other keys or other data, config.yaml and data.json are what it has had since then, and
config-until-step-N.yaml and data-until-step-N.json what it had before.
"""

import fcntl
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from myna import __version__
from myna.records import DataError, MynaError

Json = dict[str, Any]
LOCK = ".lock"
TOKENS, ROLLOUTS, TEACHER, REFERENCE = "tokens", "rollouts", "teacher", "reference.npz"
# What a run writes into its folder before config.yaml makes it one; a start that was refused leaves it.
PREPARED = (TOKENS, ROLLOUTS, TEACHER, REFERENCE, "command.txt", "env.json", "data.json", LOCK)


class RunDir:
    """The folder of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.log = Log(path / "log.jsonl")

    @classmethod
    def new(cls, path: str | Path) -> "RunDir":
        """Where a run is to begin. Raises DataError if there is one already."""
        if not str(path):
            raise DataError("where shall the run be kept? Give --run.out runs/NAME")
        path = Path(path)
        if (path / "config.yaml").exists():
            raise DataError(
                f"{path} holds a run. Go on with it: myna train --resume {path}; or give another --run.out, or remove it."
            )
        if path.exists() and not path.is_dir():
            raise DataError(f"{path}: is a file; --run.out names a folder, which must not exist")
        if found := sorted(p.name for p in path.glob("*") if p.name.removesuffix(".partial") not in PREPARED):
            raise DataError(f"{path} is no new folder: {found[0]} is in it. Give another --run.out.")
        return cls(path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process trains in this folder. Raises DataError if one does: two would write one log."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            held = (self.path / LOCK).open("w")
        except OSError as e:
            raise DataError(f"{self.path}: cannot be a run directory: {e.strerror or e}") from None
        with held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{self.path}: another process is training this run. Wait for it, or stop it") from None
            except OSError:  # a file system without locks: nothing can be known
                pass
            yield

    @classmethod
    def open(cls, path: str | Path) -> "RunDir":
        if not (Path(path) / "config.yaml").is_file():
            raise DataError(f"{path} holds no run: there is no config.yaml in it.")
        return cls(Path(path))

    def begin(self, config: str, data: Json) -> None:
        """The folder, and what is known before the first step. Raises DataError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write("command.txt", _command())
            self.write("env.json", json.dumps(environment(), indent=1) + "\n")
            self.write("data.json", _json(data))
            self.write("config.yaml", config)
        except OSError as e:
            raise DataError(f"{self.path}: cannot be a run directory: {e.strerror or e}") from None

    def change(self, step: int, *, config: str | None = None, data: Json | None = None) -> None:
        """What is true from `step` on; None is as before."""
        told = {"config.yaml": config, "data.json": data if data is None else _json(data)}
        for name, text in told.items():
            if text is not None:
                before = self.until(name, step)
                if (
                    not before.exists()
                ):  # else the run was killed before it was saved again: this is what was there first
                    self.write(before.name, (self.path / name).read_text(encoding="utf-8"))
                self.write(name, text)
        commands = (self.path / "command.txt").read_text(encoding="utf-8")
        self.write("command.txt", commands + _command())

    def until(self, name: str, step: int) -> Path:
        """What this file was until `step`, if it changed there."""
        stem, dot, suffix = name.partition(".")
        return self.path / f"{stem}-until-step-{step}{dot}{suffix}"

    @property
    def changed(self) -> list[int]:
        """The steps from which on keys or data were others."""
        found = (re.fullmatch(r"(?:config|data)-until-step-(\d+)\.\w+", file.name) for file in self.path.iterdir())
        return sorted({int(match[1]) for match in found if match})

    def take_up(self, step: int) -> None:
        """What was changed after later steps is so from `step` on, now that the run goes on from there."""
        for name in ("config.yaml", "data.json"):
            later = [file for n in self.changed if n > step and (file := self.until(name, n)).exists()]
            if later and not self.until(name, step).exists():
                later.pop(0).replace(self.until(name, step))
            for file in later:
                file.unlink()

    def write(self, name: str, text: str) -> None:
        """A file that is there whole or not at all."""
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(place.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(place)

    def read_json(self, name: str) -> Json:
        found: Json = json.loads((self.path / name).read_text(encoding="utf-8"))
        return found


class Log:
    """log.jsonl. A line is {"step": n, ...}: a training step's "loss", "lr", "grad_norm", "tokens", "supervised", "seconds" and
    the method's figures; or {"step": n, "eval": {...}}, after n steps; or {"step": n, "event": "..."}."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, line: Json) -> None:
        """A line, whole or not at all. Raises MynaError if there is no room for it."""
        before = self.size
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as e:
            self.cut(before)
            raise MynaError(
                f"{self.path} cannot be written: {e.strerror or e}. The checkpoints are whole. Make room, then: "
                f"myna train --resume {self.path.parent}"
            ) from None

    def lines(self) -> Iterator[Json]:
        """Those that are whole: a kill may have cut the last one."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    def cut(self, size: int) -> None:
        """Forget what was written after `size` bytes, which a resumed run will write again."""
        if self.path.exists() and self.path.stat().st_size > size:
            os.truncate(self.path, size)

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0


def _command() -> str:
    return shlex.join(["myna", *sys.argv[1:]]) + "\n"


def _json(data: Json) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def environment() -> Json:
    """What a run ran on."""
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return {
        "myna": __version__,
        "git": git.stdout.strip() or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "processes": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
