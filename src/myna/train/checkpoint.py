"""What a run needs to go on exactly as if it had never stopped, in checkpoints/step-N:

    weights.safetensors     what is trained, under its names in memory, float32; and its running mean, if one is kept
    optimizer.safetensors   every moment, as "parameter:moment"
    trainer.json            steps done, counts, the log's length, and the size and hash of both files

A checkpoint appears by one rename, and its files are hashed: one that was cut short is known as such, and the one before it
is taken. There is no state of random generators in it, because whatever is drawn is drawn from (seed, step).
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from myna.modeldir.safetensors import read_safetensors, write_safetensors
from myna.records import DataError, MynaError
from myna.train.parallel import share_like

FOLDER = "checkpoints"
EMA = "ema:"


@dataclass
class State:
    """Where a run is. `best` is the lowest evaluation loss so far, `best_step` how many steps were done then, and `stale` how
    many evaluations were no better since."""

    step: int = 0
    tokens: int = 0
    supervised: int = 0
    seconds: float = 0.0
    skipped: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    log_bytes: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def save(run: Path, state: State, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor], keep: int) -> Path:
    """Write checkpoint state.step and remove the oldest beyond `keep`, but never the best. Raises MynaError if the disk is full;
    the earlier ones are untouched then."""
    place = at(run, state.step)
    partial = place.with_name(place.name + ".partial")
    for left in place.parent.glob("step-*.partial"):  # of a save that was killed, or stopped by a second Ctrl-C
        shutil.rmtree(left, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        files = {name: _write(partial / name, tensors) for name, tensors in _files(weights, moments)}
        (partial / "trainer.json").write_text(json.dumps(asdict(state) | {"files": files}, indent=1))
        _sync(partial)
        if place.exists():
            shutil.rmtree(place)
        partial.rename(place)
        _sync(place.parent)
    except OSError as e:
        shutil.rmtree(partial, ignore_errors=True)
        raise MynaError(
            f"checkpoint {place.name} cannot be written: {e.strerror or e}. The one before it is whole. Make room, then: "
            f"myna train --resume {run}"
        ) from None
    _forget(run, keep, at(run, state.best_step))
    return place


def at(run: Path, step: int) -> Path:
    """Where the checkpoint after so many steps is."""
    return run / FOLDER / f"step-{step:06d}"


def steps(run: Path) -> list[Path]:
    """The checkpoints there are, oldest first."""
    return sorted(p for p in (run / FOLDER).glob("step-*") if re.fullmatch(r"step-\d+", p.name))


def latest(run: Path) -> tuple[State, Path, list[str]] | None:
    """The newest checkpoint that is whole, and what is wrong with those that are newer."""
    wrong: list[str] = []
    for place in reversed(steps(run)):
        try:
            return read_state(place), place, wrong
        except DataError as e:
            wrong.append(str(e))
    if wrong:
        raise DataError("no checkpoint is whole: " + "; ".join(wrong))
    return None


def read_state(place: Path) -> State:
    """DataError naming the file that is missing, cut short or altered."""
    try:
        found = json.loads((place / "trainer.json").read_text())
        files = found.pop("files")
        state = State(**found)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{place / 'trainer.json'} cannot be read: {e}") from None
    for name, (size, digest) in files.items():
        file = place / name
        if not file.is_file() or file.stat().st_size != size:
            raise DataError(f"{file} is cut short or missing")
        if _hash(file) != digest:
            raise DataError(f"{file} is not what was written")
    return state


def read_weights(place: Path) -> dict[str, Tensor]:
    return _read(place / "weights.safetensors")


def read_moments(place: Path) -> dict[str, Tensor]:
    return _read(place / "optimizer.safetensors")


def moments_of(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Every moment as "parameter:moment"."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {
        f"{names[p]}:{key}": value.detach()
        for optimizer in optimizers
        for p, kept in optimizer.state.items()
        for key, value in kept.items()
    }


def set_moments(model: nn.Module, optimizers: Iterable[torch.optim.Optimizer], moments: Mapping[str, Tensor]) -> None:
    """The inverse. Raises DataError if they are another model's or another optimizer's."""
    named = dict(model.named_parameters())
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for full, value in moments.items():
        name, _, key = full.rpartition(":")
        if name not in named or named[name] not in owners:
            raise DataError(f"the checkpoint has a moment of {name}, which this run does not train")
        p = named[name]
        kept = value if value.ndim == 0 else share_like(value, p)
        owners[p].state[p][key] = kept.clone()


def _files(weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> list[tuple[str, Mapping[str, Tensor]]]:
    return [("weights.safetensors", weights), ("optimizer.safetensors", moments)]


def _write(file: Path, tensors: Mapping[str, Tensor]) -> tuple[int, str]:
    arrays = {name: tensor.detach().float().cpu().contiguous().numpy() for name, tensor in tensors.items()}
    with file.open("wb") as out:
        write_safetensors(out, arrays, {})
        out.flush()
        os.fsync(out.fileno())
    return file.stat().st_size, _hash(file)


def _read(file: Path) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.array(stored.raw).reshape(-1).view(np.float32).reshape(stored.shape))
        for name, stored in read_safetensors(file).items()
    }


def _hash(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "blake2b").hexdigest()[:32]


def _forget(run: Path, keep: int, best: Path) -> None:
    for place in steps(run)[: -max(keep, 1)]:
        if place != best:
            shutil.rmtree(place, ignore_errors=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
