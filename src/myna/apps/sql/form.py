"""A form of answers that only a query of this database has: its tables, their own columns, joins along its keys.

A small model's commonest mistake is a column of a table that has none such, and told so it mostly writes the same again. Held to this
form it cannot: a query reads one of few sets of joined tables, and names columns of that set alone. (Constrained decoding of SQL is
PICARD's, Scholak et al. 2021, https://arxiv.org/abs/2109.05093; here it is a grammar.) What the form leaves out, a table joined with
itself, a WITH, names for columns, is left to the first try, which is free.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from json import dumps

from myna.apps.sql.card import named
from myna.apps.sql.database import Dialect, Table
from myna.records import Form

TABLES, JOINED, SETS = 8, 4, 60  # the best so many tables; in one query; sets of them
COLUMNS, ALIKE = 60, 3  # of a table; of two tables that no key joins
PLAIN = frozenset(
    "id name title type date year note notes description comment status code homepage".split()
)  # join nothing

# Aggregates hold no aggregates, so that none goes on for ever.
COMMON = r"""
lit: STR | INT | NUM
AGG: "SUM" | "AVG" | "MIN" | "MAX"
FN: "LOWER" | "UPPER" | "LENGTH" | "ABS"
CMP: "=" | "!=" | "<>" | "<" | ">" | "<=" | ">="
AR: "+" | "-" | "*" | "/"
DIR: " ASC" | " DESC"
SETOP: " UNION " | " INTERSECT " | " EXCEPT "
STR: /'([^'\n;]|'')*'/
INT: /[0-9]{1,18}/
NUM: /[0-9]{1,18}\.[0-9]{1,18}/
"""
# Of the set number @; its columns k@ and its joins f@ are written below.
SELECT = r"""
q@: "SELECT " "DISTINCT "? o@ (", " o@)* " FROM " f@ (" WHERE " c@)? g@? (" ORDER BY " e@ DIR? (", " e@ DIR?)*)? (" LIMIT " INT)?
g@: " GROUP BY " k@ (", " k@)* (" HAVING " h@)?
o@: e@ | "*"
e@: v@ (" " AR " " v@)*
v@: k@ | lit | a@ | "CAST(" (k@ | a@) " AS REAL)" | FN "(" k@ ")"
a@: AGG "(" "DISTINCT "? p@ ")" | "COUNT" "(" ("DISTINCT "? p@ | "*") ")"
p@: (k@ | lit) (" " AR " " (k@ | lit))?
c@: x@ ((" AND " | " OR ") x@)*
x@: (p@ | FN "(" k@ ")") y@ | k@ z@
y@: " " CMP " " (p@ | "(" query ")") | " NOT"? " LIKE " STR | " BETWEEN " lit " AND " lit
z@: " NOT"? " IN (" (query | lit (", " lit)*) ")" | " IS" " NOT"? " NULL"
h@: a@ " " CMP " " (lit | "(" query ")")
"""

Joins = Mapping[tuple[int, int], list[str]]  # of two tables, the conditions


def select_form(tables: Sequence[Table], dialect: Dialect) -> Form | None:
    """SELECT over these tables, best first; None without any. A grammar as llguidance reads Lark's."""
    names = [one.name.lower() for one in tables]
    used = [one for i, one in enumerate(tables) if one.name.lower() not in names[:i]][:TABLES]
    if not used:
        return None
    joins = _joins(used, dialect)
    sets = _sets(len(used), joins)
    lines = ["start: query", "query: any (SETOP any)*", f"any: {' | '.join(f'q{n}' for n in range(len(sets)))}", COMMON]
    for i, table in enumerate(used):
        columns = [named(one.name, dialect) for one in table.columns[:COLUMNS] if one.name.isprintable()]
        lines.append(f"bare{i}: {_either(columns)}")
        lines.append(f"full{i}: {_either([f'{named(table.name, dialect)}.{one}' for one in columns])}")
    for n, some in enumerate(sets):
        columns = [f"full{i}" for i in sorted(some)] + [f"bare{i}" for i in some if len(some) == 1]
        lines.append(SELECT.replace("@", str(n)))
        lines.append(f"k{n}: {' | '.join(columns)}")
        lines.append(f"f{n}: {' | '.join(_from(some, sets, used, joins, dialect))}")
    return Form("grammar", "\n".join(lines), param="sql")


