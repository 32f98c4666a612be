"""The journal: one SQLite file of runs and of every attempt at every step, written before it begins and after it ends.

What is written survives a kill -9 and a loss of power: every commit is on the disk before the next thing happens (synchronous = FULL).
"""

import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import orjson

from myna.apps.flow.errors import Failure, JournalError
from myna.checks import Verdict
from myna.records import RequestError
from myna.records.sqlite_file import Layout, SqliteFile

State = Literal["intent", "done", "failed", "unknown"]
Effect = Literal["read", "write"]
SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, flow TEXT NOT NULL, file TEXT NOT NULL, inputs BLOB NOT NULL, model TEXT NOT NULL,
    max_calls INTEGER NOT NULL, began REAL NOT NULL, ended REAL, outcome TEXT, output BLOB, error TEXT, span INTEGER
);
CREATE TABLE steps (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs (id), path TEXT NOT NULL, attempt INTEGER NOT NULL, try INTEGER NOT NULL,
    name TEXT NOT NULL, effect TEXT NOT NULL, code TEXT, input_hash TEXT, inputs BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('intent', 'done', 'failed', 'unknown')), output BLOB, output_hash TEXT,
    failure TEXT, error TEXT, again INTEGER NOT NULL DEFAULT 0, began REAL NOT NULL, ended REAL, calls INTEGER, tokens INTEGER,
    UNIQUE (run, path, attempt)
);
CREATE TABLE verdicts (
    step INTEGER NOT NULL REFERENCES steps (id), name TEXT NOT NULL, ok INTEGER NOT NULL, score REAL NOT NULL, reason TEXT NOT NULL
);
CREATE INDEX verdicts_of_step ON verdicts (step)
"""
LAYOUT = Layout(
    "a", "journal of flows", 1, SCHEMA, frozenset({"runs", "steps"}), "--journal", JournalError, ("synchronous = FULL",)
)


def journal_file() -> Path:
    """$MYNA_JOURNAL, else flows.sqlite in $XDG_DATA_HOME/myna, else in ~/.local/share/myna."""
    if named := os.environ.get("MYNA_JOURNAL"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "myna" / "flows.sqlite"


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run. `key` is a random name that no other run has; `outcome` is None while it runs, or where it was killed; `span` is its
    latest run in a trace."""

    id: int
    key: str
    flow: str
    file: str
    inputs: bytes
    model: str
    max_calls: int
    began: float
    ended: float | None
    outcome: str | None
    output: bytes | None
    error: str | None
    span: int | None


