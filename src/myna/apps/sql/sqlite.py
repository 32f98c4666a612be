"""SQLite, read: the file is opened read-only, writing is off, and an authorizer allows reading with known functions.

After SQLite's own advice on strangers' SQL and strangers' files, https://sqlite.org/security.html
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from myna.apps.sql.database import (
    Column,
    Dialect,
    ForeignKey,
    Limits,
    Rows,
    Table,
    check_text,
    collect,
    quoted,
    too_slow,
)
from myna.apps.sql.functions import allowed
from myna.records import SqlError
from myna.records.errors import SqlFailure

READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
CHANGES = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
STEPS = 10_000  # of SQLite's machine between two looks at the clock: under a millisecond
WAIT = 2.0  # seconds for another process's lock
# One step can be as long as its longest value: instr of two values of this size takes seconds, and no clock is looked at.
VALUE = 1_000_000
SIZES = {
    sqlite3.SQLITE_LIMIT_LENGTH: VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 500,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
# The schema may be a stranger's too: its views and generated columns call no function that is not innocuous. Sorting in memory
# is not asked for: a large sort then writes SQLite's own temporary file, which it unlinks at once, for as long as the clock allows.
PRAGMAS = "PRAGMA query_only = 1", "PRAGMA trusted_schema = 0", "PRAGMA cell_size_check = 1", "PRAGMA mmap_size = 0"


@dataclass(frozen=True, slots=True)
class Sqlite:
    """A database file. A connection lives as long as one call, so nothing a query does to it outlives the query."""

    path: Path
    dialect: Dialect = "sqlite"

    @property
    def name(self) -> str:
        return self.path.name

    def tables(self) -> tuple[Table, ...]:
        with _errors(self.path, "its schema"), closing(connect(self.path, "ro")) as connection:
            limit(connection, Limits())
            columns: dict[str, list[Column]] = {}
            shadows = {f"{name}_{part}" for (name,) in connection.execute(_VIRTUAL).fetchall() for part in _SHADOWS}
            for table, column, kind, key in connection.execute(_COLUMNS):
                if table not in shadows:
                    columns.setdefault(table, []).append(Column(column, kind, primary=bool(key)))
            keys: dict[str, dict[int, list[tuple[str, str, str]]]] = {}
            for table, number, *pair in connection.execute(_KEYS):
                keys.setdefault(table, {}).setdefault(number, []).append(tuple(pair))
        primary = {table: [one.name for one in found if one.primary] for table, found in columns.items()}
        return tuple(
            Table(table, tuple(found), tuple(_key(pairs, primary) for pairs in keys.get(table, {}).values()))
            for table, found in columns.items()
        )

    def run(self, sql: str, limits: Limits = Limits()) -> Rows:
        check_text(sql)
        with _errors(self.path, sql, limits), closing(connect(self.path, "ro")) as connection:
            for pragma in PRAGMAS:
                connection.execute(pragma)
            limit(connection, limits)
            _wake(connection)
            connection.set_authorizer(authorizer())
            return rows(connection, sql, limits)

    def change(self, sql: str, limits: Limits = Limits()) -> int:
        check_text(sql)
        with _errors(self.path, sql, limits), closing(connect(self.path, "rw")) as connection:
            limit(connection, limits)
            connection.execute("BEGIN IMMEDIATE")
            connection.set_authorizer(authorizer(CHANGES))
            changed = connection.execute(sql).rowcount
            connection.set_authorizer(None)
            connection.execute("COMMIT")  # a connection closed before it takes everything back
            return changed


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """`mode`: "ro", or "rw" for a file that is there. Statements commit by themselves."""
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=WAIT, cached_statements=0)
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    return connection


def limit(connection: sqlite3.Connection, limits: Limits) -> None:
    """Values, queries and time are bounded from here on."""
    for what, most in SIZES.items():
        connection.setlimit(what, most)
    end = time.monotonic() + limits.seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, STEPS)


def _wake(connection: sqlite3.Connection) -> None:
    """Virtual tables declare their columns when they are first used, as a write to SQLite's own schema that is none; so they are
    used once before the authorizer is there to refuse it. One that cannot be woken fails when it is asked for."""
    virtual = [quoted(name) for (name,) in connection.execute(_VIRTUAL)]
    for table in (*virtual, "json_each", "json_tree"):
        with suppress(sqlite3.Error):
            connection.execute(f"SELECT 1 FROM {table} LIMIT 0")


def authorizer(more: set[int] = frozenset()) -> Callable[..., int]:  # type: ignore[assignment]
    """SQLite asks it about every action while it compiles a statement: reading and known functions, and `more`, are allowed.
    SQLite's own tables may be read and never changed."""
    functions = allowed("sqlite")

    def decide(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_OK if (second or "").lower() in functions else sqlite3.SQLITE_DENY
        if (
            action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None
        ):  # full-text search asks for it
            return sqlite3.SQLITE_OK
        if action in more:
            return sqlite3.SQLITE_DENY if (first or "").lower().startswith("sqlite_") else sqlite3.SQLITE_OK
        return sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY

    return decide


def rows(connection: sqlite3.Connection, sql: str, limits: Limits) -> Rows:
    cursor = connection.execute(sql)
    if cursor.description is None:
        raise SqlError("That is no query: it gives no rows.", kind="refused", sql=sql)
    return collect([column[0] for column in cursor.description], cursor.fetchmany, limits)


_KINDS: tuple[tuple[str, SqlFailure, str], ...] = (
    ("not authorized", "refused", "Only reading with known functions is allowed"),
    ("prohibited", "refused", "Only reading with known functions is allowed"),
    ("unsafe use", "refused", "A view calls what is not allowed"),
    ("readonly database", "refused", "Only reading is allowed"),
    ("one statement at a time", "refused", "One query at a time"),
    ("too big", "size", f"A value is longer than {VALUE:,} bytes"),
    ("interrupted", "time", ""),
    ("locked", "unavailable", "Another process is writing it; try again"),
    ("busy", "unavailable", "Another process is writing it; try again"),
    ("not a database", "unavailable", "It is no SQLite file, it is encrypted or it is damaged"),
    ("malformed", "unavailable", "The file is damaged; `sqlite3 FILE .recover` saves what can be saved"),
    ("unable to open", "unavailable", "There is no such file, or it may not be read"),
    ("disk i/o", "unavailable", "The file cannot be read"),
)


@contextmanager
def _errors(path: Path, sql: str, limits: Limits = Limits()) -> Iterator[None]:
    """What sqlite3 raises, as an SqlError that says what kind it is, and which file it is where that is the trouble."""
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, ValueError, OverflowError, OSError) as e:
        message = str(e)
        for words, kind, hint in _KINDS:
            if words in message.lower():
                if kind == "time":
                    raise too_slow(limits, sql) from None
                where = f"{path}: " if kind == "unavailable" else ""
                raise SqlError(f"{where}{hint}: {message}", kind=kind, sql=sql) from None
        raise SqlError(message, kind="failed", sql=sql) from None


# A function in place of a pragma takes the table's name as a value, whatever is in it. (pragma_table_list would know shadow
# tables too, and takes minutes for 10,000 tables.)
_VIRTUAL = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'"
_COLUMNS = """SELECT t.name, c.name, c.type, c.pk FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c
              WHERE t.type IN ('table', 'view') AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY t.name, c.cid"""
_KEYS = """SELECT t.name, k.id, k."from", k."table", k."to" FROM sqlite_master AS t
           JOIN pragma_foreign_key_list(t.name) AS k WHERE t.type = 'table' ORDER BY t.name, k.id, k.seq"""
# What full-text and R-tree tables keep their data in.
_SHADOWS = "content data idx docsize config segments segdir stat node rowid parent".split()


def _key(pairs: list[tuple[str, str, str]], primary: dict[str, list[str]]) -> ForeignKey:
    """A key that names no column of the other table means its primary key."""
    table = pairs[0][1]
    others = [other for _, _, other in pairs]
    if None in others:
        others = primary.get(table, [])[: len(pairs)]
    return ForeignKey(tuple(column for column, _, _ in pairs), table, tuple(others))
