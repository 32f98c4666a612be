"""Where a query's columns are: its names looked up in the schema. A model that writes T1.weight where T1 has no weight has made its
commonest mistake, and is told which tables have one.

The query is not mended. Given to the one table of the query that has it, a column made of 26 refused queries one right answer and 25
wrong ones (docs/experiments.md), and an error says more than wrong rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from myna.apps.sql.database import Dialect, Table

if TYPE_CHECKING:
    from sqlglot.optimizer.scope import Scope

SHOWN = 20  # columns of a table, and tables of a column, that are told


def unknown(sql: str, tables: Sequence[Table], dialect: Dialect) -> tuple[str, ...]:
    """A sentence for each column that the table it is asked of does not have. Nothing of what cannot be read, and nothing of what a
    subquery or a WITH gives."""
    import sqlglot
    from sqlglot.optimizer.scope import traverse_scope

    known = {table.name.lower(): table for table in tables}
    try:
        scopes = traverse_scope(sqlglot.parse_one(sql, dialect=dialect))
        found = [_problem(column, scope, known) for scope in scopes for column in scope.columns]
    except (sqlglot.errors.SqlglotError, RecursionError):
        return ()
    return tuple(dict.fromkeys(one for one in found if one))


def _problem(column: Any, scope: "Scope", known: Mapping[str, Table]) -> str:
    import sqlglot.expressions as exp

    alias, name = column.table, column.name
    if not name or isinstance(column.this, exp.Star):
        return ""
    around = [scope, *_above(scope)]
    if alias:
        sources = [(called.lower(), source) for one in around for called, source in one.sources.items()]
        table = next((_table(source, known) for called, source in sources if called == alias.lower()), None)
        if table is None or _has(table, name):
            return ""
        columns = ", ".join(one.name for one in table.columns[:SHOWN])
        return f"{alias}.{name}: {alias} is {table.name}, whose columns are {columns}. {_where(name, known)}"
    every = [_table(source, known) for one in around for source in one.sources.values()]
    named = {one.alias.lower() for one in getattr(scope.expression, "selects", ())}
    if name.lower() in named or any(one is None or _has(one, name) for one in every):
        return ""
    return f"{name}: no table of the query has it. {_where(name, known)}"


def _above(scope: "Scope") -> "Iterator[Scope]":
    while (parent := scope.parent) is not None:
        yield (scope := parent)


def _table(source: Any, known: Mapping[str, Table]) -> Table | None:
    import sqlglot.expressions as exp

    return known.get(source.name.lower()) if isinstance(source, exp.Table) else None


def _has(table: Table, name: str) -> bool:
    return any(one.name.lower() == name.lower() for one in table.columns)


def _where(name: str, known: Mapping[str, Table]) -> str:
    owners = [table.name for table in known.values() if _has(table, name)]
    return f"{name} is a column of {', '.join(owners[:SHOWN])}." if owners else f"No table has a column {name}."
