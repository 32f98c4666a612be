"""Documents like others: similar ones, recommended ones, and how like each other two are.

What a document is about is its words by how much they tell (tf idf), and where the index has vectors the mean of its passages'. Of several
documents the mean is taken, and half the mean of those that are not wanted is taken away (Rocchio 1971).
"""

import math
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from myna.apps.index.file import FileIndex
from myna.apps.index.fusion import DIGITS, Pool, fuse
from myna.apps.index.rank import any_of
from myna.records import RequestError

if TYPE_CHECKING:
    import numpy as np

TELLING = 40  # words that a document is looked for by; Lucene's MoreLikeThis takes 25
AWAY = 0.5  # of what is not wanted
Weights = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Similar:
    """A document, and how like it is: `score` compares within one search, the cosines of words and vectors everywhere."""

    names: tuple[str, ...]
    sha256: str
    score: float
    words: float
    vectors: float | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """Cosines of two documents, and the words that tell most of what they share."""

    words: float
    vectors: float | None
    shared: tuple[str, ...]


def similar(index: FileIndex, like: Sequence[str], unlike: Sequence[str] = (), k: int = 10) -> list[Similar]:
    """The k documents most like those named, which are left out. Vectors count as they were fitted for the index, else words decide.
    Raises RequestError for names that are not there, and for a k below 1."""
    if k < 1:
        raise RequestError(f"a search is for at least one document, not {k}.", param="k")
    if not like:
        raise RequestError("there is nothing that the documents should be like.", param="like")
    matrix = index.vectors()
    fitted = index.fitted()
    with index.store.read() as db:
        rare = _Rarity(db)
        liked, unliked = ([_sha(db, name) for name in names] for names in (like, unlike))
        wanted = _towards([rare.weights(sha) for sha in liked], [rare.weights(sha) for sha in unliked])
        telling = dict(sorted(wanted.items(), key=lambda item: (-item[1], item[0]))[:TELLING])
        found = _candidates(db, telling) - {*liked, *unliked}
        means = _means(db, matrix.chunks, matrix.rows) if len(matrix.chunks) else {}
        lexical = {sha: _cosine(wanted, rare.weights(sha)) for sha in found}
        dense = _dense(means, liked, unliked) if all(sha in means for sha in liked) else {}
        order = {sha: n for n, sha in enumerate(sorted({*lexical, *dense}))}
        pool = Pool({order[sha]: s for sha, s in lexical.items()}, {order[sha]: s for sha, s in dense.items()})
        scores = fuse(pool, fitted.weight if fitted else 0.0)
        best = sorted(order, key=lambda sha: (-scores.get(order[sha], -1.0), sha))[:k]
        return [
            Similar(_names(db, sha), sha, scores[order[sha]], lexical.get(sha, 0.0), dense.get(sha))
            for sha in best
            if order[sha] in scores
        ]


def compare(index: FileIndex, one: str, other: str) -> Compared:
    """How like each other two documents are. Raises RequestError for names that are not there."""
    matrix = index.vectors()
    with index.store.read() as db:
        rare = _Rarity(db)
        shas = [_sha(db, name) for name in (one, other)]
        a, b = (rare.weights(sha) for sha in shas)
        means = _means(db, matrix.chunks, matrix.rows) if len(matrix.chunks) else {}
        both = all(sha in means for sha in shas)
        dense = round(float(means[shas[0]] @ means[shas[1]]), DIGITS) if both else None
    shared = sorted(a.keys() & b.keys(), key=lambda word: (-a[word] * b[word], word))
    return Compared(_cosine(a, b), dense, tuple(shared[:10]))


class _Rarity:
    """ln(1 + passages / passages with the word), out of the words of the index."""

    def __init__(self, db: sqlite3.Connection):
        self._db = db
        db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.vocabulary USING fts5vocab(main, words, row)")
        (self._passages,) = db.execute("SELECT count(*) FROM chunks").fetchone()
        self._known: dict[str, float] = {}

    def weights(self, sha: str) -> dict[str, float]:
        """word -> (1 + ln tf) idf, of one document."""
        query = "SELECT body FROM words WHERE rowid IN (SELECT id FROM chunks WHERE sha = ?)"
        counts = Counter(word for (body,) in self._db.execute(query, (sha,)) for word in body.split())
        return {word: (1 + math.log(count)) * self._of(word) for word, count in counts.items()}

    def _of(self, word: str) -> float:
        if word not in self._known:
            row = self._db.execute("SELECT doc FROM temp.vocabulary WHERE term = ?", (word,)).fetchone()
            self._known[word] = math.log(1 + self._passages / (row[0] if row else 1))
        return self._known[word]


def _towards(liked: Sequence[Weights], unliked: Sequence[Weights]) -> dict[str, float]:
    made: dict[str, float] = {}
    for some, sign in ((liked, 1.0), (unliked, -AWAY)):
        for weights in some:
            length = math.sqrt(sum(weight * weight for weight in weights.values())) or 1.0
            for word, weight in weights.items():
                made[word] = made.get(word, 0.0) + sign * weight / length / len(some)
    return {word: weight for word, weight in made.items() if weight > 0}


def _candidates(db: sqlite3.Connection, telling: Weights) -> set[str]:
    if not telling:
        return set()
    query = any_of(telling)
    found = db.execute("SELECT DISTINCT sha FROM words JOIN chunks ON id = words.rowid WHERE words MATCH ?", (query,))
    return {sha for (sha,) in found}


def _cosine(a: Weights, b: Weights) -> float:
    dot = sum(weight * b.get(word, 0.0) for word, weight in a.items())
    lengths = math.sqrt(sum(w * w for w in a.values())) * math.sqrt(sum(w * w for w in b.values()))
    return round(dot / lengths, DIGITS) if lengths else 0.0


def _means(db: sqlite3.Connection, chunks: "np.ndarray", rows: "np.ndarray") -> dict[str, "np.ndarray"]:
    """Of length 1, by document."""
    import numpy as np

    owners = dict(db.execute("SELECT id, sha FROM chunks").fetchall())
    of: dict[str, list[int]] = {}
    for place, chunk in enumerate(chunks):
        if int(chunk) in owners:
            of.setdefault(owners[int(chunk)], []).append(place)
    sums = {sha: rows[places].sum(axis=0) for sha, places in of.items()}
    return {sha: total / max(float(np.linalg.norm(total)), 1e-12) for sha, total in sums.items()}


def _dense(means: Mapping[str, "np.ndarray"], liked: Sequence[str], unliked: Sequence[str]) -> dict[str, float]:
    import numpy as np

    wanted = np.mean([means[sha] for sha in liked], axis=0)
    if known := [means[sha] for sha in unliked if sha in means]:
        wanted = wanted - AWAY * np.mean(known, axis=0)
    wanted = wanted / max(float(np.linalg.norm(wanted)), 1e-12)
    left = means.keys() - {*liked, *unliked}
    return {sha: round(float(means[sha] @ wanted), DIGITS) for sha in sorted(left)}


def _sha(db: sqlite3.Connection, name: str) -> str:
    row = db.execute("SELECT sha FROM names WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise RequestError(f"{name} is not in the index; `myna index list` shows what is.", param="like")
    return str(row[0])


def _names(db: sqlite3.Connection, sha: str) -> tuple[str, ...]:
    return tuple(name for (name,) in db.execute("SELECT name FROM names WHERE sha = ? ORDER BY name", (sha,)))
