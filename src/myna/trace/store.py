"""The file: tables, contents stored once by their hash, writing from several threads and processes.

Whatever the moment of a kill -9, what was committed is whole (SQLite, write-ahead log), and a span that was open stays open.
"""

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from myna.records import Json, MynaError, RequestError
from myna.records.sqlite_file import Layout, SqliteFile

VERSION = 1  # PRAGMA user_version; a file of a later one is refused, of an earlier one brought up to date
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
    """The one JSON of a value: what is equal has equal bytes. Raises RequestError where there is none."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as e:  # a lone surrogate in a text
        raise RequestError(f"a request or an answer cannot be recorded: {e}.") from None


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


LAYOUT = Layout("a", "trace file", VERSION, SCHEMA, frozenset({"spans"}), "--trace", TraceError)


class Store(SqliteFile):
    """The file of a trace. Raises TraceError where it is none of ours, of a later version, or cannot be written."""

    def __init__(self, path: Path | str):
        super().__init__(path, LAYOUT)

    def content(self, hash: str) -> Any:
        """What has this hash. TraceError where it is not there, or not what was stored."""
        found = self.rows("SELECT json FROM contents WHERE hash = ?", hash)
        with suppress(ValueError):
            if found and isinstance(found[0][0], bytes) and digest(found[0][0]) == hash:
                return orjson.loads(found[0][0])
        raise TraceError(f"{self.path}: the content {str(hash)[:12]} is {'damaged' if found else 'missing'}.")


def keep(db: sqlite3.Connection, value: object) -> str:
    """Store a value once; its hash."""
    data = canonical(value)
    hash = digest(data)
    db.execute("INSERT OR IGNORE INTO contents VALUES (?, ?)", (hash, data))
    return hash


def keep_all(db: sqlite3.Connection, values: Iterable[Json]) -> list[str]:
    return [keep(db, value) for value in values]
