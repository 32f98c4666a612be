"""Exact nearest neighbours: all vectors of an index in memory, one product a query.

They are kept as float16 in the file, where half the bits changed no R@1 on XQuAD in English and Chinese, and computed with in float32.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DIGITS = 6  # of a cosine: beyond them is rounding, which must not decide a rank


@dataclass(frozen=True, slots=True)
class Matrix:
    """The vectors of an index as it was after so many `changes`: `rows` float32 [n, d], each of length 1, and their `chunks` [n].

    Rows are in the order of (document, start), so that results do not depend on the order in which documents came.
    """

    changes: int
    chunks: "np.ndarray"
    rows: "np.ndarray"
    place: dict[int, int] = field(init=False, repr=False)  # chunk -> its row

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", {int(chunk): row for row, chunk in enumerate(self.chunks)})

    def cosines(self, query: "np.ndarray") -> "np.ndarray":
        """float32 [n], of a query [d] of length 1."""
        import numpy as np

        return np.round(self.rows @ query.astype(np.float32), DIGITS)

    def beside(self, query: "np.ndarray", lexical: Iterable[int], depth: int) -> dict[int, float]:
        """chunk -> cosine, of the `depth` nearest and of every chunk that words found: Pool.dense."""
        cosines = self.cosines(query)
        found = {int(self.chunks[i]): float(cosines[i]) for i in nearest(cosines, depth)}
        return found | {one: float(cosines[self.place[one]]) for one in lexical if one in self.place}


def pack(vector: "np.ndarray") -> bytes:
    return vector.astype("<f2").tobytes()


CHUNKS = "SELECT chunk, vector FROM vectors JOIN chunks ON chunks.id = vectors.chunk ORDER BY sha, start"


def load(db: sqlite3.Connection, changes: int, query: str = CHUNKS) -> Matrix:
    """All vectors of the file that a query (number, vector) gives, in its order."""
    import numpy as np

    found = db.execute(query).fetchall()
    if not found:
        return Matrix(changes, np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
    rows = np.frombuffer(b"".join(blob for _, blob in found), "<f2").reshape(len(found), -1).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)  # float16 has moved them off length 1
    return Matrix(changes, np.array([chunk for chunk, _ in found], np.int64), rows)


def nearest(cosines: "np.ndarray", k: int) -> Sequence[int]:
    """The places of the k highest, highest first; of equal ones the earlier place."""
    import numpy as np

    if k < len(cosines):
        least = np.partition(cosines, len(cosines) - k)[len(cosines) - k]
        places = np.flatnonzero(cosines >= least)
    else:
        places = np.arange(len(cosines))
    return [int(i) for i in places[np.argsort(-cosines[places], kind="stable")][:k]]
