"""Approvals: somebody said yes to one call with exactly these arguments. Kept in a SQLite file of ours, never in a message, so
whoever sends a conversation back cannot bring one along.

An approval is bound to (run, call id, hash of the tool's definition, sha256 of the canonical arguments). It is good once, until it
expires. The states of a row: asked -> granted -> used, or asked -> refused.
"""

import asyncio
import hashlib
import json
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from myna.apps.tools.tool import Effect, Tool
from myna.records import DataError, MynaError, ToolCall

SECONDS = 600.0  # from the question to the last moment its approval can be used
YES = ("y", "yes", "是", "好")
MOST_ASKED = 1000  # questions that may wait for an answer in one file

SCHEMA = """
create table if not exists approvals (
    id text primary key, run text not null, call text not null, tool text not null, effect text not null,
    definition text not null, sha256 text not null, arguments text not null, reason text not null,
    state text not null check (state in ('asked', 'granted', 'refused', 'used')), expires real not null
);
create index if not exists approvals_by_call on approvals (run, call, state);
"""
NAMES = "id, run, call, tool, effect, definition, arguments, reason, expires"  # the fields of Asked


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to whoever decides. `arguments` is the canonical JSON that will be run, and nothing else will; it is a model's
    text, so show it with `shown` or as data. `expires` is a time as time.time() gives it."""

    id: str
    run: str
    call: str
    tool: str
    effect: Effect
    definition: str
    arguments: str
    reason: str
    expires: float


Ask = Callable[[Asked], Awaitable[bool | None]]
"""Decides: yes, no, or None for "later", when somebody will call `Approvals.decide` and the calls are dispatched again."""


def digest(arguments: str) -> str:
    """sha256 of canonical arguments."""
    return hashlib.sha256(arguments.encode()).hexdigest()


class Approvals:
    """The file of approvals; in memory without a path. Several processes may use one file."""

    def __init__(self, path: Path | None = None, *, seconds: float = SECONDS, now: Callable[[], float] = time.time):
        self.seconds, self._now = seconds, now
        try:
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=10)
            self._db.execute("pragma journal_mode=wal")
            self._db.executescript(SCHEMA)
        except sqlite3.DatabaseError as e:
            raise DataError(f"{path}: the approvals cannot be kept here: {e}. Name another file.") from None

    def ask(self, run: str, call: ToolCall, tool: Tool, arguments: str, reason: str) -> Asked:
        """Write a question down. Raises MynaError when MOST_ASKED are waiting already."""
        (waiting,) = self._db.execute(
            "select count(*) from approvals where state = 'asked' and expires > ?", (self._now(),)
        ).fetchone()
        if waiting >= MOST_ASKED:
            raise MynaError(f"{waiting} questions wait for an answer; answer those first")
        expires = self._now() + self.seconds
        asked = Asked(
            uuid.uuid4().hex, run, call.id, tool.name, tool.effect, tool.definition, arguments, reason, expires
        )
        row = (asked.id, run, call.id, tool.name, tool.effect, asked.definition)
        self._db.execute(
            "insert into approvals values (?, ?, ?, ?, ?, ?, ?, ?, ?, 'asked', ?)",
            (*row, digest(arguments), arguments, reason, expires),
        )
        return asked

    def waiting(self) -> list[Asked]:
        """Questions nobody has answered and that have not expired, oldest first."""
        rows = self._db.execute(
            f"select {NAMES} from approvals where state = 'asked' and expires > ? order by rowid", (self._now(),)
        )
        return [Asked(*row) for row in rows]

    def decide(self, asked: str, yes: bool) -> None:
        """Answer the question with this id. Raises MynaError when it was answered before, has expired or never was."""
        changed = self._db.execute(
            "update approvals set state = ? where id = ? and state = 'asked' and expires > ?",
            ("granted" if yes else "refused", asked, self._now()),
        ).rowcount
        if not changed:
            raise MynaError(f"{asked}: no such question is waiting; it was answered, has expired or never was asked")

    def use(self, run: str, call: ToolCall, tool: Tool, arguments: str) -> str | None:
        """The id of an approval of exactly this call, which is used up by it; None where there is none."""
        bound = (run, call.id, tool.definition, digest(arguments), self._now())
        row = self._db.execute(
            "update approvals set state = 'used' where id = (select id from approvals where run = ? and call = ? and "
            "definition = ? and sha256 = ? and state = 'granted' and expires > ? limit 1) and state = 'granted' returning id",
            bound,
        ).fetchone()
        return row[0] if row else None

    def refused(self, run: str, call: ToolCall, tool: Tool, arguments: str) -> bool:
        """Whether somebody said no to exactly this call."""
        row = self._db.execute(
            "select 1 from approvals where run = ? and call = ? and definition = ? and sha256 = ? and state = 'refused'",
            (run, call.id, tool.definition, digest(arguments)),
        ).fetchone()
        return row is not None

    def used(self, run: str, call: str) -> bool:
        """Whether the call with this id was approved and begun."""
        found = self._db.execute(
            "select 1 from approvals where run = ? and call = ? and state = 'used'", (run, call)
        ).fetchone()
        return found is not None

    def waiting_for(self, run: str, call: ToolCall, tool: Tool, arguments: str) -> Asked | None:
        """The question about exactly this call that nobody has answered yet."""
        row = self._db.execute(
            f"select {NAMES} from approvals where run = ? and call = ? and definition = ? and sha256 = ? "
            "and state = 'asked' and expires > ?",
            (run, call.id, tool.definition, digest(arguments), self._now()),
        ).fetchone()
        return Asked(*row) if row else None

    def close(self) -> None:
        self._db.close()


async def never(asked: Asked) -> bool | None:
    """Says no to everything: nobody is there to ask."""
    return False


async def later(asked: Asked) -> bool | None:
    """Leaves the question in the file, for `Approvals.waiting` and `Approvals.decide`."""
    return None


async def at_terminal(asked: Asked) -> bool | None:
    """Ask whoever sits at the terminal. Anything but y or yes is no, the end of the input too."""
    try:
        answer = await asyncio.to_thread(input, f"{shown(asked)}\nRun it? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in YES


def shown(asked: Asked) -> str:
    """The question in words. What a terminal would obey, or a reader would not see (controls, bidi and zero-width characters),
    is spelled out: arguments come as canonical JSON, which is ASCII, and are decoded where they are printable."""
    text = "".join(_visible(c) for c in _readable(asked.arguments))
    return f"{asked.tool} ({asked.effect}) {text}\nasked because {asked.reason}"


def _readable(ascii_json: str) -> str:
    return json.dumps(json.loads(ascii_json), ensure_ascii=False, sort_keys=True)


def _visible(c: str) -> str:
    return c if c.isprintable() else f"\\u{{{ord(c):x}}}"
