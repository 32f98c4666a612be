"""The file: tables, contents stored once by their hash, writing from several threads and processes.

Whatever the moment of a kill -9, what was committed is whole (SQLite, write-ahead log), and a span that was open stays open.
"""

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from myna.records import Json, MynaError

VERSION = 1  # PRAGMA user_version; a file of a later one is refused, of an earlier one brought up to date
WAIT = 10.0  # seconds that a write waits for another process's
SCHEMA = """
CREATE TABLE contents (hash TEXT PRIMARY KEY, json BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE spans (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, parent INTEGER REFERENCES spans (id), kind TEXT NOT NULL, name TEXT NOT NULL,
    began REAL NOT NULL, ended REAL, outcome TEXT, error TEXT, facts TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX spans_of_run ON spans (run);
CREATE TABLE calls (
    span INTEGER PRIMARY KEY REFERENCES spans (id), model TEXT NOT NULL, prompt TEXT, request TEXT NOT NULL REFERENCES contents (hash),
    reply TEXT REFERENCES contents (hash), prompt_tokens INTEGER, completion_tokens INTEGER, cached_tokens INTEGER, cost REAL
);
CREATE INDEX calls_of_request ON calls (request);
CREATE TABLE checks (
    span INTEGER NOT NULL REFERENCES spans (id), name TEXT NOT NULL, ok INTEGER NOT NULL, score REAL NOT NULL, reason TEXT NOT NULL
);
CREATE INDEX checks_of_span ON checks (span);
CREATE TABLE feedback (
    id INTEGER PRIMARY KEY, span INTEGER NOT NULL REFERENCES spans (id), kind TEXT NOT NULL, value TEXT NOT NULL, consent INTEGER NOT NULL,
    at REAL NOT NULL
);
"""


class TraceError(MynaError):
    """A trace file cannot be read or written."""


def canonical(value: object) -> bytes:
    """The one JSON of a value: what is equal has equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Store:
    """One connection, used under a lock by all threads of this process. The folder is made; the file is nobody else's to read.

    Raises TraceError where the file is none of ours, of a later version, or cannot be written.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            self._refuse_others()
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            with self.write() as db:
                if self._version() == 0:  # else another process was faster
                    for statement in SCHEMA.split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {VERSION}")
        except (OSError, sqlite3.Error) as e:
            raise TraceError(f"{self.path} cannot be opened as a trace file: {e}. Name another with --trace.") from None

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _refuse_others(self) -> None:
        """Before a byte of the file is changed."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if (version := self._version()) > VERSION:
            why = f"was written by a later Myna (format {version}; this one knows {VERSION}). Update myna."
        elif tables and "spans" not in tables:
            why = "is a database, and no trace file. Name another with --trace."
        else:
            return
        self._db.close()
        raise TraceError(f"{self.path} {why}")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing. Raises TraceError (a full disk, another process that holds the file)."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                finally:
                    if self._db.in_transaction:  # a full disk has rolled back already
                        self._db.execute("ROLLBACK")
            except sqlite3.Error as e:
                raise TraceError(f"{self.path} cannot be written: {e}.") from None

    def read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as e:
                raise TraceError(f"{self.path} cannot be read: {e}.") from None

    def content(self, hash: str) -> Any:
        """What has this hash. TraceError where it is not there, or not what was stored."""
        found = self.read("SELECT json FROM contents WHERE hash = ?", hash)
        if not found or not isinstance(found[0][0], bytes) or digest(found[0][0]) != hash:
            raise TraceError(f"{self.path}: the content {hash[:12]} is {'damaged' if found else 'missing'}.")
        return orjson.loads(found[0][0])

    def close(self) -> None:
        with self._lock:
            self._db.close()


def keep(db: sqlite3.Connection, value: object) -> str:
    """Store a value once; its hash."""
    data = canonical(value)
    hash = digest(data)
    db.execute("INSERT OR IGNORE INTO contents VALUES (?, ?)", (hash, data))
    return hash


def keep_all(db: sqlite3.Connection, values: Iterable[Json]) -> list[str]:
    return [keep(db, value) for value in values]
