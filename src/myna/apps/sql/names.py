"""Where a query's columns are: its names looked up in the schema. A model that writes T1.weight where T1 has no weight has made its
commonest mistake, and is told which tables have one.

The query is not mended. Given to the one table of the query that has it, a column made of 26 refused queries one right answer and 25
wrong ones (docs/experiments.md), and an error says more than wrong rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from myna.apps.sql.database import Dialect, Table, quoted

if TYPE_CHECKING:
    from sqlglot.optimizer.scope import Scope

SHOWN = 20  # columns of a table, and tables of a column, that are told
# Columns that tables have and no schema lists.
HIDDEN = {
    "sqlite": {"rowid", "oid", "_rowid_"},
    "duckdb": {"rowid"},
    "postgres": {"ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"},
}


def unknown(sql: str, tables: Sequence[Table], dialect: Dialect) -> tuple[str, ...]:
    """A sentence for each column that the table it is asked of does not have. Nothing of what cannot be read, and nothing of what a
    subquery or a WITH gives."""
    import sqlglot
    from sqlglot.optimizer.scope import traverse_scope

    known = _Known(sql, tuple(tables), dialect)
    try:
        scopes = traverse_scope(sqlglot.parse_one(sql, dialect=dialect))
        found = [known.problem(column, scope) for scope in scopes for column in scope.columns]
    except (sqlglot.errors.SqlglotError, RecursionError):
        return ()
    return tuple(dict.fromkeys(one for one in found if one))


@dataclass(frozen=True, slots=True)
class _Known:
    sql: str
    tables: tuple[Table, ...]
    dialect: Dialect

    def problem(self, column: Any, scope: "Scope") -> str:
        import sqlglot.expressions as exp

        alias, name = column.table, column.name
        if not name or isinstance(column.this, exp.Star) or self._text(column):
            return ""
        around = [scope, *_above(scope)]
        if alias:
            sources = [(called.lower(), source) for one in around for called, source in one.sources.items()]
            table = next((self._table(source) for called, source in sources if called == alias.lower()), None)
            if table is None or self._has(table, name):
                return ""
            columns = ", ".join(one.name for one in table.columns[:SHOWN])
            return f"{alias}.{name}: {alias} is {_called(table)}, whose columns are {columns}. {self._where(name)}"
        every = [self._table(source) for one in around for source in one.sources.values()]
        named = {one.alias.lower() for one in getattr(scope.expression, "selects", ())}
        if name.lower() in named or any(one is None or self._has(one, name) for one in every):
            return ""
        return f"{name}: no table of the query has it. {self._where(name)}"

    def _text(self, column: Any) -> bool:
        """SQLite reads a name in double quotes that it does not know as a text."""
        return (
            self.dialect == "sqlite"
            and not column.table
            and bool(column.this.args.get("quoted"))
            and quoted(column.name) in self.sql
        )

    def _table(self, source: Any) -> Table | None:
        """The one table that is meant; None where it is none of these, or could be several."""
        import sqlglot.expressions as exp

        if not isinstance(source, exp.Table):
            return None
        schema = "" if source.db.lower() in ("main", "public") else source.db.lower()
        found = [one for one in self.tables if (one.name.lower(), one.schema.lower()) == (source.name.lower(), schema)]
        exact = [one for one in found if one.name == source.name]
        return found[0] if len(found) == 1 else exact[0] if len(exact) == 1 else None

    def _has(self, table: Table, name: str) -> bool:
        hidden = name.lower() in HIDDEN[self.dialect]
        return hidden or any(one.name.lower() == name.lower() for one in table.columns)

    def _where(self, name: str) -> str:
        owners = [
            _called(table) for table in self.tables if any(one.name.lower() == name.lower() for one in table.columns)
        ]
        return f"{name} is a column of {', '.join(owners[:SHOWN])}." if owners else f"No table has a column {name}."


def _called(table: Table) -> str:
    return f"{table.schema}.{table.name}" if table.schema else table.name


def _above(scope: "Scope") -> "Iterator[Scope]":
    while (parent := scope.parent) is not None:
        yield (scope := parent)
