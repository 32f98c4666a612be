"""A run from its config to its model: begin one, or go on with one."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from myna.records import DataError
from myna.train import checkpoint
from myna.train.config import Config
from myna.train.loop import Loop
from myna.train.method import find
from myna.train.options import SECTIONS, plain, read_config, to_yaml
from myna.train.parallel import ALONE, World
from myna.train.peft import adapt
from myna.train.profile import machine_and_token
from myna.train.report import refresh
from myna.train.rundir import RunDir
from myna.train.setup import Setup
from myna.train.sinks import Sinks
from myna.train.sinks import check as check_sinks
from myna.train.trainee import make_trainee

# Keys that change what is written, not what is computed.
HARMLESS = {"run.out", "run.save", "run.keep", "run.micro", "run.sinks", "model.save"}


@dataclass(frozen=True, slots=True)
class Ended:
    """`whole`: every step was done; `model` is then the finished model's directory."""

    run: Path
    whole: bool
    model: Path | None


def configure(method: str, file: str | None, flags: Sequence[str]) -> Config:
    """The config of a run of this method. Raises DataError."""
    module = find(method)
    return read_config(method, module.Options, module.DEFAULTS, file, flags)


def begin(config: Config, world: World = ALONE) -> Ended:
    """Train from the first step. Raises DataError before anything is computed if the config or the data cannot be."""
    if not config.run.out:
        raise DataError("where shall the run be kept? Give --run.out runs/NAME")
    path = Path(config.run.out)
    with world.first():
        if (path / "config.yaml").exists():
            raise DataError(
                f"{path} holds a run. Go on with it: myna train --resume {path}; or give another --run.out."
            )
    loop, setup = _prepare(config, path, world)
    if world.is_main:
        RunDir.create(path, to_yaml(config), setup.known | _known(loop))
    return _finish(loop)


def resume(path: str | Path, flags: Sequence[str] = (), *, changed: bool = False, world: World = ALONE) -> Ended:
    """Go on with a run from its newest whole checkpoint; `changed` allows other values of keys that change what is computed.

    Raises DataError naming what differs: a key, a data file."""
    with world.first():
        run = RunDir.open(path)
        before = _read(run.path, ())
        config = _read(run.path, flags)
        differs = [name for name in differences(before, config) if name not in HARMLESS]
        if differs and not changed:
            raise DataError(f"this run was begun with another {', '.join(differs)}. To go on all the same: --changed")
    loop, setup = _prepare(config, run.path, world)
    with world.first():
        files, began = setup.known.get("files", {}), run.read_json("data.json").get("files", {})
        other = sorted(name for name in files.keys() | began.keys() if files.get(name) != began.get(name))
        if other and not changed:
            raise DataError(f"{', '.join(other)}: not what this run began with. To go on all the same: --changed")
    if found := checkpoint.latest(run.path):
        state, place, wrong = found
        for problem in wrong:
            loop.note({"step": state.step, "event": f"went back to {place.name}: {problem}"})
        loop.resume(state, place)
    elif world.is_main:
        run.log.cut(0)
    return _finish(loop)


def differences(one: Config, other: Config) -> list[str]:
    """The keys in which they differ, "section.key"."""
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in SECTIONS]
    pairs.append((one.method, one.options, other.options))
    return [f"{s}.{k}" for s, a, b in pairs for k in a.__slots__ if getattr(a, k) != getattr(b, k)]


def _read(path: Path, flags: Sequence[str]) -> Config:
    file = path / "config.yaml"
    method = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("method: ").strip()
    return configure(method, str(file), flags)


def _prepare(config: Config, path: Path, world: World) -> tuple[Loop, Setup]:
    with world.first():
        if config.lora.base != "float32" and not config.lora.adapts:
            raise DataError(
                f"weights kept as {config.lora.base} are not trained: give --lora.rank, or --lora.base float32"
            )
        check_sinks(config.run.sinks)
        trainee = make_trainee(config.model, config.data.context, config.run.seed, config.lora.base)
        if config.lora.adapts:
            trainee = adapt(trainee, config.lora, config.run.seed)
        if torch.cuda.is_available():
            trainee.module.cuda()
        setup = Setup(config, trainee, world, path)
        method = find(config.method).prepare(setup)
    world.spread(setup.trainee.module, setup.trainee.model)
    return Loop(setup.trainee, method, config, RunDir(path), world), setup


def _known(loop: Loop) -> dict[str, Any]:
    """What data.json says beside the files: what makes runs comparable, and how long this one is."""
    return {"tokenizer": loop.trainee.chat.tokenizer.fingerprint, "steps": loop.method.steps}


def _finish(loop: Loop) -> Ended:
    if measured := machine_and_token(loop.trainee, loop.config):
        loop.flops = loop.world.sum([measured[0]])[0], measured[1]
    names = loop.config.run.sinks if loop.world.is_main else ()
    with closing(Sinks(names, loop.run.path, plain(loop.config))) as loop.sinks:
        whole = loop.train()
    path = loop.run.path
    if not whole and not loop.stale:
        if loop.world.is_main:
            refresh(loop.run)
        return Ended(path, False, None)
    if loop.balance.drop():
        loop.note(
            {"step": loop.state.step, "event": "stopped with biases of experts, which the published model has not"}
        )
    with loop.averaged(), loop.world.gathered(loop.model):
        if loop.world.is_main:
            command = (path / "command.txt").read_text().strip()
            loop.trainee.publish(path / "model", {"command": command, "parent": loop.trainee.name, "run": path.name})
            refresh(loop.run)
    return Ended(path, whole, path / "model")
