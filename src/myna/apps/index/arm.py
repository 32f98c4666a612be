"""A structure over the chunks of an index that is searched beside words and vectors: one arm more.

    index = FileIndex("index.sqlite", embedder, arm=Tree())     (myna.apps.index.tree, myna.apps.index.graph)

What a structure holds, a model said about documents: it is untrusted, as they are. It only ever leads to chunks, which are the
documents' own words; `Hit.via` says what led there.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

UNFITTED = 0.3  # of an arm that somebody asked for by name, until `tune` has fitted its weight: docs/experiments.md


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, and what the index knows of it before an arm is asked: `meant` its vector [d], `weight` that of vectors beside
    words, `flat` chunk -> score by words and vectors, `changes` the state of the file."""

    query: str
    meant: "np.ndarray | None"
    weight: float
    flat: Mapping[int, float]
    changes: int


@dataclass(frozen=True, slots=True)
class Led:
    """chunk -> how well the structure leads there, higher is better; the lines that say how; what a reader of the hits should know."""

    scores: Mapping[int, float]
    via: Mapping[int, tuple[str, ...]]
    notes: tuple[str, ...] = ()


class Arm(Protocol):
    """A structure that is searched."""

    @property
    def name(self) -> str:
        """ "tree", "graph": what `myna search --by` calls it."""

    def lead(self, db: sqlite3.Connection, asked: Asked) -> Led:
        """Where the structure leads, within a transaction. Nothing where it was not built."""
