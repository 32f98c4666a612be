"""Of a column that its table does not have it is told which tables have it."""

import asyncio

import pytest

from myna.apps.sql import query
from myna.apps.sql.database import Column, Table
from myna.apps.sql.names import unknown
from myna.apps.sql.sqlite import Sqlite
from myna.provider import Scripted
from myna.records import Conversation

TABLES = (
    Table("cars", (Column("id"), Column("Weight"), Column("年份"))),
    Table("names", (Column("id"), Column("Model"), Column("maker"))),
    Table("makers", (Column("maker"), Column("country"))),
)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT T1.Model FROM cars AS T1 JOIN names AS T2 ON T1.id = T2.id", "T1.Model: T1 is cars"),
        ("SELECT T2.`年份` FROM cars AS T1 JOIN names AS T2 ON T1.id = T2.id", "T2.年份: T2 is names"),
        ("SELECT cars.model FROM cars JOIN names ON cars.id = names.id", "cars.model: cars is cars"),
        ("SELECT 1 FROM makers WHERE country IN (SELECT c.Model FROM cars c JOIN names n)", "c.Model: c is cars"),
    ],
)
def test_a_column_that_its_table_does_not_have_is_told_with_where_it_is(sql: str, told: str) -> None:
    (found,) = unknown(sql, TABLES, "sqlite")
    assert found.startswith(told)
    assert found.lower().split(". ")[1].startswith(f"{told.split(':')[0].split('.')[1].lower()} is a column of ")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT T1.Weight w FROM cars T1 ORDER BY w",
        "SELECT weight FROM CARS",
        "WITH x AS (SELECT Model AS m FROM names) SELECT x.m, q.z FROM x JOIN (SELECT 1 AS z) q",
        "SELECT count(*) FROM cars c WHERE EXISTS (SELECT 1 FROM names n WHERE n.id = c.id AND Weight > 1)",
        "SELECT * FROM cars",
        "SELECT T1.* FROM cars T1",
        "SELECT x.anything FROM unknown_table x",
        "SELECT rowid, oid, T1._ROWID_ FROM cars T1",
        'SELECT Weight FROM cars WHERE id = "volvo" OR id = "沃尔沃"',
        "DROP TABLE cars",
        "not a query (",
        "",
    ],
)
def test_nothing_is_said_of_what_is_right_or_not_known(sql: str) -> None:
    assert unknown(sql, TABLES, "sqlite") == ()


def test_all_tables_that_have_it_are_told() -> None:
    sql = "SELECT c.maker FROM cars c JOIN names n ON c.id = n.id JOIN makers m ON m.maker = n.maker"
    assert unknown(sql, TABLES, "sqlite") == (
        "c.maker: c is cars, whose columns are id, Weight, 年份. maker is a column of names, makers.",
    )
    assert unknown("SELECT Model, nothing FROM cars", TABLES, "sqlite") == (
        "Model: no table of the query has it. Model is a column of names.",
        "nothing: no table of the query has it. No table has a column nothing.",
    )


def test_an_alias_is_found_however_it_is_written() -> None:
    (said,) = unknown("SELECT t1.nothing FROM cars AS T1", TABLES, "sqlite")
    assert said.startswith("t1.nothing: t1 is cars, whose columns are ")


def test_the_second_try_is_told_where_the_columns_are(sqlite_db: Sqlite) -> None:
    model = Scripted(["SELECT title FROM singer", "SELECT title FROM concert"])
    found = asyncio.run(query(model, sqlite_db, "Which titles?"))
    assert len(found.rows.rows) == 3
    second = model.requests[1].what
    assert isinstance(second, Conversation)
    fence = second.messages[-1].text.split("</untrusted")[0]
    assert "title: no table of the query has it. title is a column of concert." in fence


def test_a_name_in_other_quotes_than_a_texts_is_a_column() -> None:
    assert unknown("SELECT `Model` FROM cars", TABLES, "sqlite") == (
        "Model: no table of the query has it. Model is a column of names.",
    )
    (said,) = unknown('SELECT id FROM cars WHERE id = "volvo"', TABLES, "postgres")
    assert said == "volvo: no table of the query has it. No table has a column volvo."
    assert unknown("SELECT oid FROM cars", TABLES, "postgres")
    assert unknown("SELECT ctid FROM cars", TABLES, "postgres") == ()


def test_tables_of_one_name_are_told_apart_by_their_schema() -> None:
    tables = (
        Table("song", (Column("title"),)),
        Table("song", (Column("price"),), schema="shop"),
        Table("Song", (Column("year"),), schema="shop"),
    )
    assert unknown("SELECT title FROM song", tables, "postgres") == ()
    assert unknown("SELECT title FROM public.song", tables, "postgres") == ()
    assert unknown("SELECT price FROM shop.song", tables, "postgres") == ()
    assert unknown('SELECT s.year FROM shop."Song" s', tables, "postgres") == ()
    assert unknown("SELECT s.price FROM song s", tables, "postgres") == (
        "s.price: s is song, whose columns are title. price is a column of shop.song.",
    )
    assert unknown("SELECT s.title FROM shop.song s", tables, "postgres") == (
        "s.title: s is shop.song, whose columns are price. title is a column of song.",
    )
    assert unknown("SELECT s.title FROM shop.SONG s", tables, "postgres") == ()  # could be either
