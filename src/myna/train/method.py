"""What a method is to the loop. A method lives in methods/NAME.py and has

Options        a frozen dataclass: its own keys, one line of the docstring each
DEFAULTS       its own values of the common keys, {"optim": {"lr": ...}}
prepare(setup) -> Method
"""

import importlib
import pkgutil
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from myna.data import Batch, Row
from myna.model import Documents
from myna.records import DataError
from myna.train import methods


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """A data.Batch where the model is."""

    ids: Tensor
    targets: Tensor
    positions: Tensor
    docs: Tensor
    weights: Tensor
    numbers: dict[str, Tensor]
    facts: dict[str, Tensor]
    sequences: int
    units: float  # the sum of the weights, known without asking the GPU
    memory: Documents

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> "Tensors":
        def there(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device, non_blocking=True)

        docs = there(batch.docs)
        return cls(
            there(batch.ids), there(batch.targets), there(batch.positions), docs, there(batch.weights),
            {name: there(array) for name, array in batch.numbers.items()},
            {name: there(array) for name, array in batch.facts.items()},
            batch.sequences, float(batch.weights.sum(dtype=np.float64)), Documents(docs),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one micro-batch: the summed loss, over how many units it is to be divided, and sums of what else is worth a look,
    as (sum, over how many). Sums, so that neither micro-batches nor ranks nor padding change a mean. A name that begins with
    "_" is for `report` alone."""

    loss: Tensor
    units: float
    stats: dict[str, tuple[Tensor | float, float]] = field(default_factory=dict)

    def none(self) -> "Outcome":
        """The same of nothing: its gradients are 0, and it adds to no mean."""
        return Outcome(self.loss * 0, 0.0, dict.fromkeys(self.stats, (0.0, 0.0)))


class Method(Protocol):
    """What a model learns, and from what. Rows are a function of the step's number (and, for methods that learn from their
    own answers, of the weights), so that a resumed run sees what the uninterrupted one would have."""

    @property
    def context(self) -> int:
        """Tokens in a row."""
        ...

    @property
    def steps(self) -> int: ...

    def rows(self, step: int) -> list[Row]:
        """What step `step` learns from, over all ranks."""
        ...

    def origins(self, step: int) -> list[str]:
        """Where what step `step` learns from was read: FILE:LINE."""
        ...

    def eval_rows(self) -> list[Row]: ...

    def loss(self, batch: Tensors) -> Outcome: ...

    def report(self, means: dict[str, float]) -> dict[str, float]:
        """Figures that follow from an evaluation's means, such as bits per byte."""
        ...

    def samples(self, step: int) -> list[str]:
        """What the model answers now, as Markdown for people to read."""
        ...


def known() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(methods.__path__) if not module.name.startswith("_"))


def find(name: str) -> ModuleType:
    """The method's module. DataError says which there are."""
    if name not in known():
        raise DataError(f"{name!r} is not a method; these are: {', '.join(known())}.")
    return importlib.import_module(f"{methods.__name__}.{name}")
