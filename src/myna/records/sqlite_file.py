"""A SQLite file of ours: made where there is none, refused where it is somebody else's or of a later version, written in
transactions by several threads and processes. One of an earlier version is brought up to date when it is opened.

Whatever the moment of a kill -9, what was committed is whole (write-ahead log).
"""

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from myna.records.errors import MynaError

WAIT = 10.0  # seconds that a write waits for another process's
TODO = {
    sqlite3.SQLITE_BUSY: f": another process has it for longer than {WAIT:g} seconds; run it again when that one is done",
    sqlite3.SQLITE_FULL: ": make room, and run it again",
    sqlite3.SQLITE_IOERR: ": perhaps the disk is full",
    sqlite3.SQLITE_CORRUPT: ": `sqlite3 FILE .recover` saves what is left",
    sqlite3.SQLITE_READONLY: ": copy it to where you may write",
}
SETTINGS = ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON")


@dataclass(frozen=True, slots=True)
class Layout:
    """What is in the file.

    article   "a" or "an", before
    kind      what people call it ("trace file")
    version   PRAGMA user_version; a file of a later one is refused
    tables    without which a database is not one of these
    flag      how another file is named on the command line
    error     what is raised
    settings  pragmas beside SETTINGS
    steps     what makes a file of version n one of n + 1, from version 1 on: as many as there were versions before
    """

    article: str
    kind: str
    version: int
    schema: str
    tables: frozenset[str]
    flag: str
    error: type[MynaError]
    settings: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.steps) != self.version - 1:
            raise ValueError(
                f"version {self.version} of the {self.kind} needs {self.version - 1} steps, not {len(self.steps)}"
            )


class SqliteFile:
    """One connection, used under a lock by all threads of this process. The folder is made; the file is nobody else's to read.

    Raises the layout's error where the file is none of ours, of a later version, or cannot be written.
    """

    def __init__(self, path: Path | str, layout: Layout):
        self.path, self._layout = Path(path), layout
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None, check_same_thread=False)
            self._refuse_others()
            for setting in (*SETTINGS, *layout.settings):
                self._db.execute(f"PRAGMA {setting}")
            if self._version() < layout.version:
                self._bring_up()
        except (OSError, sqlite3.Error) as e:
            said = f"{self.path} cannot be opened as {layout.article} {layout.kind}: {_why(e)}. Name another with {layout.flag}."
            raise layout.error(said) from None

    def _bring_up(self) -> None:
        """To the layout's version, from none or an earlier one."""
        with self.write() as db:
            version = self._version()  # within the transaction: another process may have been faster
            for step in (self._layout.schema,) if version == 0 else self._layout.steps[version - 1 :]:
                for statement in step.split(";"):
                    db.execute(statement)
            if version < self._layout.version:
                db.execute(f"PRAGMA user_version = {self._layout.version}")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _refuse_others(self) -> None:
        """Before a byte of the file is changed."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if (version := self._version()) > self._layout.version:
            why = f"was written by a later Myna (format {version}; this one knows {self._layout.version}). Update myna."
        elif tables and (
            self._version() == 0 or not self._layout.tables <= tables
        ):  # ours has its version from the first
            why = f"is a database, and no {self._layout.kind}. Name another with {self._layout.flag}."
        else:
            return
        self._db.close()
        raise self._layout.error(f"{self.path} {why}")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing. Raises the layout's error: a full disk, another process that holds the file."""
        with self._transaction("BEGIN IMMEDIATE", "written") as db:
            yield db

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One state of the file for all that is asked of it, whatever other processes write meanwhile."""
        with self._transaction("BEGIN", "read") as db:
            yield db

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of one query, also within a transaction of this thread's. Raises the layout's error."""
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except (sqlite3.Error, OverflowError) as e:  # a number of more than 63 bits
                raise self._layout.error(f"{self.path} cannot be read: {_why(e)}.") from None

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
            except (sqlite3.Error, OverflowError) as e:
                raise self._layout.error(f"{self.path} cannot be {what}: {_why(e)}.") from None

    def close(self) -> None:
        with self._lock:
            self._db.close()


def _why(problem: Exception) -> str:
    """What is wrong, and what to do about it where that is known."""
    if isinstance(problem, OSError):
        done = problem.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        return (problem.strerror or str(problem)) + (": copy it to where you may write" if done else "")
    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF  # the primary one
    return str(problem) + TODO.get(code, "")
