"""What a query may be: one query, made of parts that are known and read only, over tables and functions that are known.

The second of three guards, and it needs no other: a query that passes reads the given tables even where the connection could
write. What runs is not the text that came but what sqlglot writes of the tree that was looked at, read and looked at once more;
so a comment, a quote or a character that two parsers read differently has no effect.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from myna.apps.sql.database import Dialect, Table, check_text
from myna.apps.sql.functions import allowed
from myna.records import SqlError

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

# sqlglot's names of the parts that a query may have. What is not here is refused: INTO, FOR UPDATE, hints, parameters, commands,
# table samples, whatever sqlglot learns next.
PARTS = frozenset(
    """
    select union intersect except subquery with cte from join where group having order ordered limit limitoptions offset fetch distinct
    table tablealias column identifier alias aliases star literal null boolean paren tuple values var
    window windowspec filter withingroup qualify lateral ignorenulls respectnulls having havingmax
    not neg and or xor eq neq gt gte lt lte is isdistinct nullsafeeq nullsafeneq in between like ilike similarto escape glob
    regexplike regexpilike exists any all collate
    add sub mul div mod intdiv dpipe bitwiseand bitwiseor bitwisexor bitwisenot bitwiseleftshift bitwiserightshift
    cast trycast case if datatype datatypeparam datatypesize interval intervalspan attimezone extract
    bracket slice array list struct propertyeq lambda jsonextract jsonextractscalar jsonbextract jsonbextractscalar jsonpath
    jsonpathroot jsonpathkey jsonpathsubscript jsonpathwildcard arraycontainsall arraycontainedby arrayoverlaps jsonbcontains
    jsonbcontainsanytopkeys jsonbcontainsalltopkeys jsonarraycontains
    cube rollup groupingsets hexstring national rawstring unnest tabletotable pseudotype
    """.split()
)
# Of DuckDB alone: fields of a struct and calls as methods. In PostgreSQL `('x'::text).f` calls the function f.
DUCKDB_PARTS = PARTS | {"dot"}
ROOTS = {"select", "union", "intersect", "except", "subquery"}
ARITIES = 5  # a function's form can depend on how many arguments it has


@dataclass(frozen=True, slots=True)
class Allowed:
    """Tables that a query may read, by schema and name as the dialect folds them."""

    dialect: Dialect
    names: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, dialect: Dialect, tables: Iterable[Table]) -> "Allowed":
        return cls(dialect, frozenset((_fold(one.schema, dialect), _fold(one.name, dialect)) for one in tables))

    def has(self, schema: str, name: str) -> bool:
        """Whether a table named so is one of them. Only those a bare name finds are found by a bare name."""
        if (schema, name) in self.names:
            return True
        default = "public" if self.dialect == "postgres" else "main"
        return schema == default and ("", name) in self.names


def check(sql: str, allowed_tables: Allowed, rows: int = 1_000) -> str:
    """The query to run, with a LIMIT of one row more than `rows`, so that it is seen that there are more.

    Raises SqlError, refused, saying what is not allowed; failed, where it cannot be read.
    """
    check_text(sql)
    dialect = allowed_tables.dialect
    tree = _read(sql, dialect)
    _look(tree, allowed_tables, sql)
    _limit(tree, rows + 1)
    written = tree.sql(dialect=dialect, comments=False)
    _look(_read(written, dialect), allowed_tables, sql)
    return written


def check_change(sql: str, allowed_tables: Allowed) -> str:
    """One INSERT, UPDATE or DELETE of a known table, its parts and functions as in a query. Raises SqlError."""
    check_text(sql)
    tree = _read(sql, allowed_tables.dialect)
    if tree.key not in ("insert", "update", "delete"):
        raise _refused("only INSERT, UPDATE and DELETE", sql)
    _look(tree, allowed_tables, sql, parts=frozenset({tree.key, "schema"}))
    return tree.sql(dialect=allowed_tables.dialect, comments=False)


def tables_of(sql: str, dialect: Dialect) -> set[str]:
    """Names of the tables that a query reads, as it writes them; not those it defines by WITH."""
    import sqlglot.expressions as exp

    return {one.name for one in _read(sql, dialect).find_all(exp.Table) if one.name and not _defined(one, one.name)}


def _read(sql: str, dialect: Dialect) -> "Expr":
    import sqlglot

    logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it repeats what it cannot read
    try:
        statements = [one for one in sqlglot.parse(sql, dialect=dialect) if one is not None]
    except sqlglot.errors.SqlglotError as e:
        raise SqlError(f"The query cannot be read: {_plain(e)}", kind="failed", sql=sql) from None
    except RecursionError:
        raise SqlError("The query is nested too deeply.", kind="refused", sql=sql) from None
    if len(statements) != 1:
        raise _refused(f"one query at a time, not {len(statements)}", sql)
    return statements[0]


def _look(tree: "Expr", allowed_tables: Allowed, sql: str, parts: frozenset[str] = frozenset()) -> None:
    """Raises SqlError at the first part that is not allowed."""
    import sqlglot.expressions as exp

    dialect = allowed_tables.dialect
    if tree.key not in ROOTS | parts:
        raise _refused(f"only a query, not {tree.key.upper()}", sql)
    known = parts | (DUCKDB_PARTS if dialect == "duckdb" else PARTS)
    functions = _functions(dialect)
    for node in tree.walk():
        if node.key in known:
            if isinstance(node, exp.Table):
                _look_at_table(node, allowed_tables, sql)
        elif isinstance(node, exp.Anonymous):
            if not isinstance(node.this, str) or node.this.lower() not in allowed(dialect):
                raise _refused(f"the function {str(node.this)[:80]} is not allowed", sql)
        elif not isinstance(node, exp.Func) or node.key not in functions:
            what = f"the function {node.sql_name()}" if isinstance(node, exp.Func) else node.key.upper()
            raise _refused(f"{what} is not allowed", sql)


def _look_at_table(table: Any, allowed_tables: Allowed, sql: str) -> None:
    import sqlglot.expressions as exp

    if isinstance(table.this, exp.Func):  # a function in FROM, which is looked at as a function
        if table.args.get("db") or table.args.get("catalog"):
            raise _refused("a function of a schema is not allowed", sql)
        return
    dialect = allowed_tables.dialect
    schema, name = (_folded(table.args.get(part), dialect) for part in ("db", "this"))
    parts = [table.args.get(one) for one in ("catalog", "db", "this")]
    called = ".".join(part if isinstance(part, str) else part.sql(dialect=dialect) for part in parts if part)[:120]
    if not isinstance(table.this, exp.Identifier) or table.args.get("catalog"):
        raise _refused(f"the table {called} is not allowed", sql)
    if not schema and _defined(table, name):
        return
    # PostgreSQL looks among its own tables first.
    if not allowed_tables.has(schema, name) or (dialect == "postgres" and not schema and name.startswith("pg_")):
        raise _refused(f"there is no table {called} to be read", sql)


def _defined(table: Any, name: str) -> bool:
    """Whether a WITH that the table stands under defines the name: one before the definition it stands in, or that itself where
    it is recursive."""
    child, node = table, table.parent
    while node is not None:
        seen = []
        if node.key == "with":
            at = [one is child for one in node.expressions].index(True)
            seen = node.expressions[: at + 1 if node.args.get("recursive") else at]
        elif (found := node.args.get("with_")) is not None and found is not child:
            seen = found.expressions
        if any(one.alias.lower() == name.lower() for one in seen):
            return True
        child, node = node, node.parent
    return False


@cache
def _functions(dialect: Dialect) -> frozenset[str]:
    """sqlglot's kinds of the functions that are allowed: those that it makes of their names, with none to some arguments."""
    import sqlglot
    import sqlglot.expressions as exp

    kinds: set[str] = set()
    for name in allowed(dialect):
        if not name.replace("_", "").isalnum():
            continue
        for count in range(ARITIES):
            try:
                tree = sqlglot.parse_one(f"SELECT {name}({', '.join('abcde'[:count])})", dialect=dialect)
            except sqlglot.errors.SqlglotError:
                continue
            kinds |= {node.key for node in tree.walk() if isinstance(node, exp.Func)}
    return frozenset(kinds - {"anonymous"})