@dataclass(frozen=True, slots=True)
class StepRow:
    """An attempt at a step.

    path      where: "answer", "answer#2", "gather[0]/answer", "outer/inner"
    attempt   counts all there were, from 1
    try_      counts those that were made because one failed, from 1; what is nested has a path of its own in each
    code, input_hash   None where a person said that the output holds whatever they are
    failure   why it failed; `again`: a resumed run makes it anew, else it fails again with the same words
    """

    id: int
    run: int
    path: str
    attempt: int
    try_: int
    name: str
    effect: Effect
    code: dict[str, str] | None
    input_hash: str | None
    inputs: bytes
    state: State
    output: bytes | None
    failure: Failure | None
    error: str | None
    again: bool
    began: float
    ended: float | None
    calls: int | None
    tokens: int | None
    verdicts: tuple[tuple[str, Verdict], ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended; `output` also where a check refused it."""

    state: State
    output: bytes | None = None
    failure: Failure | None = None
    error: str | None = None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    calls: int = 0
    tokens: int = 0


RUN = "id, key, flow, file, inputs, model, max_calls, began, ended, outcome, output, error, span"
STEP = "id, run, path, attempt, try, name, effect, code, input_hash, inputs, state, output, failure, error, again, began, ended, calls, tokens"  # fmt: skip


class Journal(SqliteFile):
    """The file. Raises JournalError where it is none of ours, of a later version, damaged, full or locked."""

    def __init__(self, path: Path | str):
        super().__init__(path, LAYOUT)

    def begin_run(self, flow: str, file: str, inputs: bytes, model: str, max_calls: int) -> int:
        """Its number."""
        with self.write() as db:
            row = (secrets.token_hex(16), flow, file, inputs, model, max_calls, time.time())
            names = "key, flow, file, inputs, model, max_calls, began"
            return int(db.execute(f"INSERT INTO runs ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", row).lastrowid or 0)

    def resume_run(self, run: int, model: str) -> None:
        with self.write() as db:
            db.execute(
                "UPDATE runs SET ended = NULL, outcome = NULL, error = NULL, model = ? WHERE id = ?", (model, run)
            )

    def span(self, run: int, span: int) -> None:
        """Which run of a trace shows it."""
        with self.write() as db:
            db.execute("UPDATE runs SET span = ? WHERE id = ?", (span, run))

    def end_run(self, run: int, outcome: str, output: bytes | None, error: str, again: list[str]) -> None:
        """`again`: the paths of the steps whose failure ended it."""
        with self.write() as db:
            row = (time.time(), outcome, output, error or None, run)
            db.execute("UPDATE runs SET ended = ?, outcome = ?, output = ?, error = ? WHERE id = ?", row)
            for path in again:
                db.execute("UPDATE steps SET again = 1 WHERE run = ? AND path = ? AND state = 'failed'", (run, path))

    def run(self, run: int) -> RunRow:
        """Raises RequestError where there is none."""
        found = self.rows(f"SELECT {RUN} FROM runs WHERE id = ?", run)
        if not found:
            raise RequestError(f"there is no run {run} in {self.path}; see `myna flow list`.", param="run")
        return RunRow(*found[0])

    def runs(self, flow: str | None = None, limit: int = -1) -> list[RunRow]:
        """The latest first."""
        query = f"SELECT {RUN} FROM runs WHERE ?1 IS NULL OR flow = ?1 ORDER BY id DESC LIMIT ?2"
        return [RunRow(*row) for row in self.rows(query, flow, limit)]

    def begin(self, row: StepRow) -> StepRow:
        """Write down that a step is about to be made: the row, with its number and its time."""
        code = None if row.code is None else orjson.dumps(row.code).decode()
        names = "run, path, attempt, try, name, effect, code, input_hash, inputs, state, began"
        values = (row.run, row.path, row.attempt, row.try_, row.name, row.effect, code, row.input_hash, row.inputs)
        with self.write() as db:
            done = db.execute(
                f"INSERT INTO steps ({names}) VALUES ({', '.join('?' * 11)})", (*values, "intent", time.time())
            )
        return self._steps("id = ?", done.lastrowid)[0]

    def end(self, id: int, end: End) -> None:
        """How an attempt ended. What comes late from one that was given up changes nothing; what was ended from outside is made anew
        by a resumed run."""
        names = "state = ?, output = ?, output_hash = ?, failure = ?, error = ?, again = ?, ended = ?, calls = ?, tokens = ?"
        again, hash = end.failure in ("stopped", "interrupted"), None if end.output is None else _digest(end.output)
        row = (end.state, end.output, hash, end.failure, end.error, again, time.time(), end.calls, end.tokens, id)
        with self.write() as db:
            if db.execute(f"UPDATE steps SET {names} WHERE id = ? AND state = 'intent'", row).rowcount:
                self._verdicts(db, id, end.verdicts)

    def answer(self, id: int, state: State, output: bytes | None, error: str) -> None:
        """What is known by now of a step whose state was not. One that happened is good whatever its code and inputs become."""
        with self.write() as db:
            hash = None if output is None else _digest(output)
            names = (
                "state = ?, output = ?, output_hash = ?, failure = ?, error = ?, again = 1, ended = ifnull(ended, ?)"
            )
            failure = "answered" if state == "failed" else None
            db.execute(f"UPDATE steps SET {names} WHERE id = ?", (state, output, hash, failure, error, time.time(), id))
            if state == "done":
                db.execute("UPDATE steps SET code = NULL, input_hash = NULL WHERE id = ?", (id,))

    def judge(self, id: int, name: str, verdict: Verdict) -> None:
        """What a check said of a step afterwards."""
        with self.write() as db:
            self._verdicts(db, id, {name: verdict})

    def latest(self, run: int, path: str) -> StepRow | None:
        """The last attempt at a step."""
        found = self._steps("run = ? AND path = ? ORDER BY attempt DESC LIMIT 1", run, path)
        return found[0] if found else None

    def steps(self, run: int) -> list[StepRow]:
        """All attempts of a run, in the order in which they began."""
        return self._steps("run = ? ORDER BY id", run)

    def last_begun(self, run: int) -> str | None:
        """The path of the step that began last."""
        found = self.rows("SELECT path FROM steps WHERE run = ? ORDER BY id DESC LIMIT 1", run)
        return str(found[0][0]) if found else None

    def _steps(self, where: str, *values: object) -> list[StepRow]:
        rows = self.rows(f"SELECT {STEP}, output_hash FROM steps WHERE {where}", *values)
        return [self._step(row[:-1], row[-1]) for row in rows]

    def _step(self, row: tuple[Any, ...], hash: str | None) -> StepRow:
        step = StepRow(*row)
        if (step.output is None) != (hash is None) or (step.output is not None and _digest(step.output) != hash):
            raise JournalError(f"{self.path}: the output of {step.path} in run {step.run} is damaged.")
        found = self.rows("SELECT name, ok, score, reason FROM verdicts WHERE step = ? ORDER BY rowid", step.id)
        verdicts = tuple((name, Verdict(bool(ok), score, reason)) for name, ok, score, reason in found)
        code = None if step.code is None else orjson.loads(str(step.code))
        return replace(step, code=code, again=bool(step.again), verdicts=verdicts)

    def _verdicts(self, db: sqlite3.Connection, id: int, verdicts: Mapping[str, Verdict]) -> None:
        for name, said in verdicts.items():
            db.execute(
                "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?)", (id, name, said.ok, said.score, said.reason[:2000])
            )


def _digest(output: object) -> str:
    return hashlib.sha256(output if isinstance(output, bytes) else str(output).encode()).hexdigest()
