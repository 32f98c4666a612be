"""recipes/sql_lora: what counts as right, and what a query that a model wrote may do."""

import importlib.util
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from myna.records import SqlError

HERE = Path(__file__).parents[1] / "recipes/sql_lora/sql.py"


@pytest.fixture(scope="module")
def sql() -> ModuleType:
    told = importlib.util.spec_from_file_location("sql_recipe", HERE)
    assert told is not None
    assert told.loader is not None
    module = importlib.util.module_from_spec(told)
    sys.modules["sql_recipe"] = module
    told.loader.exec_module(module)
    return module


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "songs.sqlite")) as connection:
        connection.executescript("CREATE TABLE song(id INT, name TEXT, sold REAL);")
        connection.executemany(
            "INSERT INTO song VALUES (?, ?, ?)", [(1, "静夜思", 0.1 + 0.2), (2, "Blue", 2.0), (3, "Up", 1.0)]
        )
        connection.commit()
    return tmp_path / "songs.sqlite"


@pytest.mark.parametrize(
    ("answer", "gold", "good"),
    [
        ("SELECT name FROM song ORDER BY id DESC", "SELECT name FROM song", True),
        ("SELECT name FROM song ORDER BY id DESC", "SELECT name FROM song ORDER BY id", False),
        ("Here:\n```sql\nSELECT count(*) FROM song;\n```", "SELECT 3", True),
        ("SELECT sold FROM song WHERE id = 1", "SELECT 0.3", True),
        ("SELECT name FROM song WHERE id = 1", "SELECT '静夜思'", True),
        ("SELECT nothing FROM song", "SELECT 3", False),
        ("SELECT 3 UNION ALL SELECT 3", "SELECT 3", False),
        ("", "SELECT 1 WHERE 0", False),
    ],
)
def test_a_query_is_right_if_its_rows_are(answer: str, gold: str, good: bool, sql: ModuleType, database: Path) -> None:
    assert sql.right(database, answer, gold) is good


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE song",
        "INSERT INTO song VALUES (4, '', 0)",
        "ATTACH 'other.sqlite' AS other",
        "PRAGMA query_only = 0",
        "SELECT load_extension('x')",
        "SELECT zeroblob(100000000)",
        "SELECT a.id FROM song a, song b, song c, song d, song e, song f, song g, song h, song i",
        "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t) SELECT count(*) FROM t",
    ],
)
def test_a_query_reads_one_file_for_a_while_and_nothing_else(
    query: str, sql: ModuleType, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "SECONDS", 0.2)
    before = database.read_bytes()
    with pytest.raises(SqlError):
        sql.rows(database, query)
    assert database.read_bytes() == before
    assert [*database.parent.iterdir()] == [database]
