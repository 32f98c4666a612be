"""The file of an index: one SQLite database with documents, sections, chunks, their words (FTS5) and their vectors.

Whatever the moment of a kill -9, what was committed is whole (write-ahead log). Several processes may use one file: readers
see one state of it, writers wait for each other. What is deleted is overwritten, in FTS5's segments too.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from myna.records import MynaError

VERSION = 1  # PRAGMA user_version; a file of a later one is refused
WAIT = 10.0  # seconds that a write waits for another process's
# `words` holds what words.words() made, joined by blanks: the ascii tokenizer cuts there alone, as all else that a word may
# hold is declared to be part of it. Its rowid is the chunk's id.
SCHEMA = """
CREATE TABLE documents (
    sha TEXT PRIMARY KEY, digest TEXT NOT NULL, title TEXT NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, text TEXT NOT NULL,
    layout TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE names (name TEXT PRIMARY KEY, sha TEXT NOT NULL REFERENCES documents (sha) ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX names_of_document ON names (sha);
CREATE TABLE sections (
    sha TEXT NOT NULL REFERENCES documents (sha) ON DELETE CASCADE, number INTEGER NOT NULL, title TEXT NOT NULL, level INTEGER NOT NULL,
    parent INTEGER, start INTEGER NOT NULL, end INTEGER NOT NULL, PRIMARY KEY (sha, number)
) WITHOUT ROWID;
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY, sha TEXT NOT NULL REFERENCES documents (sha) ON DELETE CASCADE, start INTEGER NOT NULL, end INTEGER NOT NULL,
    section INTEGER, parent_start INTEGER NOT NULL, parent_end INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE (sha, start)
);
CREATE TABLE vectors (chunk INTEGER PRIMARY KEY REFERENCES chunks (id) ON DELETE CASCADE, vector BLOB NOT NULL);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (heading, body, tokenize = "ascii tokenchars '.,'");
INSERT INTO facts VALUES ('changes', '0')
"""


class IndexFileError(MynaError):
    """The file of an index cannot be read or written."""


class Store:
    """One connection, used under a lock by all threads of this process. The folder is made; the file is nobody else's to read.

    Raises IndexFileError where the file is none of ours, of a later version, or cannot be written.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            self._refuse_others()
            for setting in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "secure_delete = ON"):
                self._db.execute(f"PRAGMA {setting}")
            self._make()
        except (OSError, sqlite3.Error) as e:
            raise IndexFileError(f"{self.path} cannot be opened as an index: {e}. Name another with --index.") from None

    def _make(self) -> None:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            if self._version() == 0:  # else another process was faster
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._db.execute("COMMIT")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _refuse_others(self) -> None:
        """Before a byte of the file is changed."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if (version := self._version()) > VERSION:
            why = f"was written by a later Myna (format {version}; this one knows {VERSION}). Update myna."
        elif tables and not {"chunks", "words"} <= tables:
            why = "is a database, and no index. Name another with --index."
        else:
            return
        self._db.close()
        raise IndexFileError(f"{self.path} {why}")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing. Raises IndexFileError (a full disk, another process that holds the file)."""
        with self._transaction("BEGIN IMMEDIATE", "written") as db:
            yield db
            db.execute("UPDATE facts SET value = value + 1 WHERE name = 'changes'")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One state of the file for all that is asked of it, whatever other processes write meanwhile."""
        with self._transaction("BEGIN", "read") as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str, what: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute(begin)
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                finally:
                    if self._db.in_transaction:  # a full disk has rolled back already
                        self._db.execute("ROLLBACK")
            except sqlite3.Error as e:
                raise IndexFileError(f"{self.path} cannot be {what}: {e}.") from None

    def scrub(self) -> None:
        """After something was deleted: FTS5 merges its segments, which hold the words of the dead until then, and the log of
        earlier states is emptied. Another process that reads may keep that log for a while; the next scrub empties it."""
        with self._transaction("BEGIN IMMEDIATE", "written") as db:
            db.execute("INSERT INTO words (words) VALUES ('optimize')")
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        with self._lock:
            self._db.close()


def fact(db: sqlite3.Connection, name: str) -> Any:
    """What is known of the index as a whole; None where nothing was said."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return orjson.loads(row[0]) if row else None


def say(db: sqlite3.Connection, name: str, value: object) -> None:
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, orjson.dumps(value).decode()))
