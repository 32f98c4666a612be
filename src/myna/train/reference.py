"""The model as it was before the first step, with which DPO, KTO and GRPO compare.

Of examples that are known before the first step only numbers are needed, the log-probability of each answer. They are
computed once and kept in the run directory, so there is no second model in memory, and a run that is resumed learns from
the very same numbers: `referenced`.

Answers that are still to be drawn need the model itself, `Reference`: with new adapters it is the same model without them;
with adapters that training goes on from, the same model with copies of them; else a frozen copy.
"""

import copy
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from myna.data import Example, Examples
from myna.model.lora import Adapted, Lora
from myna.records import DataError
from myna.train.config import Config
from myna.train.loss import log_probs
from myna.train.method import Tensors
from myna.train.once import batches, mark, unchanged
from myna.train.preference import answer_log_probs
from myna.train.rundir import REFERENCE
from myna.train.setup import Setup
from myna.train.trainee import Trainee

FACT = "reference"
Kept = npt.NDArray[np.float32]


class Reference:
    """Made before anything is trained, and before a checkpoint is read."""

    def __init__(self, trainee: Trainee):
        self.trainee = trainee
        self.begun = [(m, _at_start(m.loras)) for m in trainee.decoder.modules() if isinstance(m, Adapted)]
        self.frozen = None if self.begun else copy.deepcopy(trainee.decoder).requires_grad_(False)

    def log_probs(self, batch: Tensors, temperature: float = 1.0) -> Tensor:
        """log p(target) [B, T] by the model of the start, without dropout."""
        decoder = self.trainee.decoder if self.frozen is None else self.frozen
        with unchanged(decoder), _as_begun(self.begun):
            return log_probs(decoder, decoder(batch.ids, batch.positions, batch.memory), batch.targets, temperature)


def _at_start(loras: nn.ModuleList) -> nn.ModuleList:
    """Nothing, if they are new: then they change nothing."""
    new = all(isinstance(lora, Lora) and lora.magnitude is None and not lora.b.any() for lora in loras)
    return nn.ModuleList() if new else copy.deepcopy(loras).requires_grad_(False).eval()


@contextmanager
def _as_begun(begun: list[tuple[Adapted, nn.ModuleList]]) -> Iterator[None]:
    kept = [module.loras for module, _ in begun]
    for module, loras in begun:
        module.loras = loras
    try:
        yield
    finally:
        for (module, _), loras in zip(begun, kept, strict=True):
            module.loras = loras


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
    place, mine = setup.run / REFERENCE, _mark(setup.trainee, there.values())
    kept = _read(place, mine)
    if kept is None:
        kept = {name: log_probs_now(setup.trainee, examples, setup.config) for name, examples in there.items()}
        if setup.world.is_main:
            _write(place, kept, mine)
    return {name: Referenced(examples, kept[name]) for name, examples in there.items()}


def log_probs_now(trainee: Trainee, examples: Examples, config: Config) -> Kept:
    """The log-probability of each sequence under the weights as they are [examples, sequences of each], without dropout."""
    found: dict[int, Kept] = {}
    for members, batch in batches(examples, config, trainee.device):
        with unchanged(trainee.module), trainee.computing(config.model.precision):
            values = answer_log_probs(trainee.decoder, batch)[0].float().cpu().numpy()
        found |= zip(members, np.split(values, len(members)), strict=True)
    return np.stack([found[i] for i in range(len(found))])


def _mark(trainee: Trainee, parts: Iterable[Examples]) -> str:
    """Of the weights that judge, and of what they judge."""
    judge = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(trainee.module.state_dict().items()):
        judge.update(name.encode())
        judge.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return mark(judge, parts)


def _read(place: Path, mine: str) -> dict[str, Kept] | None:
    if not place.exists():
        return None
    try:
        with np.load(place, allow_pickle=False) as stored:
            kept = dict(stored)
    except (OSError, ValueError) as e:
        raise DataError(f"{place} cannot be read: {e}. Remove it, and it is computed again.") from None
    if str(kept.pop("mark", "")) != mine:
        raise DataError(
            f"{place} was computed with another model or other data. If they were not meant to change, put them back; "
            "else remove it, and it is computed again."
        )
    return kept


def _write(place: Path, kept: dict[str, Kept], mine: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(place.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, mark=np.array(mine), **kept)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(place)
