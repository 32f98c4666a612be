"""The reference of preference methods: the model as it is before the first step, of which only numbers are needed, the
log-probability of each answer. They are computed once and kept in the run directory, so there is no second model in memory,
and a run that is resumed learns from the very same numbers.

A LoRA adapter begins as nothing, so the model before the first step is the one without it.
"""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from myna.data import Example, Examples, collate
from myna.data.pack import pack
from myna.records import DataError
from myna.train.config import Config
from myna.train.method import Tensors
from myna.train.preference import answer_log_probs
from myna.train.setup import Setup
from myna.train.trainee import Trainee

FACT = "reference"
FILE = "reference.npz"
Kept = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Referenced:
    """Examples whose sequences know what log-probability the reference gives them: `kept` [examples, sequences of each]."""

    examples: Examples
    kept: Kept

    @property
    def lengths(self) -> npt.NDArray[np.integer]:
        return self.examples.lengths

    def __getitem__(self, index: int, /) -> Example:
        known = zip(self.examples[index], self.kept[index], strict=True)
        return tuple(replace(sequence, facts={**sequence.facts, FACT: float(value)}) for sequence, value in known)


def referenced(setup: Setup, **parts: Examples | None) -> dict[str, Referenced]:
    """These examples with their reference, from the run directory if it is there; None is left out. DataError if what is
    there is of other examples or another model."""
    there = {name: examples for name, examples in parts.items() if examples is not None}
    place, mark = setup.run / FILE, _mark(setup.trainee, there.values())
    kept = _read(place, mark)
    if kept is None:
        kept = {name: log_probs_now(setup.trainee, examples, setup.config) for name, examples in there.items()}
        if setup.world.is_main:
            _write(place, kept, mark)
    return {name: Referenced(examples, kept[name]) for name, examples in there.items()}


@torch.no_grad()
def log_probs_now(trainee: Trainee, examples: Examples, config: Config) -> Kept:
    """The log-probability of each sequence under the weights as they are [examples, sequences of each], without dropout."""
    training = trainee.module.training
    trainee.module.eval()
    context, size = config.data.context, config.run.micro or config.run.rows
    rows = [row.tolist() for row in pack(examples.lengths, context, seed=0, epoch=0)]
    found: dict[int, Kept] = {}
    for group in (rows[at : at + size] for at in range(0, len(rows), size)):
        batch = Tensors.of(collate([[examples[i] for i in row] for row in group], context), trainee.device)
        with trainee.computing(config.model.precision):
            values = answer_log_probs(trainee.decoder, batch)[0].float().cpu().numpy()
        order = [i for row in group for i in row]
        found |= zip(order, np.split(values, len(order)), strict=True)
    trainee.module.train(training)
    return np.stack([found[i] for i in range(len(found))])


def _mark(trainee: Trainee, parts: Iterable[Examples]) -> str:
    """Of the weights that judge, and of what they judge."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(trainee.module.state_dict().items()):
        if ".loras." not in name:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for examples in parts:
        for sequence in (sequence for i in range(len(examples.lengths)) for sequence in examples[i]):
            digest.update(np.asarray(sequence.ids, np.int64).tobytes())
            digest.update(np.asarray(sequence.weights, np.float32).tobytes())
    return digest.hexdigest()


def _read(place: Path, mark: str) -> dict[str, Kept] | None:
    if not place.exists():
        return None
    try:
        with np.load(place, allow_pickle=False) as stored:
            kept = dict(stored)
    except (OSError, ValueError) as e:
        raise DataError(f"{place} cannot be read: {e}. Remove it, and it is computed again.") from None
    if str(kept.pop("mark", "")) != mark:
        raise DataError(
            f"{place} was computed with another model or other data. If they were not meant to change, put them back; "
            f"else remove it and begin a new run."
        )
    return kept


def _write(place: Path, kept: dict[str, Kept], mark: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(place.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, mark=np.array(mark), **kept)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(place)