def _joins(tables: Sequence[Table], dialect: Dialect) -> Joins:
    """Along keys; where two tables have none, along columns that are called alike, or id and TABLE_id."""
    found: dict[tuple[int, int], list[str]] = {}
    at = {one.name.lower(): i for i, one in enumerate(tables)}

    def add(i: int, j: int, pairs: Sequence[tuple[str, str]]) -> None:
        if i != j and all(_has(tables[i], a) and _has(tables[j], b) for a, b in pairs):
            own, other = named(tables[i].name, dialect), named(tables[j].name, dialect)
            sides = [(f"{own}.{named(a, dialect)}", f"{other}.{named(b, dialect)}") for a, b in pairs]
            for said in (" AND ".join(f"{a} = {b}" for a, b in sides), " AND ".join(f"{b} = {a}" for a, b in sides)):
                found.setdefault((min(i, j), max(i, j)), []).append(said)

    for i, table in enumerate(tables):
        for key in table.keys:
            if key.table.lower() in at:
                add(i, at[key.table.lower()], list(zip(key.columns, key.others, strict=False)))
    for i, one in enumerate(tables):
        for j, other in enumerate(tables[i + 1 :], start=i + 1):
            if (i, j) not in found:
                for a, b in islice(_alike(one, other), ALIKE):
                    add(i, j, [(a, b)])
    return found


def _alike(one: Table, other: Table) -> Iterator[tuple[str, str]]:
    for a in one.columns:
        for b in other.columns:
            x, y = a.name.lower(), b.name.lower()
            alike = x == y and x not in PLAIN
            if (
                alike
                or (y == "id" and x == f"{other.name.lower()}_id")
                or (x == "id" and y == f"{one.name.lower()}_id")
            ):
                yield a.name, b.name


def _has(table: Table, name: str) -> bool:
    return any(one.name == name for one in table.columns)


def _sets(count: int, joins: Joins) -> list[frozenset[int]]:
    """Sets of tables that joins connect, small ones of good tables first, so that every set's smaller one is there."""
    found = [frozenset({i}) for i in range(count)]
    for some in found:  # it grows
        if len(some) < JOINED:
            for new in range(count):
                larger = some | {new}
                if larger not in found and len(found) < SETS and any(_pair(old, new) in joins for old in some - {new}):
                    found.append(larger)
    return found


def _from(
    some: frozenset[int], sets: Sequence[frozenset[int]], tables: Sequence[Table], joins: Joins, dialect: Dialect
) -> Iterator[str]:
    """The table itself; or a smaller set's, and a join of one more."""
    if len(some) == 1:
        yield _either([_table(tables[min(some)], dialect)])
    for new in sorted(some) if len(some) > 1 else ():
        rest = some - {new}
        if rest in sets:
            conditions = [said for old in sorted(rest) for said in joins.get(_pair(old, new), ())]
            start = _either([f"JOIN {_table(tables[new], dialect)} ON "])
            yield f'f{sets.index(rest)} (" " | " INNER " | " LEFT ") {start} ({_either(conditions)})'


def _either(texts: Sequence[str]) -> str:
    return " | ".join(dumps(one, ensure_ascii=False) for one in texts)


def _pair(i: int, j: int) -> tuple[int, int]:
    return min(i, j), max(i, j)


def _table(table: Table, dialect: Dialect) -> str:
    return (
        f"{named(table.schema, dialect)}.{named(table.name, dialect)}" if table.schema else named(table.name, dialect)
    )
