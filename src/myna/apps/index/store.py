"""The file of an index: one SQLite database with documents, sections, chunks, their words (FTS5) and their vectors.

Whatever the moment of a kill -9, what was committed is whole (write-ahead log). Several processes may use one file: readers
see one state of it, writers wait for each other. What is deleted is overwritten, in FTS5's segments too.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from myna.records import MynaError
from myna.records.sqlite_file import Layout, SqliteFile

HEADING = 0.5  # of a word in a title beside one in the text: chosen, not measured (the sets of bench have no titles)
VERSION = 2  # PRAGMA user_version; a file of a later one is refused, of an earlier one brought up to date
# `words` holds what words.words() made, joined by blanks: the ascii tokenizer cuts there alone, as all else that a word may
# hold is declared to be part of it. Its rowid is the chunk's id.
SCHEMA = """
CREATE TABLE documents (
    sha TEXT PRIMARY KEY, digest TEXT NOT NULL, title TEXT NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, text TEXT NOT NULL,
    layout TEXT NOT NULL, date TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE TABLE names (
    name TEXT PRIMARY KEY, sha TEXT NOT NULL REFERENCES documents (sha) ON DELETE CASCADE, modified TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
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

# Dates: a document's own, and the day on which the file of each name was last changed. Unknown until it is added again.
TO_2 = """
ALTER TABLE documents ADD COLUMN date TEXT NOT NULL DEFAULT '';
ALTER TABLE names ADD COLUMN modified TEXT NOT NULL DEFAULT ''
"""


class IndexFileError(MynaError):
    """The file of an index cannot be read or written."""


LAYOUT = Layout(
    "an",
    "index",
    VERSION,
    SCHEMA,
    frozenset({"chunks", "words"}),
    "--index",
    IndexFileError,
    ("secure_delete = ON",),
    (TO_2,),
)


class Store(SqliteFile):
    """The file of an index. Raises IndexFileError where it is none of ours, of a later version, or cannot be written."""

    def __init__(self, path: Path | str):
        super().__init__(path, LAYOUT)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """See SqliteFile.write; counts the change."""
        with super().write() as db:
            yield db
            db.execute("UPDATE facts SET value = value + 1 WHERE name = 'changes'")

    def scrub(self) -> None:
        """After something was deleted: FTS5 merges its segments, which hold the words of the dead until then, and the log of
        earlier states is emptied. Another process that reads may keep that log for a while; the next scrub empties it."""
        with super().write() as db:
            tables = db.execute("SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE%fts5%'").fetchall()
            for (table,) in tables:  # those of structures, too
                db.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def fact(db: sqlite3.Connection, name: str) -> Any:
    """What is known of the index as a whole; None where nothing was said."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return orjson.loads(row[0]) if row else None


def say(db: sqlite3.Connection, name: str, value: object) -> None:
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, orjson.dumps(value).decode()))
