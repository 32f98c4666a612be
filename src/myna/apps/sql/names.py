"""Which table a column is of: a query's names looked up in the schema, before it runs.

A model that writes T1.weight where only T2 has a weight has made its commonest mistake. Where one table of the query alone has such
a column, that is the one that was meant; else it is told which tables have one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from myna.apps.sql.database import Dialect, Table

if TYPE_CHECKING:
    from sqlglot.optimizer.scope import Scope

SHOWN = 20  # columns of a table, and tables of a column, that are told


@dataclass(frozen=True, slots=True)
class Names:
    """`sql` with columns given to the tables that have them; `mended` says which; `unknown` says of the others where they are."""

    sql: str
    mended: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def resolve(sql: str, tables: Sequence[Table], dialect: Dialect) -> Names:
    """What cannot be read stays as it is: the guard says what is wrong with it."""
    import sqlglot
    from sqlglot.optimizer.scope import traverse_scope

    known = {table.name.lower(): table for table in tables}
    mended: dict[str, None] = {}
    unknown: dict[str, None] = {}
    try:
        tree = sqlglot.parse_one(sql, dialect=dialect)
        seen: set[int] = set()
        for scope in traverse_scope(tree):
            for column in [one for one in scope.columns if id(one) not in seen]:
                seen.add(id(column))
                _look_up(column, scope, known, mended, unknown)
        written = tree.sql(dialect=dialect) if mended else sql
    except (sqlglot.errors.SqlglotError, RecursionError):
        return Names(sql)
    return Names(written, tuple(mended), tuple(unknown))


def _look_up(
    column: Any, scope: "Scope", known: Mapping[str, Table], mended: dict[str, None], unknown: dict[str, None]
) -> None:
    """Give a column to the table that has it, or say where it is. What a subquery or a WITH gives is not known here."""
    import sqlglot.expressions as exp

    alias, name = column.table, column.name
    if not name or isinstance(column.this, exp.Star):
        return
    here = {other: _table(source, known) for other, source in scope.sources.items()}
    if not alias:
        outer = [one for above in _above(scope) for one in above.sources.values()]
        every = [*here.values(), *(_table(source, known) for source in outer)]
        named = {one.alias.lower() for one in getattr(scope.expression, "selects", ())}
        if all(every) and name.lower() not in named and not any(_has(one, name) for one in every if one):
            unknown[f"{name}: no table of the query has it. {_where(name, known)}"] = None
        return
    source = next((one.sources[alias] for one in (scope, *_above(scope)) if alias in one.sources), None)
    table = _table(source, known)
    if table is None or _has(table, name):
        return
    owners = [other for other, one in here.items() if one and _has(one, name)]
    if len(owners) == 1:
        mended[f"{alias}.{name} is read as {owners[0]}.{name}: {table.name} has no such column"] = None
        column.set("table", exp.to_identifier(owners[0]))
        return
    columns = ", ".join(one.name for one in table.columns[:SHOWN])
    unknown[f"{alias}.{name}: {alias} is {table.name}, whose columns are {columns}. {_where(name, known)}"] = None


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
