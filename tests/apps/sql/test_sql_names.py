"""A column is given to the one table of the query that has it, and to none where two could be meant."""

import asyncio

import pytest

from myna.apps.sql import query
from myna.apps.sql.database import Column, Table
from myna.apps.sql.names import resolve
from myna.apps.sql.sqlite import Sqlite
from myna.provider import Scripted
from myna.records import Conversation, SqlError

TABLES = (
    Table("cars", (Column("id"), Column("Weight"), Column("年份"))),
    Table("names", (Column("id"), Column("Model"), Column("maker"))),
    Table("makers", (Column("maker"), Column("country"))),
)


@pytest.mark.parametrize(
    ("sql", "mended"),
    [
        ("SELECT T1.Model FROM cars AS T1 JOIN names AS T2 ON T1.id = T2.id", "T1.Model is read as T2.Model"),
        ("SELECT T2.`年份` FROM cars AS T1 JOIN names AS T2 ON T1.id = T2.id", "T2.年份 is read as T1.年份"),
        ("SELECT cars.model FROM cars JOIN names ON cars.id = names.id", "cars.model is read as names.model"),
        (
            "SELECT 1 FROM makers WHERE country IN (SELECT c.Model FROM cars c JOIN names n)",
            "c.Model is read as n.Model",
        ),
    ],
)
def test_a_column_goes_to_the_one_table_that_has_it(sql: str, mended: str) -> None:
    found = resolve(sql, TABLES, "sqlite")
    assert [one.split(":")[0] for one in found.mended] == [mended]
    assert found.unknown == ()
    was, now = mended.split(" is read as ")
    assert now in found.sql.replace("`", "").replace('"', "")
    assert was not in found.sql.replace("`", "").replace('"', "")


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
        "DROP TABLE cars",
        "not a query (",
        "",
    ],
)
def test_what_is_right_or_not_known_stays_letter_for_letter(sql: str) -> None:
    found = resolve(sql, TABLES, "sqlite")
    assert (found.sql, found.mended, found.unknown) == (sql, (), ())


def test_two_tables_that_could_be_meant_are_not_chosen_from() -> None:
    sql = "SELECT c.maker FROM cars c JOIN names n ON c.id = n.id JOIN makers m ON m.maker = n.maker"
    found = resolve(sql, TABLES, "sqlite")
    assert (found.sql, found.mended) == (sql, ())
    assert found.unknown == (
        "c.maker: c is cars, whose columns are id, Weight, 年份. maker is a column of names, makers.",
    )


def test_a_column_of_no_table_of_the_query_is_said_with_where_it_is() -> None:
    found = resolve("SELECT Model, nothing FROM cars", TABLES, "sqlite")
    assert found.unknown == (
        "Model: no table of the query has it. Model is a column of names.",
        "nothing: no table of the query has it. No table has a column nothing.",
    )


def test_a_mended_query_is_run_and_the_mending_told(sqlite_db: Sqlite) -> None:
    model = Scripted(
        ["SELECT T2.name FROM singer AS T1 JOIN concert AS T2 ON T1.id = T2.singer_id WHERE T2.title = 'Spring'"]
    )
    found = asyncio.run(query(model, sqlite_db, "Who sang in spring?"))
    assert found.rows.rows == (("Ann",),)
    assert found.notes == ("T2.name is read as T1.name: concert has no such column",)
    assert len(model.requests) == 1


def test_the_second_try_is_told_where_the_columns_are(sqlite_db: Sqlite) -> None:
    model = Scripted(["SELECT title FROM singer", "SELECT title FROM concert"])
    found = asyncio.run(query(model, sqlite_db, "Which titles?"))
    assert len(found.rows.rows) == 3
    second = model.requests[1].what
    assert isinstance(second, Conversation)
    fence = second.messages[-1].text.split("</untrusted")[0]
    assert "title: no table of the query has it. title is a column of concert." in fence


@pytest.mark.parametrize("sql", ["DELETE FROM singer", "UPDATE singer SET age = 1", "SELECT 1; DELETE FROM singer"])
def test_looking_up_names_lets_nothing_through(sql: str, sqlite_db: Sqlite) -> None:
    before = sqlite_db.path.read_bytes()
    with pytest.raises(SqlError):
        asyncio.run(query(Scripted([sql, sql]), sqlite_db, "?"))
    assert sqlite_db.path.read_bytes() == before
