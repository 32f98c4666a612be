"""Examples looked at once, in packed batches, by a model that is not changed by them: a reference, a teacher, or the weights
of the moment."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from myna.data import Examples, collate
from myna.data.pack import pack
from myna.train.config import Config
from myna.train.method import Tensors


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Without dropout and without gradients; then as it was."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


def groups(examples: Examples, config: Config) -> list[list[list[int]]]:
    """The numbers of all examples, each once, in packed rows, as many rows together as training computes."""
    rows = [row.tolist() for row in pack(examples.lengths, config.data.context, seed=0, epoch=0)]
    size = config.run.micro or config.run.rows
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def batch_of(examples: Examples, rows: Sequence[Sequence[int]], context: int, device: torch.device) -> Tensors:
    """These rows of examples; their sequences come in this order."""
    return Tensors.of(collate([[examples[i] for i in row] for row in rows], context), device)


def batches(examples: Examples, config: Config, device: torch.device) -> Iterator[tuple[list[int], Tensors]]:
    """All examples once: the numbers of a batch's, in the order in which their sequences come, and the batch."""
    for rows in groups(examples, config):
        yield [i for row in rows for i in row], batch_of(examples, rows, config.data.context, device)


def mark(of: hashlib.blake2b, parts: Iterable[Examples]) -> str:
    """A digest of what was hashed so far and of every example's ids and weights."""
    for examples in parts:
        for sequence in (sequence for i in range(len(examples.lengths)) for sequence in examples[i]):
            of.update(np.asarray(sequence.ids, np.int64).tobytes())
            of.update(np.asarray(sequence.weights, np.float32).tobytes())
    return of.hexdigest()
