"""Databases of each kind, made anew; and a PostgreSQL server, where there is one to start."""

import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from myna.apps.sql.duckdb import DuckDb
from myna.apps.sql.postgres import Postgres
from myna.apps.sql.sqlite import Sqlite

SCHEMA = """
CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT, age INTEGER, sold NUMERIC(10, 2));
CREATE TABLE concert (id INTEGER PRIMARY KEY, singer_id INTEGER REFERENCES singer(id), day DATE, title TEXT);
INSERT INTO singer VALUES (1, 'Ann', 'France', 30, 12.5), (2, '李白', 'China', 61, 100), (3, 'Bo', 'France', 25, NULL);
INSERT INTO concert VALUES (1, 1, '2024-05-01', 'Spring'), (2, 2, '2024-06-01', '静夜思'), (3, 1, '2024-07-01', 'Summer');
CREATE VIEW french AS SELECT name FROM singer WHERE country = 'France';
"""


@pytest.fixture
def sqlite_db(tmp_path: Path) -> Sqlite:
    path = tmp_path / "songs.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
    return Sqlite(path)


@pytest.fixture
def duck_db(tmp_path: Path) -> DuckDb:
    import duckdb

    path = tmp_path / "songs.duckdb"
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute(SCHEMA + "CREATE SEQUENCE counter; COMMENT ON COLUMN singer.sold IS 'millions of records';")
    return DuckDb(path)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a server of our own, as its superuser; without a database's name. PostgreSQL refuses to run as root, and so
    runs as nobody there."""
    server = _server_programs()
    if server is None:
        pytest.skip("no PostgreSQL to start: install postgresql, or put initdb and postgres on the path")
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short: it holds a socket
    try:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        run = {"cwd": folder, "user": user, "stdin": subprocess.DEVNULL, "capture_output": True, "check": True}
        (folder / "password").write_text("sesame")
        (folder / "password").chmod(0o644)
        options = "-A scram-sha-256 -U postgres -E UTF8 --no-sync --locale=C".split()
        subprocess.run([server / "initdb", *options, "--pwfile", folder / "password", "-D", folder / "data"], **run)  # type: ignore[call-overload]
        quick = f"-h '' -k {folder} -c fsync=off -c max_connections=20"
        start = [server / "pg_ctl", "-w", "-D", folder / "data", "-o", quick, "-l", folder / "log", "start"]
        subprocess.run(start, **{**run, "capture_output": False, "stdout": subprocess.DEVNULL})  # type: ignore[call-overload]
        try:
            yield f"postgresql://postgres:sesame@/%s?host={folder}"
        finally:
            subprocess.run([server / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], **run)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _server_programs() -> Path | None:
    on_path = shutil.which("initdb")
    places = [Path(on_path).resolve().parent] if on_path else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((one for one in places if (one / "initdb").exists() and (one / "postgres").exists()), None)


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: str) -> str:
    """A database with the tables, and a login `reader` that may only read; the address is the superuser's."""
    import psycopg

    with psycopg.connect(postgres_server % "postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE songs")
    with psycopg.connect(postgres_server % "songs", autocommit=True) as connection:
        connection.execute(SCHEMA)
        connection.execute("CREATE SEQUENCE counter; COMMENT ON COLUMN singer.sold IS 'millions of records'")
        # It owns nothing but may change everything: what stops a write is the connection, not a missing grant.
        connection.execute(
            "CREATE ROLE reader LOGIN PASSWORD 'open'; GRANT ALL ON ALL TABLES IN SCHEMA public TO reader"
        )
        connection.execute(
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO reader; GRANT ALL ON SCHEMA public TO reader"
        )
    return postgres_server % "songs"


@pytest.fixture
def postgres_db(postgres_admin: str) -> Postgres:
    return Postgres(postgres_admin.replace("postgres:sesame", "reader:open"))
