"""A run from its config to its model: begin one, or go on with one."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from myna.model import Decoder
from myna.modeldir import ModelDir
from myna.modeldir import find as find_model
from myna.records import DataError, MynaError
from myna.train import checkpoint
from myna.train.config import Config
from myna.train.loop import Loop
from myna.train.method import find
from myna.train.offline import Offline
from myna.train.options import SECTIONS, plain, read_config, to_yaml
from myna.train.parallel import ALONE, World
from myna.train.peft import adapt, beside
from myna.train.plan import Work
from myna.train.profile import machine_and_token
from myna.train.report import refresh
from myna.train.rules import check
from myna.train.rundir import RunDir
from myna.train.setup import Setup
from myna.train.sinks import Sinks
from myna.train.sinks import check as check_sinks
from myna.train.tensor_parallel import check as check_layers
from myna.train.trainee import Trainee, hashes, make_trainee, translate

# Keys that change what is written, not what is computed.
HARMLESS = {"run.out", "run.save", "run.keep", "run.micro", "run.tensor", "run.sum", "run.sinks", "model.save"}


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
    with ExitStack() as held:
        with world.first():
            run = RunDir.new(config.run.out)
            if world.is_main:
                held.enter_context(run.alone())
                RunDir.new(run.path)  # nobody was faster
        loop, known = _prepare(config, run, world)
        if world.is_main:
            run.begin(to_yaml(config), known)
        return _finish(loop)


def planned(config: Config) -> Work:
    """What exactly this run would do, for plan.py. Its data are audited and tokenized, and kept for it; nothing is trained. Raises
    DataError as `begin` does, and for what cannot be reckoned."""
    loop, _ = _prepare(config, RunDir.new(config.run.out), ALONE)
    run, lora, context = config.run, config.lora, loop.method.context
    if not isinstance(loop.method, Offline) or not isinstance(loop.trainee.module, Decoder):
        raise DataError(
            "there is no plan for encoders, for models with heads of their own (classify, reward, mtp), nor for methods whose "
            "steps depend on what the model answers. Of a model alone: myna plan --model NAME"
        )
    return Work(
        spec=loop.trainee.model.spec, context=context, tokens=loop.method.steps * run.rows * context, rows=run.rows,
        micro=min(run.micro or run.rows, run.rows), precision=config.model.precision, recompute=config.model.recompute,
        optimizer=config.optim.kind, keep=run.keep,
        adapters=beside(ModelDir.open(find_model(config.model.start)), lora) if lora.adapts else None,
    )  # fmt: skip


def resume(path: str | Path, flags: Sequence[str] = (), *, changed: bool = False, world: World = ALONE) -> Ended:
    """Go on with a run from its newest whole checkpoint; `changed` allows other values of keys that change what is computed, and
    other data.

    Raises DataError naming what differs: a key, a data file."""
    with ExitStack() as held:
        with world.first():
            run = RunDir.open(path)
            if world.is_main:
                held.enter_context(run.alone())
            before, config = (_read(run.path / "config.yaml", given) for given in ((), flags))
            differs = differences(before, config)
            _allow([name for name in differs if name not in HARMLESS], "this run was begun with another {}", changed)
        loop, known = _prepare(config, run, world)
        with world.first():
            other = _others(known, run.read_json("data.json"))
            _allow(other, "{}: not what this run began with", changed)
        if found := checkpoint.latest(run.path):
            state, place, wrong = found
            loop.resume(state, place)
            for problem in wrong:  # after it, since what was logged later is cut
                loop.note({"step": state.step, "event": f"went back to {place.name}: {problem}"})
        elif world.is_main:
            run.log.cut(0)
        if world.is_main:
            run.take_up(loop.state.step)
            if differs or other:
                run.change(loop.state.step, config=to_yaml(config) if differs else None, data=known if other else None)
            _note_changes(loop, config, known)
        return _finish(loop)


def differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """The keys in which they differ, "section.key", with both values."""
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in SECTIONS]
    pairs.append((one.method, one.options, other.options))
    values = {f"{s}.{k}": (getattr(a, k), getattr(b, k)) for s, a, b in pairs for k in a.__slots__}
    return {name: (old, new) for name, (old, new) in values.items() if old != new}


def _allow(names: list[str], said: str, changed: bool) -> None:
    if names and not changed:
        raise DataError(f"{said.format(', '.join(names))}. To go on all the same: --changed")


def _note_changes(loop: Loop, config: Config, known: dict[str, Any]) -> None:
    """The log says what is other from this step on: now, or when the run was last here and was killed before it was saved."""
    step, said = loop.state.step, list[str]()
    if (file := loop.run.until("config.yaml", step)).exists():
        pairs = differences(_read(file, ()), config).items()
        said += [f"{name} is {new!r}, was {old!r}" for name, (old, new) in pairs]
    if (file := loop.run.until("data.json", step)).exists():
        said += [f"{name} is another file" for name in _others(known, loop.run.read_json(file.name))]
    if said:
        loop.note({"step": step, "event": "from here on " + "; ".join(said)})


def _others(known: dict[str, Any], began: dict[str, Any]) -> list[str]:
    """What is other in two data.json: files that are in one alone or other in each; the tokenizer; the chat template."""
    pairs = ((known.get(part, {}), began.get(part, known.get(part, {}))) for part in ("files", "start"))
    names = sorted({name for one, other in pairs for name, _ in one.items() ^ other.items()})
    return names + [f"the {part}" for part in ("tokenizer", "template") if began.get(part, known[part]) != known[part]]


def _read(file: Path, flags: Sequence[str]) -> Config:
    method = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("method: ").strip()
    return configure(method, str(file), flags)


def _prepare(config: Config, run: RunDir, world: World) -> tuple[Loop, dict[str, Any]]:
    """The loop before its first step, and what data.json is to say."""
    world = world.sharing(config.run.tensor)
    with world.first():
        check(config)
        check_sinks(config.run.sinks)
        trainee = make_trainee(config.model, config.data.context, config.run.seed, config.lora.base)
        if config.lora.adapts:
            trainee = adapt(trainee, config.lora, config.run.seed)
        check_layers(config, trainee.model, world.size)
        if torch.cuda.is_available():
            trainee.module.cuda()
        setup = Setup(config, trainee, world, run.path)
        method = find(config.method).prepare(setup)
    if config.model.compile:
        translate(setup.trainee.model)
    world.spread(setup.trainee.module, setup.trainee.model, config.run.send)
    return Loop(setup.trainee, method, config, run, world), setup.known | _known(trainee, config) | {
        "steps": method.steps
    }


def _known(trainee: Trainee, config: Config) -> dict[str, Any]:
    """What a run begins with beside its rows. `start` is what its numbers are in, a model's and an adapter's, with hashes."""
    chat = trainee.chat
    template = hashlib.sha256((chat.template.source if chat.template else "").encode()).hexdigest()
    start = hashes(trainee.source) if config.model.start else {}
    start |= hashes(Path(config.lora.start)) if config.lora.start else {}
    return {"tokenizer": chat.tokenizer.fingerprint, "template": template, "start": start}


def _finish(loop: Loop) -> Ended:
    if measured := machine_and_token(loop.trainee, loop.config):
        loop.flops = loop.world.sum([measured[0]])[0], measured[1]
    names = loop.config.run.sinks if loop.world.is_main else ()
    with closing(Sinks(names, loop.run.path, plain(loop.config))) as loop.sinks:
        try:
            whole = loop.train()
        except MynaError as e:
            loop.note({"step": loop.state.step, "event": f"failed: {e}"})
            if loop.world.is_main:
                refresh(loop.run)
            raise
    path = loop.run.path
    if not whole and not loop.stale:
        if loop.world.is_main:
            refresh(loop.run)
        return Ended(path, False, None)
    step = loop.choose()
    if loop.balance.drop():
        loop.note(
            {"step": loop.state.step, "event": "chosen with biases of experts, which the published model has not"}
        )
    with loop.averaged(), loop.world.gathered(loop.model):
        if loop.world.is_main:
            command = (path / "command.txt").read_text().strip()
            made = {"command": command, "parent": loop.trainee.name, "run": path.name, "step": step}
            loop.trainee.publish(path / "model", made)
            refresh(loop.run)
    return Ended(path, whole, path / "model")
