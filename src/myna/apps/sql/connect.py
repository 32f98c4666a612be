"""A database by its address: a path, sqlite:PATH, duckdb:PATH or postgresql://..."""

from pathlib import Path

from myna.apps.sql.database import Database
from myna.apps.sql.duckdb import DuckDb
from myna.apps.sql.postgres import Postgres
from myna.apps.sql.sqlite import Sqlite
from myna.records import SqlError

ADDRESSES = "A database is a file of SQLite or DuckDB, or postgresql://USER@HOST/NAME."


def connect(address: str) -> Database:
    """Nothing is opened yet but a file's first bytes, which tell what it is. Raises SqlError (unavailable)."""
    if address.startswith(("postgresql://", "postgres://")):
        return Postgres(address)
    kind, colon, rest = address.partition(":")
    if colon and kind in ("sqlite", "duckdb"):
        path = Path(rest.removeprefix("//"))
        return Sqlite(path) if kind == "sqlite" else DuckDb(path)
    path = Path(address)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except (OSError, ValueError) as e:
        said = getattr(e, "strerror", None) or str(e)
        said += f". {ADDRESSES}" if "://" in address else ""
        raise SqlError(f"{address}: {said}", kind="unavailable") from None
    if head.startswith(b"SQLite format 3\0"):
        return Sqlite(path)
    if head[8:12] == b"DUCK":
        return DuckDb(path)
    found = "is empty" if not head else "is neither an SQLite nor a DuckDB file"
    raise SqlError(f"{address} {found}. {ADDRESSES}", kind="unavailable")
