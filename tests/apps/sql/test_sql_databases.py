"""Databases that are well, and databases that are not."""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from myna.apps.sql import connect
from myna.apps.sql.database import Database, Limits
from myna.apps.sql.duckdb import DuckDb
from myna.apps.sql.postgres import Postgres
from myna.apps.sql.sqlite import Sqlite
from myna.records import SqlError
from myna.records.errors import SqlFailure

ENDLESS = {
    "sqlite": "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT count(*) FROM t",
    "duckdb": "SELECT count(*) FROM range(100000000000) a, range(1000000) b",
    "postgres": "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 100000) b",
}


@pytest.fixture(params=["sqlite_db", "duck_db", "postgres_db"])
def database(request: pytest.FixtureRequest) -> Database:
    return request.getfixturevalue(request.param)


def kind_of(database: Database, sql: str, limits: Limits = Limits()) -> SqlFailure:
    with pytest.raises(SqlError) as failed:
        database.run(sql, limits)
    return failed.value.kind


def test_rows_come_with_their_columns(database: Database) -> None:
    found = database.run("SELECT id, name, sold FROM singer ORDER BY id")
    assert found.columns == ("id", "name", "sold")
    assert [row[:2] for row in found.rows] == [(1, "Ann"), (2, "李白"), (3, "Bo")]
    assert [row[2] for row in found.rows] == [12.5, 100, None]
    assert found.notes == ()


def test_tables_come_with_columns_and_keys(database: Database) -> None:
    tables = {one.name: one for one in database.tables()}
    assert set(tables) == {"singer", "concert", "french"}
    assert [one.name for one in tables["singer"].columns] == ["id", "name", "country", "age", "sold"]
    assert [one.name for one in tables["singer"].columns if one.primary] == ["id"]
    (key,) = tables["concert"].keys
    assert (key.columns, key.table, key.others) == (("singer_id",), "singer", ("id",))
    comments = [one.comment for one in tables["singer"].columns]
    assert comments[-1] == ("" if database.dialect == "sqlite" else "millions of records")


def test_a_query_that_never_ends_is_stopped(database: Database) -> None:
    assert kind_of(database, ENDLESS[database.dialect], Limits(seconds=0.3)) == "time"
    assert database.run("SELECT 1").rows == ((1,),)


def test_what_cannot_be_run_says_so(database: Database) -> None:
    assert kind_of(database, "SELECT nothing FROM singer") == "failed"
    assert kind_of(database, "SELEC 1") == "failed"
    assert kind_of(database, "  ") == "refused"
    assert kind_of(database, "SELECT 'a\0b'") == "refused"
    assert kind_of(database, "SELECT '\ud800'") == "refused"
    assert kind_of(database, "SELECT " + "1," * 20_000 + "1") == "size"


def test_two_statements_are_not_run(database: Database) -> None:
    assert kind_of(database, "SELECT 1; SELECT 2") in ("refused", "failed")


def test_rows_bytes_and_cells_are_bounded_and_it_is_said(database: Database) -> None:
    found = database.run("SELECT a.name FROM singer a, singer b, singer c ORDER BY 1", Limits(rows=5))
    assert len(found.rows) == 5
    assert found.notes == ("not all rows: stopped after 5 rows",)
    found = database.run(
        "SELECT replace(replace('xxxxxxxxxx', 'x', 'yyyyyyyyyy'), 'y', 'zzzzzzzzzz') AS long", Limits(cell=20)
    )
    assert found.rows == (("z" * 20 + "…[cut]",),)
    assert found.notes == ("1 cells cut after 20 characters",)
    assert "more than 30 bytes" in database.run("SELECT name FROM singer, concert", Limits(bytes=30)).notes[0]


def test_a_huge_blob_is_shown_by_its_first_bytes(postgres_db: Postgres, duck_db: DuckDb, sqlite_db: Sqlite) -> None:
    found = postgres_db.run(
        r"SELECT decode(repeat('00', 50000000), 'hex') AS x, repeat('y', 50000000)", Limits(cell=100)
    )
    assert [len(str(cell)) < 150 for cell in found.rows[0]] == [True, True]
    assert str(found.rows[0][0]).endswith("…[cut]")
    found = duck_db.run("SELECT unhex(repeat('00', 5000000)) AS x", Limits(cell=100))
    assert str(found.rows[0][0]).startswith("5,000,000 bytes 0x0000")
    with closing(sqlite3.connect(sqlite_db.path)) as connection:
        connection.execute("INSERT INTO singer (id, name) VALUES (9, zeroblob(900000)), (10, zeroblob(9000000))")
        connection.commit()
    found = sqlite_db.run("SELECT name FROM singer WHERE id = 9", Limits(cell=100))
    assert str(found.rows[0][0]).startswith("900,000 bytes 0x0000")
    assert kind_of(sqlite_db, "SELECT name FROM singer WHERE id = 10") == "size"


def test_one_long_step_of_sqlite_is_bounded_too(sqlite_db: Sqlite) -> None:
    """No clock is looked at within a function: its arguments are bounded instead."""
    assert kind_of(sqlite_db, "SELECT hex(hex(hex('" + "a" * 15_000 + "'))) || hex(zeroblob(600000))") in (
        "size",
        "refused",
    )