def _limit(tree: Any, most: int) -> None:
    """At most so many rows: a smaller limit stays, a larger one shrinks, one that is not a plain number is left to the caps."""
    import sqlglot.expressions as exp

    limit = tree.args.get("limit")
    if limit is None:
        tree.set("limit", exp.Limit(expression=exp.Literal.number(most)))
        return
    number = limit.expression if isinstance(limit, exp.Limit) else None
    if isinstance(number, exp.Literal) and number.is_int and int(number.this) > most:
        limit.set("expression", exp.Literal.number(most))


def _fold(name: str, dialect: Dialect) -> str:
    """A name of the database's own, for comparing: PostgreSQL keeps what it stored, the others ignore case."""
    return name if dialect == "postgres" else name.lower()


def _folded(identifier: Any, dialect: Dialect) -> str:
    """A name in a query, as the database will look for it."""
    if identifier is None or isinstance(identifier, str):
        return identifier or ""
    name: str = identifier.name
    quoted = bool(identifier.args.get("quoted"))
    return name if dialect == "postgres" and quoted else name.lower()


def _refused(what: str, sql: str) -> SqlError:
    return SqlError(f"The query was refused: {what}.", kind="refused", sql=sql)


def _plain(error: Exception) -> str:
    errors: Iterator[str] = (one.get("description") or "" for one in getattr(error, "errors", []))
    return next((text for text in errors if text), str(error).split("\n")[0])[:300]


__all__ = ["Allowed", "check", "check_change", "tables_of"]
