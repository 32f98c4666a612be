"""A form of answers that only a query of this database has: its tables, their own columns, joins along its keys.

A small model's commonest mistake is a column of a table that has none such, and told so it mostly writes the same again. Held to this
form it cannot: a query reads one of few sets of joined tables, and names columns of that set alone. (Constrained decoding of SQL is
PICARD's, Scholak et al. 2021, https://arxiv.org/abs/2109.05093; here it is a grammar.) A set of tables is written in either of two ways:
with their names, or as T1, T2, ..., which is how models were taught to write joins; held to the other way they lose the thread. What the
form leaves out, a WITH, names for columns, subqueries in subqueries, is left to the try that is free.
"""

from collections.abc import Iterable, Iterator, Sequence
from json import dumps

from myna.apps.sql.card import PLAIN as UNQUOTED
from myna.apps.sql.card import named
from myna.apps.sql.database import Dialect, Table
from myna.apps.sql.joins import Joins, joins_of, pair
from myna.records import Form

TABLES, JOINED = 8, 4  # the best so many tables; in one query
SETS, SEQUENCES = 18, 36  # of tables with their names, and as T1, T2, ...: our engine takes 2,000 ways on at one place
COLUMNS = 60  # of a table

# llguidance reads greedily: where one terminal begins another ("flight", "flight AS T1") the shorter one is never read, so that they are
# cut where they part. Aggregates hold no aggregates, so that none goes on for ever.
COMMON = r"""
lit: STR | INT | NUM
AGG: "SUM"i | "AVG"i | "MIN"i | "MAX"i
COUNT: "COUNT"i
DISTINCT: "DISTINCT "i
FN: "LOWER"i | "UPPER"i | "LENGTH"i | "ABS"i
CMP: "=" | "!=" | "<>" | "<" | ">" | "<=" | ">="
AR: "+" | "-" | "*" | "/"
DIR: " ASC" | " DESC"
JOIN: " JOIN " | " INNER JOIN " | " LEFT JOIN "
SETOP: " UNION " | " INTERSECT " | " EXCEPT "
STR: /'([^'\n;]|'')*'/
INT: /[0-9]{1,18}/
NUM: /[0-9]{1,18}\.[0-9]{1,18}/
"""
DATES = {
    "sqlite": '"STRFTIME"i "(" STR ", " k@ ")"',
    "duckdb": '"EXTRACT"i "(" ("YEAR"i | "MONTH"i | "DAY"i) " FROM " k@ ")"',
    "postgres": '"EXTRACT"i "(" ("YEAR"i | "MONTH"i | "DAY"i) " FROM " k@ ")"',
}
# Of the set @; its columns k@ and what it reads f@ are written below.
PARTS = r"""
g@: " GROUP BY " (k@ | n@) (", " (k@ | n@))* (" HAVING " h@)?
r@: " ORDER BY " e@ DIR? (", " e@ DIR?)*
e@: v@ (" " AR " " v@)*
v@: k@ | lit | a@ | n@ | "CAST"i "(" (k@ | a@) " AS " ("REAL" | "FLOAT") ")" | "NULLIF"i "(" a@ ", 0)" | "ROUND"i "(" a@ ", " INT ")"
n@: FN "(" k@ ")" | %DATES%
a@: AGG "(" (DISTINCT? p@ | w@) ")" | COUNT "(" (DISTINCT? (p@ | w@) | "*") ")"
w@: "CASE WHEN " x@ (" AND " x@)* " THEN " p@ (" ELSE " p@)? " END"
p@: (k@ | lit) (" " AR " " (k@ | lit))?
c@: b@ ((" AND " | " OR ") b@)*
b@: x@ | "(" x@ (" OR " x@)+ ")"
x@: (p@ | n@) y@ | k@ z@
"""
QUERY = r"""
q@: "SELECT " DISTINCT? o@ (", " o@)* " FROM " f@ (" WHERE " c@)? g@? r@? (" LIMIT " INT)?
o@: e@ | "*"
y@: " " CMP " " (p@ | "(" sub ")") | " NOT"? " LIKE " STR | " BETWEEN " lit " AND " lit
z@: " NOT"? " IN (" (sub | lit (", " lit)*) ")" | " IS" " NOT"? " NULL"
h@: a@ " " CMP " " (lit | "(" sub ")")
"""
# One column, and no query inside it: small models open one within the other and find no end.
SUBQUERY = r"""
q@: "SELECT " DISTINCT? e@ " FROM " f@ (" WHERE " c@)? g@? r@? (" LIMIT " INT)?
y@: " " CMP " " p@ | " NOT"? " LIKE " STR | " BETWEEN " lit " AND " lit
z@: " NOT"? " IN (" lit (", " lit)* ")" | " IS" " NOT"? " NULL"
h@: a@ " " CMP " " lit
"""


