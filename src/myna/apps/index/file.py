"""An index in one SQLite file.

Words are always searched. With an embedder chunks get vectors as well, and how much these count is fitted on questions
(`tune`); until then, and where they do not help, words decide alone and `Found.how` says so. With an arm a structure over the chunks
is searched beside them (arm.py).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from myna.apps.index import rows
from myna.apps.index import vectors as matrix
from myna.apps.index.arm import UNFITTED, Arm, Asked, Led
from myna.apps.index.dates import Dated
from myna.apps.index.embed import embed_all
from myna.apps.index.fusion import Fitted, Pool, fit, fuse, how
from myna.apps.index.index import DEPTH, RERANKED, Added, Found, Hit, Listed, Told
from myna.apps.index.parsed import Parsed
from myna.apps.index.rank import any_of, asked, combine, query_words, rescored
from myna.apps.index.reading import Document
from myna.apps.index.store import HEADING, IndexFileError, Store, fact, say
from myna.provider import Embedder, Scorer

if TYPE_CHECKING:
    import sqlite3

    import numpy as np

TOGETHER = 64  # chunks embedded, and stored, at once
Question = tuple[str, str]  # what is asked, and the name of the document that answers it


class FileIndex:
    """See Index. Raises IndexFileError where the file is none of ours or cannot be written, or holds vectors of another model."""

    def __init__(self, path: Path | str, embedder: Embedder | None = None, arm: Arm | None = None):
        self.store = Store(path)
        self.embedder, self.arm = embedder, arm
        self._matrix: matrix.Matrix | None = None

    def close(self) -> None:
        self.store.close()

    async def add(self, documents: Iterable[Document], told: Told = lambda one: None) -> list[Added]:
        """See Index.add. Vectors are made after the words are in, of all chunks that have none: what was interrupted goes on."""
        self._check_model()
        added: list[Added] = []
        for document in documents:
            added.append(await asyncio.to_thread(self._add, document))
            told(added[-1])
        if any(one.outcome == "replaced" for one in added):
            await asyncio.to_thread(self.store.scrub)
        if self.embedder:
            await self._embed_missing(self.embedder)
        return added

    async def remove(self, names: Iterable[str]) -> int:
        """See Index.remove."""
        return await asyncio.to_thread(self._remove, list(names))

    async def search(self, queries: str | Sequence[str], k: int = 10, *, rerank: Scorer | None = None) -> Found:
        """See Index.search."""
        given = asked(queries, k)
        self._check_model()
        meant = await embed_all(self.embedder, given, "query") if self.embedder else None
        found = await asyncio.to_thread(self._search, given, meant, max(k, RERANKED) if rerank else k)
        return await rescored(rerank, given, found, k) if rerank else found

    async def documents(self) -> list[Listed]:
        """See Index.documents."""
        with self.store.read() as db:
            found = db.execute(
                "SELECT name, d.sha, title, kind, size, length(text), (SELECT count(*) FROM chunks c WHERE c.sha = d.sha), "
                "(SELECT count(*) FROM chunks c JOIN vectors v ON v.chunk = c.id WHERE c.sha = d.sha), "
                "date, modified FROM names n JOIN documents d ON d.sha = n.sha ORDER BY name"
            ).fetchall()
        return [replace(Listed(*row), dated=Dated.of(date, (modified,))) for *row, date, modified in found]

    def parsed(self, sha256: str) -> Parsed | None:
        """The document that a citation names."""
        with self.store.read() as db:
            return rows.get(db, sha256)

    def fitted(self) -> Fitted | None:
        """How much vectors count, and how that was found; None before `tune`."""
        with self.store.read() as db:
            return _fitted(db)

    async def tune(self, questions: Sequence[Question], asked: str = "given") -> Fitted:
        """Fit the weight of the vectors on questions, or that of the arm where there is one, and keep it in the file."""
        if not (self.embedder or self.arm):
            raise IndexFileError(f"{self.store.path}: there is nothing to weigh without an embedder.")
        arms = ("search", self.arm.name) if self.arm else ("words", "vectors")
        return await self.keep(fit(await self.pools(questions), asked, arms))

    async def keep(self, fitted: Fitted) -> Fitted:
        """From now on search with this weight."""
        with self.store.write() as db:
            say(db, _fact_of(fitted.arms[1]), asdict(fitted))
        return fitted

    def vectors(self) -> matrix.Matrix:
        """All of them, as the file has them now."""
        with self.store.read() as db:
            return self._vectors(db)

    async def pools(self, questions: Sequence[Question]) -> list[Pool]:
        """What words and vectors find for each question, or with an arm what both and it find, and which chunks are right: for
        fitting and measuring."""
        self._check_model()
        texts = [question for question, _ in questions]
        meant = await embed_all(self.embedder, texts, "query") if self.embedder and texts else None
        return await asyncio.to_thread(self._pools, questions, meant)

    # What runs in a thread, within transactions.

    def _add(self, document: Document) -> Added:
        name, sha = document.name, document.sha256
        with self.store.write() as db:
            before = db.execute("SELECT sha FROM names WHERE name = ?", (name,)).fetchone()
            known = db.execute("SELECT digest FROM documents WHERE sha = ?", (sha,)).fetchone()
            same = known == (rows.digest(document.parsed),)
            if same:
                db.execute("UPDATE documents SET date = ? WHERE sha = ?", (document.parsed.date, sha))
            else:
                others = db.execute("SELECT name, sha, modified FROM names WHERE sha = ?", (sha,)).fetchall()
                rows.drop(db, sha)
                rows.put(db, document)
                db.executemany("INSERT INTO names VALUES (?, ?, ?)", others)
            db.execute(
                "INSERT INTO names VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sha = excluded.sha, modified = excluded.modified",
                (name, sha, document.modified),
            )  # no REPLACE: that runs no trigger of a structure
            if before and before != (sha,):
                rows.drop_nameless(db, before)
            (count,) = db.execute("SELECT count(*) FROM chunks WHERE sha = ?", (sha,)).fetchone()
        outcome = "new" if not before else "same" if same and before == (sha,) else "replaced"
        return Added(name, sha, outcome, count)  # type: ignore[arg-type]

    def _remove(self, names: list[str]) -> int:
        removed = 0
        with self.store.write() as db:
            for name in names:
                found = db.execute("SELECT sha FROM names WHERE name = ?", (name,)).fetchone()
                if found:
                    db.execute("DELETE FROM names WHERE name = ?", (name,))
                    rows.drop_nameless(db, found)
                    removed += 1
            if not db.execute("SELECT 1 FROM documents LIMIT 1").fetchone():
                db.execute("DELETE FROM facts WHERE name <> 'changes'")  # an empty index may take another model
        if removed:
            self.store.scrub()
        return removed

    async def _embed_missing(self, embedder: Embedder) -> None:
        missing = "SELECT id, text FROM chunks WHERE id NOT IN (SELECT chunk FROM vectors) ORDER BY sha, start LIMIT ?"
        while True:
            with self.store.read() as db:
                todo = db.execute(missing, (TOGETHER,)).fetchall()
            if not todo:
                return
            made = await embed_all(embedder, [text for _, text in todo], "document")
            await asyncio.to_thread(self._keep_vectors, embedder.name, todo, made)

    def _keep_vectors(self, model: str, todo: list[tuple[int, str]], made: "np.ndarray") -> None:
        with self.store.write() as db:
            if (known := fact(db, "embedder")) not in (None, model):
                raise self._other_model(known, model)
            if (size := fact(db, "dimensions")) not in (None, made.shape[1]):
                raise self._other_size(size, made.shape[1])
            say(db, "embedder", model)
            say(db, "dimensions", made.shape[1])
            for (chunk, text), vector in zip(
                todo, made, strict=True
            ):  # what another process has replaced meanwhile is let go
                db.execute(
                    "INSERT OR REPLACE INTO vectors SELECT id, ? FROM chunks WHERE id = ? AND text = ?", (matrix.pack(vector), chunk, text)
                )  # fmt: skip

    def _search(self, given: Sequence[str], meant: "np.ndarray | None", k: int) -> Found:
        notes, pools, each, ways = [], [], [], []
        with self.store.read() as db:
            for i, query in enumerate(given):
                pool, note = self._pool(db, query, None if meant is None else meant[i], max(k, DEPTH))
                flat, led = self._led(db, query, None if meant is None else meant[i], pool)
                notes += [*([note] if note else []), *led.notes]
                pools.append(pool)
                each.append(fuse(Pool(flat, led.scores), self._arm_weight(db)))
                ways.append(led.via)
            scores = combine(each)
            order = sorted(scores, key=lambda one: (-scores[one], self._place(db, one)))[:k]
            hits = tuple(self._hit(db, one, scores[one], pools, ways) for one in order)
            ranked = self._how(db)
        return Found(hits, ranked, tuple(dict.fromkeys(notes)))

    def _led(
        self, db: "sqlite3.Connection", query: str, meant: "np.ndarray | None", pool: Pool
    ) -> tuple[dict[int, float], Led]:
        """What words and vectors make of their pool, and where the arm leads."""
        weight = fitted.weight if (fitted := _fitted(db)) else 0.0
        flat = fuse(pool, weight)
        if self.arm is None:
            return flat, Led({}, {})
        return flat, self.arm.lead(db, Asked(query, meant, weight, flat, fact(db, "changes")))

    def _arm_weight(self, db: "sqlite3.Connection") -> float:
        if self.arm is None:
            return 0.0
        return fitted.weight if (fitted := _fitted(db, self.arm.name)) else UNFITTED

    def _pool(self, db: "sqlite3.Connection", query: str, meant: "np.ndarray | None", depth: int) -> tuple[Pool, str]:
        asked_for, note = query_words(query)
        lexical = _lexical(db, asked_for, depth)
        if meant is None:
            return Pool(lexical, {}), note
        known = self._vectors(db)
        if not len(known.chunks):
            return Pool(lexical, {}), note
        if len(meant) != known.rows.shape[1]:
            raise self._other_size(known.rows.shape[1], len(meant))
        return Pool(lexical, known.beside(meant, lexical, depth)), note

    def _pools(self, questions: Sequence[Question], meant: "np.ndarray | None") -> list[Pool]:
        pools = []
        with self.store.read() as db:
            for i, (question, name) in enumerate(questions):
                found = db.execute("SELECT c.id FROM names n JOIN chunks c ON c.sha = n.sha WHERE name = ?", (name,))
                right = frozenset(one for (one,) in found)
                pool, _ = self._pool(db, question, None if meant is None else meant[i], DEPTH)
                if self.arm:
                    flat, led = self._led(db, question, None if meant is None else meant[i], pool)
                    pool = Pool(flat, led.scores)
                pools.append(replace(pool, right=right))
        return pools

    def _vectors(self, db: "sqlite3.Connection") -> matrix.Matrix:
        """As they are in this transaction: read again when the file has changed, by whichever process."""
        changes = fact(db, "changes")
        if self._matrix is None or self._matrix.changes != changes:
            self._matrix = matrix.load(db, changes)
        return self._matrix

    def _hit(
        self,
        db: "sqlite3.Connection",
        chunk: int,
        score: float,
        pools: Sequence[Pool],
        ways: Sequence[Mapping[int, tuple[str, ...]]],
    ) -> Hit:
        columns = "sha, start, end, section, parent_start, parent_end, text"
        sha, start, end, section, *parent, text = db.execute(
            f"SELECT {columns} FROM chunks WHERE id = ?", (chunk,)
        ).fetchone()
        names = db.execute("SELECT name, modified FROM names WHERE sha = ? ORDER BY name", (sha,)).fetchall()
        (date,) = db.execute("SELECT date FROM documents WHERE sha = ?", (sha,)).fetchone()
        page = db.execute(
            "SELECT json_extract(page.value, '$[0]') FROM documents, json_each(layout, '$.pages') page WHERE sha = ? "
            "AND json_extract(page.value, '$[1]') <= ? ORDER BY 1 DESC LIMIT 1", (sha, start),
        ).fetchone()  # fmt: skip
        cosines = [pool.dense[chunk] for pool in pools if chunk in pool.dense]
        return Hit(
            sha, start, end, text, tuple(name for name, _ in names), rows.path(db, sha, section), page[0] if page else None,
            (parent[0], parent[1]), score, max(pool.lexical.get(chunk, 0.0) for pool in pools), max(cosines, default=None),
            tuple(dict.fromkeys(line for via in ways for line in via.get(chunk, ()))),
            Dated.of(date, (modified for _, modified in names)),
        )  # fmt: skip

    def _place(self, db: "sqlite3.Connection", chunk: int) -> tuple[str, int]:
        """What decides between equal scores: not when something was added."""
        sha, start = db.execute("SELECT sha, start FROM chunks WHERE id = ?", (chunk,)).fetchone()
        return sha, start

    def _how(self, db: "sqlite3.Connection") -> str:
        flat = how(self.embedder is not None, _fitted(db))
        if self.arm is None:
            return flat
        weighed = _fitted(db, self.arm.name) or f"weight {UNFITTED} of {self.arm.name}, which is not fitted"
        return f"{flat}; {weighed}"

    def _check_model(self) -> None:
        with self.store.read() as db:
            known = fact(db, "embedder")
        if self.embedder and known not in (None, self.embedder.name):
            raise self._other_model(known, self.embedder.name)

    def _other_size(self, known: int, given: int) -> IndexFileError:
        return IndexFileError(
            f"{self.store.path} holds vectors of {known} numbers, and its model gives {given} now. Use the model as it was, or make another index."
        )

    def _other_model(self, known: str, model: str) -> IndexFileError:
        return IndexFileError(
            f"{self.store.path} holds vectors of {known}, which do not compare with those of {model}. Use {known}, or make another index."
        )


def _fact_of(arm: str) -> str:
    return "fitted" if arm == "vectors" else f"fitted {arm}"


def _fitted(db: "sqlite3.Connection", arm: str = "vectors") -> Fitted | None:
    known = fact(db, _fact_of(arm))
    return Fitted(**known | {"arms": tuple(known.get("arms", ("words", "vectors")))}) if known else None


def _lexical(db: "sqlite3.Connection", asked_for: Sequence[str], depth: int) -> dict[int, float]:
    """chunk -> BM25 (k1 1.2, b 0.75: FTS5's own), the `depth` best."""
    if not asked_for:
        return {}
    found = db.execute(
        "SELECT words.rowid, round(-bm25(words, ?, 1.0), 6) AS score FROM words JOIN chunks ON chunks.id = words.rowid "
        "WHERE words MATCH ? ORDER BY score DESC, sha, start LIMIT ?",
        (HEADING, any_of(asked_for), depth),
    )
    return dict(found.fetchall())
