"""What a database is here: its tables, and rows that a query gives, within limits. Three kinds: sqlite, duckdb, postgres."""

import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, Protocol

from myna.records import SqlError

Dialect = Literal["sqlite", "duckdb", "postgres"]
Cell = None | bool | int | float | Decimal | str

MAX_SQL = 20_000  # characters of a query; the longest of Spider, SQL-Eval and GeoQuery has 1,100
BATCH = 32  # rows fetched at once, so that a limit on bytes is met soon


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may take and give.

    seconds   until it is stopped
    rows      that are kept; the rest is not fetched
    bytes     of all cells together, as UTF-8
    cell      characters of one cell
    """

    seconds: float = 10.0
    rows: int = 1_000
    bytes: int = 1_000_000
    cell: int = 10_000


@dataclass(frozen=True, slots=True)
class Column:
    """`type` as the database writes it. `comment` is whatever somebody wrote there."""

    name: str
    type: str = ""
    comment: str = ""
    primary: bool = False


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`columns` of this table are `others` of `table`, in this order."""

    columns: tuple[str, ...]
    table: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table or a view. `schema` is "" where an unqualified name finds it."""

    name: str
    columns: tuple[Column, ...]
    keys: tuple[ForeignKey, ...] = ()
    comment: str = ""
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """What a query gave. `notes` say what was left out; a query that gave everything has none."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


class Database(Protocol):
    """A database that is read. Functions block: call them in a thread. All raise SqlError and nothing else."""

    @property
    def name(self) -> str:
        """For people: a file's name, or host and database; never a password."""

    @property
    def dialect(self) -> Dialect: ...

    def tables(self) -> tuple[Table, ...]:
        """All tables and views that can be read, by name."""

    def run(self, sql: str, limits: Limits = Limits()) -> Rows:
        """What a query gives. The connection allows reading and nothing else, whatever the query says."""

    def change(self, sql: str, limits: Limits = Limits()) -> int:
        """Runs one INSERT, UPDATE or DELETE, whole or not at all; rows changed. Only `write.write` calls this."""


def quoted(name: str) -> str:
    """An identifier as all three dialects write it."""
    return '"' + name.replace('"', '""') + '"'


def check_text(sql: str) -> None:
    """Raises SqlError for what is no SQL text at all: empty, too long, with a NUL or half a character in it."""
    if not sql.strip():
        raise SqlError("The query is empty.", kind="refused", sql=sql)
    if len(sql) > MAX_SQL:
        raise SqlError(f"The query has {len(sql):,} characters; {MAX_SQL:,} are allowed.", kind="size", sql=sql[:200])
    if "\0" in sql or any("\ud800" <= c <= "\udfff" for c in sql):
        raise SqlError("The query holds a NUL or half a character.", kind="refused", sql=sql)


def too_slow(limits: Limits, sql: str) -> SqlError:
    return SqlError(
        f"The query was stopped after {limits.seconds:g} seconds. Ask for less, or allow more seconds.",
        kind="time",
        sql=sql,
    )


@contextmanager
def deadline(seconds: float, stop: Callable[[], object]) -> Iterator[None]:
    """Calls `stop` from another thread if the block is not left in time."""
    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def collect(columns: Sequence[str], fetch: Callable[[int], Sequence[Sequence[Any]]], limits: Limits) -> Rows:
    """Rows until they end or a limit is met: the third guard. `fetch(k)` gives up to k more rows."""
    rows: list[tuple[Cell, ...]] = []
    cut, size = 0, 0
    while batch := fetch(min(BATCH, limits.rows + 1 - len(rows))):
        for row in batch:
            if len(rows) == limits.rows:
                return Rows(tuple(columns), tuple(rows), _notes(f"after {limits.rows:,} rows", cut, limits))
            cells = tuple(plain(value, limits.cell) for value in row)
            size += sum(len(cell.encode(errors="replace")) if isinstance(cell, str) else 8 for cell in cells)
            if size > limits.bytes:
                stopped = f"after {len(rows):,} rows: more than {limits.bytes:,} bytes"
                return Rows(tuple(columns), tuple(rows), _notes(stopped, cut, limits))
            cut += sum(isinstance(cell, str) and cell.endswith(CUT) for cell in cells)
            rows.append(cells)
    return Rows(tuple(columns), tuple(rows), _notes("", cut, limits))


CUT = "…[cut]"  # ends a cell that was longer


def plain(value: Any, cell: int) -> Cell:
    """A database's value as one of few types: text is cut after `cell` characters, bytes are hexadecimal, dates ISO 8601."""
    if value is None or isinstance(value, bool | int | float | Decimal):
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value
    if isinstance(value, bytes | bytearray | memoryview):
        text = f"{len(value):,} bytes 0x{bytes(value[: cell // 2]).hex()}"
        return text if len(value) <= cell // 2 else text + CUT
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= cell else text[:cell] + CUT


def _notes(stopped: str, cut: int, limits: Limits) -> tuple[str, ...]:
    notes = [f"not all rows: stopped {stopped}"] if stopped else []
    return (*notes, f"{cut} cells cut after {limits.cell:,} characters") if cut else tuple(notes)
