"""What an engine of ours can write as a second query: names of this database, each in a query that reads its table."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from llguidance import LLMatcher, LLTokenizer, grammar_from

from myna.apps.sql.database import Column, ForeignKey, Limits, Table, quoted
from myna.apps.sql.form import select_form
from myna.apps.sql.guard import Allowed, check
from myna.apps.sql.joins import joins_of
from myna.apps.sql.sqlite import Sqlite
from myna.forms.compiler import LIMITS, MAX_SOURCE

TABLES = (
    Table("singer", (Column("id"), Column("name"), Column("国家"))),
    Table(
        "concert", (Column("id"), Column("singer_id"), Column("year")), (ForeignKey(("singer_id",), "singer", ("id",)),)
    ),
    Table("ticket", (Column("concert_id"), Column("order"))),
    Table("alone", (Column("x"),)),
    Table(
        "match",
        (Column("home"), Column("away"), Column("year")),
        (ForeignKey(("home",), "singer", ("id",)), ForeignKey(("away",), "singer", ("id",))),
    ),
)


@pytest.fixture(scope="module")
def derives() -> Callable[[str], bool]:
    form = select_form(TABLES, "sqlite")
    assert form is not None
    tokens = LLTokenizer("byte")

    def whole(sql: str) -> bool:
        matcher = LLMatcher(tokens, grammar_from("lark", form.source))
        return matcher.consume_tokens(tokens.tokenize_str(sql)) and matcher.is_accepting()

    return whole


GOOD = [
    "SELECT name FROM singer",
    "SELECT DISTINCT singer.name, COUNT(*) FROM singer GROUP BY singer.name HAVING COUNT(*) > 1 ORDER BY COUNT(*) DESC LIMIT 3",
    "SELECT name FROM singer WHERE \"国家\" = '法国' AND id BETWEEN 1 AND 3 OR name LIKE 'A%'",
    "SELECT singer.name FROM concert JOIN singer ON concert.singer_id = singer.id WHERE concert.year = 2014",
    'SELECT ticket."order" FROM singer JOIN concert ON singer.id = concert.singer_id LEFT JOIN ticket ON concert.id = ticket.concert_id',
    "SELECT AVG(id) FROM singer WHERE id > (SELECT MIN(concert.id) FROM concert)",
    "SELECT name FROM singer WHERE id IN (SELECT singer_id FROM concert) UNION SELECT name FROM singer",
    "SELECT x FROM alone WHERE x IS NOT NULL",
    "SELECT T2.NAME, count(*) FROM concert AS T1 INNER JOIN singer AS T2 ON T1.singer_id = T2.id GROUP BY T2.id HAVING COUNT(*) >= 2",
    "SELECT T1.x FROM alone AS T1 WHERE T1.x = 1 OR T1.x > 3",
    'SELECT T2.name FROM concert AS T1 JOIN singer AS T2 ON T1.singer_id = T2.id JOIN ticket AS T3 ON T1.id = T3.concert_id WHERE T3."order" IN (SELECT x FROM alone)',
    "SELECT STRFTIME('%Y', year), SUM(CASE WHEN year = 2014 THEN 1 ELSE 0 END) FROM concert GROUP BY STRFTIME('%Y', year)",
    "SELECT name FROM singer WHERE (id = 1 OR id = 2) AND name = 'a' GROUP BY name ORDER BY ROUND(AVG(id), 2)",
    "SELECT T1.year FROM match AS T1 JOIN singer AS T2 ON T1.home = T2.id JOIN singer AS T3 ON T1.away = T3.id WHERE T3.name = 'a'",
    "SELECT CAST(COUNT(*) AS REAL) / COUNT(DISTINCT name) FROM singer WHERE name NOT IN ('a''b', '李白')",
]


@pytest.mark.parametrize("sql", GOOD)
def test_queries_of_the_database_have_the_form_and_pass_the_guard(
    sql: str, derives: Callable[[str], bool], tmp_path: Path
) -> None:
    assert derives(sql)
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as connection:
        for table in TABLES:
            connection.execute(f"CREATE TABLE {table.name} ({', '.join(quoted(one.name) for one in table.columns)})")
    Sqlite(tmp_path / "x.sqlite").run(check(sql, Allowed.of("sqlite", TABLES)), Limits())  # every column is found


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT year FROM singer",
        "SELECT concert.year FROM singer",
        "SELECT name FROM concert JOIN singer ON concert.id = singer.id",
        "SELECT name FROM nowhere",
        "SELECT name FROM concert JOIN singer ON concert.singer_id = singer.id",
        "SELECT singer.name FROM singer JOIN alone ON alone.x = singer.id",
        "SELECT T1.year FROM singer AS T1",
        "SELECT T2.year FROM concert AS T1 JOIN singer AS T2 ON T1.singer_id = T2.id",
        "SELECT T1.name FROM singer AS T1 JOIN concert AS T2 ON T1.id = T2.id",
        "SELECT T1.name FROM singer",
        "SELECT name FROM singer WHERE id IN (SELECT singer_id, id FROM concert)",
        "SELECT name FROM singer WHERE id IN (SELECT id FROM singer WHERE id IN (SELECT id FROM singer))",
        "SELECT name FROM singer; DROP TABLE singer",
        "SELECT MAX(MAX(id)) FROM singer",
        "DELETE FROM singer",
        "SELECT name FROM singer WHERE name = 'a",
        "",
    ],
)
def test_nothing_else_has_it(sql: str, derives: Callable[[str], bool]) -> None:
    assert not derives(sql)


def test_of_many_and_wide_tables_the_form_is_one_that_our_engine_takes() -> None:
    columns = tuple(Column(f"some_column_{i}") for i in range(300))
    key = ForeignKey(("some_column_0",), "table_0", ("some_column_1",))
    for keys in ((key,), ()):  # without keys, columns that are called alike join each table with each
        tables = [Table(f"table_{i}", columns, keys) for i in range(500)]
        form = select_form(tables, "postgres")
        assert form is not None
        assert len(form.source) <= MAX_SOURCE
        tokens = LLTokenizer("byte")
        matcher = LLMatcher(tokens, grammar_from("lark", form.source), limits=LIMITS)
        sql = "SELECT T1.some_column_3 FROM table_0 AS T1 WHERE T1.some_column_3 = 1"
        assert matcher.consume_tokens(tokens.tokenize_str(sql)), matcher.get_error()
        assert matcher.is_accepting()
    assert select_form((), "sqlite") is None


def test_a_column_that_cannot_be_shown_is_not_in_the_form() -> None:
    form = select_form([Table("t", (Column("plain"), Column("str\x1bange")))], "sqlite")
    assert form is not None
    assert "plain" in form.source
    assert "ange" not in form.source.replace("CHANGE", "")


def test_tables_are_joined_by_their_keys_and_only_else_by_columns_that_are_called_alike() -> None:
    singer = Table("singer", (Column("id"), Column("city_code"), Column("name")))
    key = (ForeignKey(("singer_id",), "singer", ("id",)),)
    concert = Table("concert", (Column("singer_id"), Column("city_code"), Column("name")))
    assert joins_of([singer, replace(concert, keys=key)]) == {(0, 1): [(("id", "singer_id"),)]}
    assert joins_of([singer, concert]) == {(0, 1): [(("id", "singer_id"),), (("city_code", "city_code"),)]}


def test_the_form_of_a_small_database_is_the_same_whatever_is_asked() -> None:
    assert select_form(TABLES[:3], "sqlite") == select_form(TABLES[2::-1], "sqlite")
