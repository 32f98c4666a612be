"""Long memory: what an agent keeps beyond a session, one sentence a row in one SQLite file. Each has a source, a time, whether a stranger's
text was there when it was written (then it taints whatever recalls it), from which documents, and what it replaced.

What is said of a subject replaces what was said of it before, which stays as history until it is forgotten. Forgetting is exact: no
row, word, vector or earlier version is left in any byte of the file. What may be from a document goes with it.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from myna.records import MynaError
from myna.records.sqlite_file import Layout, SqliteFile

if TYPE_CHECKING:
    from myna.provider import Embedder

LONGEST = 2000  # characters of one
MEANING = 0.5  # of vectors beside words, where there is an embedder: chosen, not fitted; nobody asks a memory twenty known questions
SCHEMA = """
CREATE TABLE memories (
    id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, about TEXT NOT NULL, source TEXT NOT NULL, at REAL NOT NULL,
    tainted INTEGER NOT NULL, replaced_by INTEGER REFERENCES memories (id) ON DELETE SET NULL, vector BLOB, model TEXT,
    documents TEXT NOT NULL DEFAULT ''
);
CREATE INDEX memories_about ON memories (about, replaced_by);
CREATE VIRTUAL TABLE memory_words USING fts5 (body, tokenize = "ascii tokenchars '.,'")
"""
STEPS = ("ALTER TABLE memories ADD COLUMN documents TEXT NOT NULL DEFAULT ''",)
COLUMNS = "id, text, about, source, at, tainted, replaced_by, documents"


class MemoryFileError(MynaError):
    """A memory file cannot be read or written, or there is no such memory."""


LAYOUT = Layout(
    "a",
    "memory file",
    2,
    SCHEMA,
    frozenset({"memories", "memory_words"}),
    "--memory",
    MemoryFileError,
    ("secure_delete = ON",),
    STEPS,
)


@dataclass(frozen=True, slots=True)
class Remembered:
    """`about`: the subject, "" where it replaces nothing; `source`: who said it, where; `at` as time.time() has it; `replaced_by`: the
    id of what is believed instead, None for what is believed now; `documents`: sha256 of those of an index that had been read when it
    was written."""

    id: int
    text: str
    about: str
    source: str
    at: float
    tainted: bool
    replaced_by: int | None = None
    documents: frozenset[str] = frozenset()


class _File(SqliteFile):
    def scrub(self) -> None:
        """What was deleted is in no segment of the word index and in no write-ahead log any more."""
        with self._lock:
            try:
                self._db.execute("INSERT INTO memory_words (memory_words) VALUES ('optimize')")
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as e:
                raise MemoryFileError(f"{self.path}: what was forgotten may still be in the file: {e}.") from None


class Memory:
    """A memory file. With an embedder what means the same is found, too. Raises MemoryFileError."""

    def __init__(self, path: Path | str, embedder: "Embedder | None" = None, now: Callable[[], float] = time.time):
        self._file, self.embedder, self._now = _File(path, LAYOUT), embedder, now

    @property
    def path(self) -> Path:
        return self._file.path

    def close(self) -> None:
        self._file.close()

    async def remember(
        self, text: str, *, source: str, about: str = "", tainted: bool = False, documents: Collection[str] = ()
    ) -> Remembered:
        """Keep it. The same text is kept once; another one about the same subject replaces the one before."""
        about = " ".join(about.casefold().split())
        new = Remembered(0, _short(text), about, source, self._now(), tainted, None, frozenset(documents))
        vector = await self._vector(new.text, "document")
        return await asyncio.to_thread(self._remember, new, vector)

    async def recall(self, query: str, k: int = 5) -> list[Remembered]:
        """What is believed now and has most to do with the query, best first; what has nothing in common with it is left out."""
        vector = await self._vector(query, "query")
        return await asyncio.to_thread(self._recall, query, k, vector)

    def all(self, *, history: bool = False) -> list[Remembered]:
        """Every memory, oldest first; with `history` also what was replaced."""
        where = "" if history else "WHERE replaced_by IS NULL"
        with self._file.read() as db:
            return [_row(row) for row in db.execute(f"SELECT {COLUMNS} FROM memories {where} ORDER BY id")]

    def history(self, id: int) -> list[Remembered]:
        """A memory and all that it replaced, newest first."""
        with self._file.read() as db:
            return [
                _row(row)
                for row in db.execute(
                    f"{_CHAIN} SELECT {COLUMNS} FROM memories WHERE id IN chain ORDER BY id DESC", (id,)
                )
            ]

    async def edit(self, id: int, text: str, *, source: str) -> Remembered:
        """Another text about the same; the old one becomes history. What a person wrote is not tainted."""
        text = _short(text)
        vector = await self._vector(text, "document")
        with self._file.write() as db:
            old = self._one(db, id)
            if old.replaced_by is not None:
                raise MemoryFileError(f"memory {id} is history: {old.replaced_by} replaced it; edit that one")
            new = _insert(db, Remembered(0, text, old.about, source, self._now(), False), vector, self._model)
            _replace(db, [old.id], new.id)
            return new

    def forget(self, id: int) -> int:
        """It, and all that it replaced, out of the file; how many rows that were."""
        with self._file.write() as db:
            self._one(db, id)
            gone = [row[0] for row in db.execute(f"{_CHAIN} SELECT id FROM chain", (id,))]
            _delete(db, gone)
        self._file.scrub()
        return len(gone)

    def forget_documents(self, documents: Collection[str]) -> int:
        """All that was written after one of these was read, out of the file, as if it had never been: what it replaced is believed again.
        How many rows that were."""
        with self._file.write() as db:
            rows = db.execute("SELECT id, documents FROM memories WHERE documents != ''").fetchall()
            gone = [id for id, drawn in rows if not set(documents).isdisjoint(drawn.split())]
            for id in gone:
                db.execute(
                    "UPDATE memories SET replaced_by = (SELECT replaced_by FROM memories WHERE id = ?1) WHERE replaced_by = ?1",
                    (id,),
                )
            _delete(db, gone)
        if gone:
            self._file.scrub()
        return len(gone)

    @property
    def _model(self) -> str | None:
        return self.embedder.name if self.embedder else None

    async def _vector(self, text: str, kind: str) -> bytes | None:
        if self.embedder is None:
            return None
        import numpy as np

        from myna.apps.index.embed import embed_all

        (row,) = await embed_all(self.embedder, [text], kind)  # type: ignore[arg-type]
        return np.asarray(row, np.float32).tobytes()

    def _one(self, db: sqlite3.Connection, id: int) -> Remembered:
        row = db.execute(f"SELECT {COLUMNS} FROM memories WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise MemoryFileError(f"{self.path} has no memory {id}; see `myna agent memory list`")
        return _row(row)

    def _remember(self, new: Remembered, vector: bytes | None) -> Remembered:
        with self._file.write() as db:
            same = db.execute(
                f"SELECT {COLUMNS} FROM memories WHERE text = ? AND about = ? AND replaced_by IS NULL",
                (new.text, new.about),
            ).fetchone()
            if same and (new.tainted or not _row(same).tainted):
                return _drawn(db, _row(same), new.documents)
            before = [] if same is None else [same[0]]  # said once more by somebody to be trusted, it is another
            if new.about:
                rows = db.execute("SELECT id FROM memories WHERE about = ? AND replaced_by IS NULL", (new.about,))
                before = [id for (id,) in rows]
            new = _insert(db, new, vector, self._model)
            _replace(db, before, new.id)
            return new

    def _recall(self, query: str, k: int, vector: bytes | None) -> list[Remembered]:
        from myna.apps.index.fusion import Pool, fuse
        from myna.apps.index.words import words

        asked = " OR ".join('"' + word.replace('"', '""') + '"' for word in dict.fromkeys(words(query)[:200]))
        with self._file.read() as db:
            known = {
                row[0]: _row(row) for row in db.execute(f"SELECT {COLUMNS} FROM memories WHERE replaced_by IS NULL")
            }
            found = (
                db.execute("SELECT rowid, -bm25(memory_words) FROM memory_words WHERE memory_words MATCH ?", (asked,))
                if asked
                else ()
            )
            lexical = {id: max(score, 1e-6) for id, score in found if id in known}
            dense = _cosines(db, vector, self._model) if vector else {}
        scores = fuse(Pool(lexical, dense), MEANING if dense else 0.0)
        return [known[id] for id in sorted(scores, key=lambda id: (-scores[id], -id)) if id in known][:k]


# A memory and, link by link, all that it replaced.
_CHAIN = (
    "WITH RECURSIVE chain (id) AS (VALUES (?) UNION SELECT m.id FROM memories m JOIN chain c ON m.replaced_by = c.id)"
)


def _row(row: Sequence[object]) -> Remembered:
    id, text, about, source, at, tainted, replaced, documents = row
    drawn = frozenset(str(documents).split())
    return Remembered(id, text, about, source, at, bool(tainted), replaced, drawn)  # type: ignore[arg-type]


def _short(text: str) -> str:
    text = " ".join(text.split())
    if not text or len(text) > LONGEST:
        raise MemoryFileError(f"a memory has 1 to {LONGEST} characters; this one has {len(text)}")
    return text


def _insert(db: sqlite3.Connection, new: Remembered, vector: bytes | None, model: str | None) -> Remembered:
    from myna.apps.index.words import words

    drawn = " ".join(sorted(new.documents))
    done = db.execute(
        "INSERT INTO memories (text, about, source, at, tainted, vector, model, documents) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (new.text, new.about, new.source, new.at, int(new.tainted), vector, model, drawn),
    )
    id = int(done.lastrowid or 0)
    db.execute("INSERT INTO memory_words (rowid, body) VALUES (?, ?)", (id, " ".join(words(f"{new.about} {new.text}"))))
    return replace(new, id=id)


def _drawn(db: sqlite3.Connection, one: Remembered, documents: frozenset[str]) -> Remembered:
    """The memory, from these documents, too. What somebody to be trusted said stays his."""
    if not one.tainted or documents <= one.documents:
        return one
    every = one.documents | documents
    db.execute("UPDATE memories SET documents = ? WHERE id = ?", (" ".join(sorted(every)), one.id))
    return replace(one, documents=every)


def _delete(db: sqlite3.Connection, ids: Sequence[int]) -> None:
    db.executemany("DELETE FROM memory_words WHERE rowid = ?", [(id,) for id in ids])
    db.executemany("DELETE FROM memories WHERE id = ?", [(id,) for id in ids])


def _replace(db: sqlite3.Connection, old: Sequence[int], new: int) -> None:
    db.executemany("UPDATE memories SET replaced_by = ? WHERE id = ?", [(new, id) for id in old])


def _cosines(db: sqlite3.Connection, query: bytes, model: str | None) -> dict[int, float]:
    """Of every memory that this model embedded."""
    import numpy as np

    rows = db.execute("SELECT id, vector FROM memories WHERE replaced_by IS NULL AND model = ?", (model,)).fetchall()
    if not rows:
        return {}
    matrix = np.stack([np.frombuffer(vector, np.float32) for _, vector in rows])
    return {id: float(score) for (id, _), score in zip(rows, matrix @ np.frombuffer(query, np.float32), strict=True)}
