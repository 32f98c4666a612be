"""What joins tables: their keys; where two tables have none, columns that are called alike."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from myna.apps.sql.database import Table

ALIKE = 3  # conditions of two tables that no key joins
PLAIN = frozenset(
    "id name title type date year note notes description comment status code homepage".split()
)  # join nothing

Joins = Mapping[
    tuple[int, int], list[tuple[tuple[str, str], ...]]
]  # of tables i < j, the conditions: columns of i and j


def joins_of(tables: Sequence[Table]) -> Joins:
    """Along keys; where two tables have none, along columns that are called alike, or id and TABLE_id."""
    found: dict[tuple[int, int], list[tuple[tuple[str, str], ...]]] = {}
    at = {one.name.lower(): i for i, one in enumerate(tables)}

    def add(i: int, j: int, pairs: Sequence[tuple[str, str]]) -> None:
        if i != j and all(_has(tables[i], a) and _has(tables[j], b) for a, b in pairs):
            sides = tuple(pairs) if i < j else tuple((b, a) for a, b in pairs)
            found.setdefault(pair(i, j), []).append(sides)

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
    theirs = {b.name.lower(): b.name for b in other.columns}
    for a in one.columns:
        x = a.name.lower()
        if x in theirs and x not in PLAIN:
            yield a.name, theirs[x]
        elif "id" in theirs and x == f"{other.name.lower()}_id":
            yield a.name, theirs["id"]
        elif x == "id" and (y := f"{one.name.lower()}_id") in theirs:
            yield a.name, theirs[y]


def _has(table: Table, name: str) -> bool:
    return any(one.name == name for one in table.columns)


def pair(i: int, j: int) -> tuple[int, int]:
    return min(i, j), max(i, j)
