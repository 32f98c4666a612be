"""A database as an agent's tools, in all three kinds: reads are read, and a change runs once somebody approved exactly that."""

import asyncio
import json
from typing import Any

import pytest

from myna.apps.agent import Agent, Ended, run
from myna.apps.sql.database import Database
from myna.apps.sql.tools import sql_tools
from myna.apps.tools import Asked, never
from myna.provider import Scripted
from myna.records import Message, ToolCall

KINDS = pytest.mark.parametrize("kind", ["sqlite_db", "duck_db", "postgres_db"])


def calls(name: str, sql: str) -> Message:
    key = "question" if name == "tables" else "sql"
    return Message("assistant", tool_calls=(ToolCall("", name, json.dumps({key: sql}, ensure_ascii=False)),))


def ran(database: Database, *turns: Any, **more: Any) -> Ended:
    agent = Agent("clerk", "", sql_tools(database))
    return asyncio.run(run(agent, "?", Scripted([*turns, "done"]), **more))


class Person:
    def __init__(self, answer: bool) -> None:
        self.answer, self.asked = answer, list[Asked]()

    async def __call__(self, asked: Asked) -> bool:
        self.asked.append(asked)
        return self.answer


@pytest.fixture
def database(request: pytest.FixtureRequest, kind: str) -> Database:
    found: Database = request.getfixturevalue(kind)
    return found


@KINDS
def test_tables_and_rows_are_read_and_taint(database: Database) -> None:
    ended = ran(database, calls("tables", "singers"), calls("query", "SELECT name FROM singer ORDER BY id"))
    assert [one.status for one in ended.outcomes] == ["ok", "ok"]
    assert "singer" in ended.outcomes[0].result
    assert "李白" in ended.outcomes[1].result
    assert ended.tainted


@KINDS
def test_a_change_runs_when_it_is_approved_and_only_then(database: Database) -> None:
    sql = "UPDATE singer SET age = 62 WHERE name = '李白'"
    no, yes = Person(False), Person(True)
    assert ran(database, calls("change", sql), ask=no).outcomes[0].status == "refused"
    age = "SELECT age FROM singer WHERE name = '李白'"
    assert database.run(age).rows == ((61,),)
    ended = ran(database, calls("change", sql), ask=yes)
    assert ended.outcomes[0].result == "1 rows changed"
    assert database.run(age).rows == ((62,),)
    assert [json.loads(one.arguments) for one in yes.asked] == [{"sql": sql}]
    ran(database, calls("change", sql.replace("62", "61")), ask=yes)  # as it was, for the server that others use


@KINDS
@pytest.mark.parametrize(
    "sql",
    ["DROP TABLE concert", "DELETE FROM nothing", "UPDATE singer SET age = 1; DELETE FROM concert", "SELECT 1", "删除"],
)
def test_nobody_is_asked_about_what_is_refused_anyway(database: Database, sql: str) -> None:
    person = Person(True)
    ended = ran(database, calls("change", sql), ask=person)
    assert ([one.status for one in ended.outcomes], person.asked) == (["invalid"], [])
    assert len(database.run("SELECT * FROM concert").rows) == 3


@KINDS
def test_a_query_changes_nothing_and_an_error_is_told(database: Database) -> None:
    ended = ran(
        database, calls("query", "DELETE FROM concert"), calls("query", "SELECT nothing FROM singer"), ask=never
    )
    assert [one.status for one in ended.outcomes] == ["error", "error"]
    assert len(database.run("SELECT * FROM concert").rows) == 3


def test_an_error_says_which_tables_there_are_and_a_trusted_databases_tool_does(sqlite_db: Database) -> None:
    ended = ran(sqlite_db, calls("query", "SELECT * FROM songs"))
    assert "singer(id, name, country, age, sold)" in ended.outcomes[0].result
    _, own, _ = sql_tools(sqlite_db, trusted=True)
    _, foreign, _ = sql_tools(sqlite_db)
    assert "singer(id," in own.description
    assert "singer" not in foreign.description
    assert (own.untrusted, foreign.untrusted) == (False, True)
