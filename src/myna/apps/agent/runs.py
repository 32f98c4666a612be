"""Runs of agents on this machine, in one SQLite file: each with its session as of its last event, so that one that waits for an approval,
was interrupted or was killed goes on in another process. The file is nobody else's to write, so what it says of taint is believed.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from myna.apps.agent.session import Session
from myna.records import DataError, MynaError, lock
from myna.records.sqlite_file import Layout, SqliteFile

SCHEMA = """
CREATE TABLE agent_runs (
    run TEXT PRIMARY KEY, file TEXT NOT NULL, version TEXT NOT NULL, given TEXT NOT NULL, session TEXT NOT NULL, state TEXT NOT NULL,
    pid INTEGER NOT NULL, at REAL NOT NULL
) WITHOUT ROWID
"""


class AgentFileError(MynaError):
    """The file of agents' runs cannot be read or written, or a run cannot be gone on with."""


LAYOUT = Layout("a", "file of agents' runs", 1, SCHEMA, frozenset({"agent_runs"}), "--runs", AgentFileError)


@dataclass(frozen=True, slots=True)
class Kept:
    """A run as it was left: the agent's file and its version then, its inputs, and why it ended; "running" where it has not, and
    "killed" where its process has."""

    run: str
    file: str
    version: str
    given: Mapping[str, Any]
    session: Session
    state: str
    at: float


class Runs(SqliteFile):
    """See above. Raises AgentFileError."""

    def __init__(self, path: Path | str):
        super().__init__(path, LAYOUT)

    def begin(self, session: Session, file: str, version: str, given: Mapping[str, Any]) -> None:
        row = (session.run, file, version, _json(given), _json(session.to_json()), "running", os.getpid(), time.time())
        with self.write() as db:
            db.execute("INSERT INTO agent_runs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def save(self, session: Session, state: str = "running") -> None:
        """After every event; `state` is the reason, at the end."""
        with self.write() as db:
            row = (_json(session.to_json()), state, time.time(), session.run)
            db.execute("UPDATE agent_runs SET session = ?, state = ?, at = ? WHERE run = ?", row)

    def find(self, run: str) -> Kept:
        """A run; its first characters will do."""
        with self.read() as db:
            rows = db.execute(f"{_SELECT} WHERE substr(run, 1, ?) = ?", (len(run), run)).fetchall()
        if len(rows) != 1 or not run:
            raise AgentFileError(f"{len(rows) or 'no'} runs begin with {run!r}; see `myna agent list`")
        return self._kept(rows[0])

    def held(self, run: str) -> AbstractContextManager[None]:
        """A run is one process's at a time. Raises AgentFileError where it is another's."""
        return lock.locked(self._held(run), f"run {run[:12]}", AgentFileError)

    def latest(self, limit: int = 20) -> list[str]:
        """The latest runs, newest first: `find` reads each, and a damaged one hides no other."""
        with self.read() as db:
            return [run for (run,) in db.execute("SELECT run FROM agent_runs ORDER BY at DESC LIMIT ?", (limit,))]

    def _held(self, run: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{run}.lock")

    def _kept(self, row: tuple[Any, ...]) -> Kept:
        run, file, version, given, session, state, at = row
        if state == "running" and not lock.is_locked(self._held(run), AgentFileError):
            state = "killed"
        try:
            found = Session.from_json(orjson.loads(session), ours=True)
            return Kept(run, file, version, orjson.loads(given), found, state, at)
        except (ValueError, TypeError, DataError) as e:
            raise AgentFileError(f"run {run[:12]} in {self.path} is damaged: {e}.") from None


_SELECT = "SELECT run, file, version, given, session, state, at FROM agent_runs"


def _json(value: object) -> str:
    """A lone surrogate, which a model's arguments may have and UTF-8 cannot write, is a question mark."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()