def test_a_locked_file_is_said_to_be_locked(sqlite_db: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myna.apps.sql.sqlite.WAIT", 0.1)
    with closing(sqlite3.connect(sqlite_db.path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert kind_of(sqlite_db, "SELECT 1 FROM singer") == "unavailable"
        with pytest.raises(SqlError, match=r"songs\.sqlite: .*try again"):
            sqlite_db.tables()


def test_a_duckdb_file_that_is_being_written_is_said_to_be(duck_db: DuckDb) -> None:
    import duckdb

    with closing(duckdb.connect(str(duck_db.path))):
        assert kind_of(duck_db, "SELECT 1") == "unavailable"


def test_a_locked_table_of_postgres_is_not_waited_for(postgres_db: Postgres, postgres_admin: str) -> None:
    import psycopg

    with psycopg.connect(postgres_admin) as writer:
        writer.execute("LOCK TABLE singer IN ACCESS EXCLUSIVE MODE")
        assert kind_of(postgres_db, "SELECT 1 FROM singer", Limits(seconds=0.3)) in ("unavailable", "time")
        writer.rollback()


@pytest.mark.parametrize("bytes_", [b"SQLite format 3\0" + b"\xff" * 5000, b"\0" * 8 + b"DUCK" + b"\xff" * 9000])
def test_a_corrupt_file_is_an_error_that_says_so(bytes_: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(bytes_)
    for call in (lambda: connect(str(path)).run("SELECT * FROM sqlite_master"), lambda: connect(str(path)).tables()):
        with pytest.raises(SqlError) as failed:
            call()
        assert failed.value.kind == "unavailable"


def test_a_file_damaged_in_the_middle_is_an_error_that_says_so(sqlite_db: Sqlite) -> None:
    whole = sqlite_db.path.read_bytes()
    sqlite_db.path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    assert kind_of(sqlite_db, "SELECT * FROM singer") == "unavailable"


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 a zip", b"x"])
def test_what_is_no_database_is_told_by_its_first_bytes(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SqlError) as failed:
        connect(str(path))
    assert failed.value.kind == "unavailable"
    assert str(path) in str(failed.value)


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    for address in (f"sqlite:{tmp_path}/none.db", f"duckdb:{tmp_path}/none.db"):
        assert kind_of(connect(address), "SELECT 1") == "unavailable"
    assert [*tmp_path.iterdir()] == []


def test_an_address_finds_its_kind(sqlite_db: Sqlite, duck_db: DuckDb) -> None:
    assert connect(str(sqlite_db.path)) == sqlite_db
    assert connect(str(duck_db.path)) == duck_db
    assert connect(f"sqlite:{sqlite_db.path}") == sqlite_db
    assert connect("postgresql://a:secret@h/db").name == "postgresql://h/db"
    assert "secret" not in repr(connect("postgresql://a:secret@h/db"))


def test_a_path_with_signs_of_an_address_in_it_is_a_path(sqlite_db: Sqlite) -> None:
    path = sqlite_db.path.rename(sqlite_db.path.with_name("a?mode=rw&x=#1%41.sqlite"))
    assert connect(str(path)).run("SELECT count(*) FROM singer").rows == ((3,),)


def test_a_wrong_password_is_told_without_the_password(postgres_db: Postgres) -> None:
    wrong = Postgres(postgres_db.url.replace(":open@", ":wr0ngpass@"))
    with pytest.raises(SqlError) as failed:
        wrong.run("SELECT 1")
    assert failed.value.kind == "unavailable"
    assert "password authentication failed" in str(failed.value)
    assert "wr0ngpass" not in str(failed.value)


def test_no_server_is_an_error_that_says_so() -> None:
    with pytest.raises(SqlError, match="refused"):
        Postgres("postgresql://x:y@127.0.0.1:1/db").run("SELECT 1")


def test_a_superuser_is_sent_away_with_what_to_do(postgres_admin: str) -> None:
    with pytest.raises(SqlError, match="CREATE ROLE reader") as failed:
        Postgres(postgres_admin).run("SELECT 1")
    assert failed.value.kind == "unavailable"


def test_names_with_quotes_and_line_ends_are_names(sqlite_db: Sqlite) -> None:
    evil = 'a"; DROP TABLE singer; --\n x'
    with closing(sqlite3.connect(sqlite_db.path)) as connection:
        connection.execute('CREATE TABLE "{0}" ("{0}" TEXT)'.format(evil.replace('"', '""')))
    assert evil in {one.name for one in sqlite_db.tables()}
    assert sqlite_db.run("SELECT count(*) FROM singer").rows == ((3,),)


def test_a_view_of_a_stranger_cannot_call_what_is_not_known(sqlite_db: Sqlite) -> None:
    with closing(sqlite3.connect(sqlite_db.path)) as connection:
        connection.execute("CREATE VIEW evil AS SELECT load_extension('x') AS y")
    assert kind_of(sqlite_db, "SELECT * FROM evil") == "refused"


def test_full_text_tables_are_read(sqlite_db: Sqlite) -> None:
    with closing(sqlite3.connect(sqlite_db.path)) as connection:
        connection.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        connection.execute("INSERT INTO words VALUES ('the quick fox'), ('a dog')")
        connection.commit()
    assert sqlite_db.run("SELECT text, bm25(words) < 0 FROM words WHERE words MATCH 'fox'").rows == (
        ("the quick fox", 1),
    )
    assert {one.name for one in sqlite_db.tables()} == {"singer", "concert", "french", "words"}


def test_a_query_that_is_not_awaited_holds_up_nobody(sqlite_db: Sqlite) -> None:
    """Calls share nothing: one runs while another is being stopped."""
    slow = threading.Thread(target=lambda: kind_of(sqlite_db, ENDLESS["sqlite"], Limits(seconds=0.5)))
    slow.start()
    time.sleep(0.05)
    assert sqlite_db.run("SELECT count(*) FROM singer").rows == ((3,),)
    slow.join()
