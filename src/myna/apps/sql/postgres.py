"""PostgreSQL, read: a read-only transaction that is always rolled back, the server's own timeout, and a cursor, which takes a
query and nothing else. The login must not be a superuser's: such a one reads the server's files from within a query.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import psycopg

CONNECT = 10  # seconds
LOCK = 2_000  # milliseconds for another session's lock
NUMBERS = {16, 20, 21, 23, 26, 700, 701, 1700}  # pg_type: bool, int8, int2, int4, oid, float4, float8, numeric
BYTEA = 17


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server's database, by a postgresql:// URL. A connection lives as long as one call."""

    url: str = field(repr=False)  # it may hold a password
    dialect: Dialect = "postgres"

    @property
    def name(self) -> str:
        from psycopg.conninfo import conninfo_to_dict

        try:
            parts = conninfo_to_dict(self.url)
        except Exception:
            return "postgresql://"
        return f"postgresql://{parts.get('host') or ''}/{parts.get('dbname') or ''}"

    def tables(self) -> tuple[Table, ...]:
        with self._connect("its schema", Limits()) as connection:
            keys: dict[int, list[ForeignKey]] = {}
            for table, own, other, others in connection.execute(_KEYS).fetchall():
                keys.setdefault(table, []).append(ForeignKey(tuple(own), other, tuple(others)))
            tables: dict[int, tuple[str, str, str]] = {}
            columns: dict[int, list[Column]] = {}
            for table, schema, name, comment, *column, primary in connection.execute(_COLUMNS).fetchall():
                tables[table] = schema, name, comment or ""
                columns.setdefault(table, []).append(Column(column[0], column[1], column[2] or "", primary))
        return tuple(
            Table(name, tuple(columns[at]), tuple(keys.get(at, ())), comment, schema)
            for at, (schema, name, comment) in tables.items()
        )

    def run(self, sql: str, limits: Limits = Limits()) -> Rows:
        check_text(sql)
        with self._connect(sql, limits) as connection:
            columns = _describe(connection, sql)
            if not columns:
                raise SqlError("That is no query: it gives no rows.", kind="refused", sql=sql)
            with connection.cursor(name="answer") as cursor:  # DECLARE answer CURSOR FOR ...
                cursor.execute(_within(sql, columns, limits.cell).encode())
                return collect([name for name, _ in columns], cursor.fetchmany, limits)

    def change(self, sql: str, limits: Limits = Limits()) -> int:
        check_text(sql)
        with self._connect(sql, limits, read_only=False) as connection:
            changed = connection.execute(sql.encode(), prepare=True).rowcount  # prepared: one statement
            connection.commit()
            return changed

    @contextmanager
    def _connect(self, sql: str, limits: Limits, *, read_only: bool = True) -> "Iterator[psycopg.Connection[Any]]":
        """A transaction, stopped in time by the server and by us. What psycopg raises comes out as an SqlError."""
        try:
            import psycopg
        except ModuleNotFoundError:
            raise SqlError('Reading PostgreSQL needs a package: pip install "myna[apps]"', kind="unavailable") from None
        try:
            connection = psycopg.connect(self.url, connect_timeout=CONNECT, prepare_threshold=None)
        except (psycopg.Error, UnicodeError) as e:
            raise SqlError(f"{self.name}: {str(e).strip()}", kind="unavailable", sql=sql) from None
        try:
            connection.read_only = read_only
            with deadline(limits.seconds + 1, connection.cancel):
                _settle(connection, limits)
                yield connection
        except psycopg.errors.QueryCanceled:
            raise too_slow(limits, sql) from None
        except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.InsufficientPrivilege) as e:
            raise SqlError(str(e).strip(), kind="refused", sql=sql) from None
        except (psycopg.errors.LockNotAvailable, psycopg.errors.OutOfMemory, psycopg.OperationalError) as e:
            raise SqlError(str(e).strip(), kind="unavailable", sql=sql) from None
        except (psycopg.Error, UnicodeError) as e:
            raise SqlError(str(e).strip()[:1000], kind="failed", sql=sql) from None
        finally:
            connection.close()  # what was not committed is rolled back


def _settle(connection: "psycopg.Connection[Any]", limits: Limits) -> None:
    """Clocks, how dates are written, and whether this login may read at all."""
    milliseconds = max(1, int(limits.seconds * 1000))
    connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")
    connection.execute(f"SET LOCAL lock_timeout = {min(LOCK, milliseconds)}")
    connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds + 10_000}")
    connection.execute("SET LOCAL datestyle = 'ISO'")
    # After a first query a transaction's being read-only cannot be changed any more.
    row = connection.execute(_POWERFUL).fetchone()
    if row and row[0]:
        raise SqlError(
            f"The login is, or can become, {row[0]}, who reads and writes the server's files. Make one that only reads:\n"
            "  CREATE ROLE reader LOGIN PASSWORD '...';\n"
            "  GRANT USAGE ON SCHEMA public TO reader;\n"
            "  GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;",
            kind="unavailable",
        )


def _describe(connection: "psycopg.Connection[Any]", sql: str) -> list[tuple[str, int]]:
    """Names and types of a query's columns. It is read as one statement and not run."""
    import psycopg

    server = connection.pgconn
    for result in (server.prepare(b"asked", sql.encode()), server.describe_prepared(b"asked")):
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    return [((result.fname(i) or b"?").decode(), result.ftype(i)) for i in range(result.nfields)]


def _within(sql: str, columns: list[tuple[str, int]], cell: int) -> str:
    """The query, its long values cut by the server: a cell may hold a gigabyte. One character more than is kept, so that it is
    seen that it was cut."""
    names = [f"c{i}" for i in range(len(columns))]
    cells = []
    for name, (_, kind) in zip(names, columns, strict=True):
        if kind in NUMBERS:
            cells.append(name)
        elif kind == BYTEA:
            cells.append(f"substring({name} from 1 for {cell // 2 + 1})")
        else:
            cells.append(f"left({name}::text, {cell + 1})")
    return f"SELECT {', '.join(cells)} FROM (\n{sql.rstrip().rstrip(';')}\n) AS asked({', '.join(names)})"


_POWERFUL = """SELECT rolname FROM pg_catalog.pg_roles WHERE (rolsuper OR rolname IN
               ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'))
               AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER') ORDER BY rolsuper DESC LIMIT 1"""
_COLUMNS = """
SELECT c.oid, CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN '' ELSE n.nspname END, c.relname,
       pg_catalog.obj_description(c.oid, 'pg_class'), a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
       pg_catalog.col_description(c.oid, a.attnum),
       EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY(i.indkey))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
ORDER BY n.nspname, c.relname, a.attnum"""
_KEYS = """
SELECT k.conrelid, (SELECT array_agg(a.attname::text ORDER BY u.i) FROM unnest(k.conkey) WITH ORDINALITY AS u(n, i)
                    JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n),
       (SELECT relname::text FROM pg_catalog.pg_class WHERE oid = k.confrelid),
       (SELECT array_agg(a.attname::text ORDER BY u.i) FROM unnest(k.confkey) WITH ORDINALITY AS u(n, i)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n)
FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' ORDER BY k.conrelid, k.conname"""
