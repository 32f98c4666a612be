"""A database as tools of an agent: what is in it, a query, and a change that somebody approves."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from myna.apps.sql.answer import table_text
from myna.apps.sql.card import card
from myna.apps.sql.database import Database, Limits, Table
from myna.apps.sql.guard import Allowed, check, check_change
from myna.apps.sql.shown import one_line, shown
from myna.apps.sql.write import Change, write
from myna.apps.tools import Tool, tool
from myna.records import SqlError, ToolError

ROWS = 50  # that a model is shown of a query
TOLD = 1_500  # characters of table and column names beside an error
LIMITS = Limits(rows=200, bytes=100_000, cell=500)


def sql_tools(database: Database, limits: Limits = LIMITS, *, trusted: bool = False) -> tuple[Tool, Tool, Tool]:
    """(tables, query, change).

    A change's effect is danger: it always asks, with exactly this statement. What the guard refuses is refused before anybody is asked,
    and what runs is written from the tree that the guard looked at. `trusted`: the rows are all your own, and are no stranger's text.
    """

    @tool(effect="read", egress=False, untrusted=not trusted)
    async def tables(question: str) -> str:
        """The tables of the database that a question is about: columns, types, keys and a few values.

        Args:
            question: What you want to know.
        """
        found = await asyncio.to_thread(card, database, question)
        return shown("\n".join([found.text, *found.notes]))

    @tool(effect="read", egress=False, untrusted=not trusted, timeout=limits.seconds + 5)
    async def query(sql: str) -> str:
        """The rows of one SELECT query. Names of tables and columns are as `tables` tells them.

        Args:
            sql: The query, in the database's dialect.
        """
        known: tuple[Table, ...] = ()
        try:
            known = await asyncio.to_thread(database.tables)
            checked = check(sql, Allowed.of(database.dialect, known), limits.rows)
            rows = await asyncio.to_thread(database.run, checked, limits)
        except SqlError as e:
            raise ToolError(shown(f"{e}\n{_there_is(known)}")) from None
        return "\n".join([shown(table_text(rows, ROWS)), *rows.notes])

    @tool(effect="danger", timeout=limits.seconds + 5)
    async def change(sql: str) -> str:
        """Run one INSERT, UPDATE or DELETE statement. Somebody has to approve it.

        Args:
            sql: The statement, in the database's dialect.
        """
        try:
            return f"{await write(database, sql, _approved, limits)} rows changed"
        except SqlError as e:
            raise ToolError(shown(str(e))) from None

    if trusted:  # then its names may stand among our own words
        query = replace(query, description=f"{query.description}\n{_there_is(database.tables())}")
    return tables, query, _checked_first(change, database)


def _there_is(tables: Sequence[Table]) -> str:
    """The tables and their columns, as far as a line of an error goes."""
    text = "; ".join(f"{one.name}({', '.join(column.name for column in one.columns)})" for one in tables)
    return f"The tables are: {one_line(text, TOLD)}" if tables else ""


async def _approved(change: Change) -> bool:
    return True  # by whoever the dispatcher asked: a tool with the effect danger never runs without


def _checked_first(change: Tool, database: Database) -> Tool:
    async def problem(arguments: dict[str, object]) -> str | None:
        if said := await change.check(arguments):
            return said
        try:
            known = await asyncio.to_thread(database.tables)
            check_change(str(arguments["sql"]), Allowed.of(database.dialect, known))
        except SqlError as e:
            return shown(str(e))
        return None

    return replace(change, check=problem)
