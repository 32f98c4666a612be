"""Runs of agents on this machine, in one SQLite file: each with its session as of its last event, so that one that waits for an approval,
was interrupted or was killed goes on in another process. The file is nobody else's to write, so what it says of taint is believed.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from myna.apps.agent.session import Session
from myna.records import MynaError
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
    """A run as it was left: the agent's file and its version then, its inputs, and why it ended; "running" where it did not."""

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

    def take(self, run: str) -> Kept:
        """A run to go on with, which is this process's from now on; its first characters will do."""
        with self.write() as db:
            rows = db.execute(
                "SELECT run, pid, state FROM agent_runs WHERE substr(run, 1, ?) = ?", (len(run), run)
            ).fetchall()
            if len(rows) != 1 or not run:
                raise AgentFileError(f"{len(rows) or 'no'} runs begin with {run!r}; see `myna agent list`")
            name, pid, state = rows[0]
            if state == "running" and pid != os.getpid() and _lives(pid):
                raise AgentFileError(f"run {name[:12]} is running in process {pid}")
            db.execute("UPDATE agent_runs SET pid = ?, state = 'running' WHERE run = ?", (os.getpid(), name))
            return _kept(db.execute(f"{_SELECT} WHERE run = ?", (name,)).fetchone(), state)

    def all(self, limit: int = 20) -> list[Kept]:
        """The latest, newest first."""
        with self.read() as db:
            return [_kept(row) for row in db.execute(f"{_SELECT} ORDER BY at DESC LIMIT ?", (limit,))]


_SELECT = "SELECT run, file, version, given, session, state, at FROM agent_runs"


def _kept(row: tuple[Any, ...], state: str | None = None) -> Kept:
    run, file, version, given, session, now, at = row
    return Kept(
        run, file, version, orjson.loads(given), Session.from_json(orjson.loads(session), ours=True), state or now, at
    )


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
