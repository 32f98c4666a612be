"""DuckDB, read: the file is opened read-only, nothing outside it can be reached, the configuration is locked.

https://duckdb.org/docs/stable/operations_manual/securing_duckdb/overview
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from myna.apps.sql.database import (
    Column,
    Dialect,
    ForeignKey,
    Limits,
    Rows,
    Table,
    check_text,
    collect,
    deadline,
    too_slow,
)
from myna.records import SqlError
from myna.records.errors import SqlFailure

if TYPE_CHECKING:
    import duckdb

CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",  # no file, no network: read_csv, COPY, ATTACH, extensions, secrets
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",  # a name that is no table is not looked up among Python's variables
    "memory_limit": "1GB",
    "temp_directory": "",
    "max_temp_directory_size": "0KB",  # what does not fit in memory fails, and fills no disk
    "threads": "2",
    "lock_configuration": "true",
}


@dataclass(frozen=True, slots=True)
class DuckDb:
    """A database file. A connection lives as long as one call."""

    path: Path
    dialect: Dialect = "duckdb"

    @property
    def name(self) -> str:
        return self.path.name

    def tables(self) -> tuple[Table, ...]:
        with self._connect("its schema", Limits(), read_only=True) as connection:
            comments = dict(connection.execute(_COMMENTS).fetchall())
            keys: dict[tuple[str, str], list[ForeignKey]] = {}
            for schema, table, own, other, others in connection.execute(_KEYS).fetchall():
                keys.setdefault((schema, table), []).append(ForeignKey(tuple(own), other, tuple(others)))
            primary = {(schema, table): set(own) for schema, table, own in connection.execute(_PRIMARY).fetchall()}
            columns: dict[tuple[str, str], list[Column]] = {}
            for schema, table, name, kind, comment in connection.execute(_COLUMNS).fetchall():
                one = Column(name, kind, comment or "", name in primary.get((schema, table), ()))
                columns.setdefault((schema, table), []).append(one)
        return tuple(
            Table(
                at[1],
                tuple(found),
                tuple(keys.get(at, ())),
                comments.get(at[1]) or "",
                "" if at[0] == "main" else at[0],
            )
            for at, found in columns.items()
        )

    def run(self, sql: str, limits: Limits = Limits()) -> Rows:
        import duckdb

        check_text(sql)
        with self._connect(sql, limits, read_only=True) as connection:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise SqlError("One query at a time, and nothing but a query.", kind="refused", sql=sql)
            connection.execute(statements[0])
            return collect([column[0] for column in connection.description or ()], connection.fetchmany, limits)

    def change(self, sql: str, limits: Limits = Limits()) -> int:
        import duckdb

        check_text(sql)
        kinds = {duckdb.StatementType.INSERT, duckdb.StatementType.UPDATE, duckdb.StatementType.DELETE}
        with self._connect(sql, limits, read_only=False) as connection:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in kinds:
                raise SqlError("One INSERT, UPDATE or DELETE at a time.", kind="refused", sql=sql)
            counted = connection.execute(statements[0]).fetchone()
            return int(counted[0]) if counted else 0

    @contextmanager
    def _connect(self, sql: str, limits: Limits, *, read_only: bool) -> "Iterator[duckdb.DuckDBPyConnection]":
        """A connection that is interrupted in time. What DuckDB raises comes out as an SqlError that says what kind it is."""
        try:
            import duckdb
        except ModuleNotFoundError:
            raise SqlError('Reading DuckDB needs a package: pip install "myna[apps]"', kind="unavailable") from None
        if not self.path.is_file():  # DuckDB would make one
            raise SqlError(f"There is no file {self.path}.", kind="unavailable")
        try:
            connection = duckdb.connect(str(self.path), read_only=read_only, config=CONFIG)
        except duckdb.Error as e:
            raise SqlError(f"{self.path.name} cannot be opened: {_line(e)}", kind="unavailable", sql=sql) from None
        try:
            with deadline(limits.seconds, connection.interrupt):
                yield connection
        except duckdb.InterruptException:
            raise too_slow(limits, sql) from None
        except (duckdb.Error, RuntimeError, UnicodeError) as e:
            raise SqlError(_line(e), kind=_kind(e), sql=sql) from None
        finally:
            connection.close()


def _kind(error: Exception) -> SqlFailure:
    import duckdb

    text = str(error)
    if isinstance(error, duckdb.PermissionException) or "read-only" in text or "configuration has been locked" in text:
        return "refused"
    if isinstance(error, duckdb.OutOfMemoryException):
        return "size"
    return (
        "unavailable"
        if isinstance(error, duckdb.FatalException | duckdb.InternalException | duckdb.IOException)
        else "failed"
    )


def _line(error: Exception) -> str:
    """The first lines say what is wrong; a stack of DuckDB's own frames may follow."""
    return str(error).split("\nStack Trace")[0].strip()[:1000]


_COLUMNS = """SELECT schema_name, table_name, column_name, data_type, comment FROM duckdb_columns()
              WHERE NOT internal AND database_name = current_database() ORDER BY schema_name, table_name, column_index"""
_COMMENTS = """SELECT table_name, comment FROM duckdb_tables() WHERE comment IS NOT NULL
               UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE comment IS NOT NULL AND NOT internal"""
_KEYS = """SELECT schema_name, table_name, constraint_column_names, referenced_table, referenced_column_names
           FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY' ORDER BY constraint_index"""
_PRIMARY = """SELECT schema_name, table_name, constraint_column_names FROM duckdb_constraints()
              WHERE constraint_type = 'PRIMARY KEY'"""
