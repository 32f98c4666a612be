"""A SQLite file of ours that others hold, or that cannot be written: what can be done is done, and what to do is said."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from myna.records import MynaError
from myna.records.sqlite_file import Layout, SqliteFile

LAYOUT = Layout("a", "box", 1, "CREATE TABLE things (name TEXT)", frozenset({"things"}), "--box", MynaError)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("myna.records.sqlite_file.WAIT", 0.01)
    SqliteFile(tmp_path / "box.sqlite", LAYOUT).close()
    return tmp_path / "box.sqlite"


def test_a_file_that_another_process_writes_can_be_opened_and_read(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO things VALUES ('half')")
    box = SqliteFile(path, LAYOUT)
    assert box.rows("SELECT * FROM things") == []
    with pytest.raises(MynaError, match="another process has it"), box.write() as db:
        db.execute("INSERT INTO things VALUES ('mine')")
    other.execute("COMMIT")
    with box.write() as db:
        db.execute("INSERT INTO things VALUES ('mine')")
    assert box.rows("SELECT * FROM things") == [("half",), ("mine",)]


def test_a_full_disk_and_a_damaged_file_say_what_to_do(path: Path) -> None:
    box = SqliteFile(path, LAYOUT)
    (pages,) = box.rows("PRAGMA page_count")[0]
    box.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(MynaError, match="make room"), box.write() as db:
        db.execute("INSERT INTO things VALUES (?)", ("x" * 100_000,))
    box.close()
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 4096)
    with pytest.raises(MynaError, match="recover"):
        SqliteFile(path, LAYOUT).rows("SELECT * FROM things")


def test_one_that_may_not_be_written_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(MynaError, match="Read-only file system: copy it to where you may write"):
        SqliteFile(path, LAYOUT)