def select_form(tables: Sequence[Table], dialect: Dialect) -> Form | None:
    """SELECT over these tables, best first; None without any. A grammar as llguidance reads Lark's, the same whatever the order
    as long as there is room for all: so it is compiled once for a small database."""
    names = [one.name.lower() for one in tables]
    best = [one for i, one in enumerate(tables) if one.name.lower() not in names[:i]][:TABLES]
    if not best:
        return None
    used = sorted(best, key=lambda one: (one.name, one.schema))
    order, joins = [used.index(one) for one in best], joins_of(used)
    lines = [COMMON]
    for i, table in enumerate(used):
        columns = [named(one.name, dialect) for one in table.columns[:COLUMNS] if one.name.isprintable()]
        lines.append(f"bare{i}: {_either(columns)}")
        lines.append(f"full{i}: {_either([f'{named(table.name, dialect)}.{one}' for one in columns])}")
        lines += [f'as{p}_{i}: "T{p}." bare{i}' for p in range(1, JOINED + 1)]
    sets, sequences = _sets(order, joins), _sequences(order, joins)
    write = _Written(used, joins, dialect)
    for n, some in enumerate(sets):
        lines += write.by_name(str(n), some, sets)
    for n, row in enumerate(sequences):
        lines += write.as_numbers(f"s{n}", row)
    whole = [*map(str, range(len(sets))), *(f"s{n}" for n in range(len(sequences)))]
    small = [str(n) for n, some in enumerate(sets) if len(some) <= 2]
    small += [f"s{n}" for n, row in enumerate(sequences) if len(row) == 2]
    parts = PARTS.replace("%DATES%", DATES[dialect])
    lines += [(QUERY + parts).replace("@", one) for one in whole]
    for one in small:
        inner = (SUBQUERY + parts).replace("k@", f"k{one}").replace("f@", f"f{one}")
        lines.append(inner.replace("@", f"i{one}"))
    start = ["start: query", "query: any (SETOP any)*", f"any: {' | '.join(f'q{one}' for one in whole)}"]
    return Form("grammar", "\n".join([*start, f"sub: {' | '.join(f'qi{one}' for one in small)}", *lines]), param="sql")


class _Written:
    """The rules of a set of tables: its columns, and what it reads."""

    def __init__(self, tables: Sequence[Table], joins: Joins, dialect: Dialect):
        self._tables, self._joins, self._dialect = tables, joins, dialect

    def by_name(self, mark: str, some: frozenset[int], sets: Sequence[frozenset[int]]) -> Iterator[str]:
        """The table itself; or a smaller set, and a join of one more."""
        columns = [f"full{i}" for i in sorted(some)] + [f"bare{i}" for i in some if len(some) == 1]
        yield f"k{mark}: {' | '.join(columns)}"
        ways = [self._called(min(some))] if len(some) == 1 else []
        for new in sorted(some) if len(some) > 1 else ():
            if (rest := some - {new}) in sets:
                said = [
                    one for old in sorted(rest) for one in self._conditions(old, new, self._name(old), self._name(new))
                ]
                ways.append(f'f{sets.index(rest)} JOIN {self._called(new)} " ON " ({_either(said)})')
        yield f"f{mark}: {' | '.join(ways)}"

    def as_numbers(self, mark: str, row: tuple[int, ...]) -> Iterator[str]:
        """The first table AS T1, and each other joined with one before it."""
        yield f"k{mark}: {' | '.join(f'as{p}_{i}' for p, i in enumerate(row, start=1))}"
        parts = [f'{self._called(row[0])} " AS T1"']
        for p, new in enumerate(row[1:], start=2):
            before = list(enumerate(row[: p - 1], start=1))
            said = [one for o, old in before for one in self._conditions(old, new, f"T{o}", f"T{p}")]
            parts.append(f'JOIN {self._called(new)} " AS T{p} ON " ({_either(said)})')
        yield f"f{mark}: {' '.join(parts)}"

    def _conditions(self, old: int, new: int, first: str, second: str) -> Iterator[str]:
        """Both ways round. `first` and `second` are what the tables are called."""
        for pairs in self._joins.get(pair(old, new), ()):
            sides = [(a, b) if old < new else (b, a) for a, b in pairs]
            said = [(f"{first}.{named(a, self._dialect)}", f"{second}.{named(b, self._dialect)}") for a, b in sides]
            yield " AND ".join(f"{a} = {b}" for a, b in said)
            yield " AND ".join(f"{b} = {a}" for a, b in said)

    def _name(self, i: int) -> str:
        return named(self._tables[i].name, self._dialect)

    def _called(self, i: int) -> str:
        schema = self._tables[i].schema
        return _either([f"{named(schema, self._dialect)}.{self._name(i)}" if schema else self._name(i)])


def _sets(order: Sequence[int], joins: Joins) -> list[frozenset[int]]:
    """Sets of tables that joins connect, small ones of good tables first, so that every set's smaller one is there."""
    found = [frozenset({i}) for i in order]
    for some in found:  # it grows
        for new in order if len(some) < JOINED else ():
            larger = some | {new}
            if larger not in found and len(found) < SETS and any(pair(old, new) in joins for old in some - {new}):
                found.append(larger)
    return sorted(found, key=lambda some: (len(some), sorted(some)))


def _sequences(order: Sequence[int], joins: Joins) -> list[tuple[int, ...]]:
    """Tables, each joined with one before it, short ones of good tables first. A table stands there twice only right after itself,
    where another one has two keys to it: flights have an airport at either end."""
    found: list[tuple[int, ...]] = [(i,) for i in order]
    for row in found:  # it grows
        for new in order if len(row) < JOINED else ():
            twice = len(row) == 2 and row[1] == new != row[0] and len(joins[pair(*row)]) > 1
            joined = any(pair(old, new) in joins for old in row)
            if len(found) < SEQUENCES and joined and (new not in row or twice):
                found.append((*row, new))
    return sorted(found, key=lambda row: (len(row), row))


def _either(texts: Iterable[str]) -> str:
    """One of these. A name that needs no quotes is read in capitals and small letters alike, as a database reads it."""
    return " | ".join(
        dumps(one.lower()) + "i" if all(map(UNQUOTED.match, one.split("."))) else dumps(one, ensure_ascii=False)
        for one in texts
    )
