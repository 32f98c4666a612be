"""What a model is told of a database: tables, columns, types, comments, foreign keys and a few values, those that the question
is about first. Everything in it is a stranger's text: it stands between marks, and on lines of its own making it cannot leave.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from myna.apps.sql.database import Database, Dialect, Limits, Rows, Table, quoted
from myna.apps.sql.shown import one_line
from myna.records import SqlError

SIZE = 12_000  # characters, about 3,000 tokens
VALUES, VALUE = 3, 40  # that are shown of a column; characters of one
HINTS = 10  # columns with values that the question may mean
MEANT = "Values that the question may mean:"
SAMPLE = Limits(seconds=1.0, rows=50, bytes=200_000, cell=80)  # of a table, to take values from
COMMENT = 200  # characters
NAME = 200  # characters of a name; a table or column with a longer one, or with control characters, is left out
COLUMNS = 100  # that are shown of a table
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
NEAR = 0.5  # of a table's score goes to tables that it has a key to, or that have one to it
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")


@dataclass(frozen=True, slots=True)
class Card:
    """`text` for the model, not fenced yet; `tables` that are in it, best first; `notes` say what is not."""

    text: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]


def card(database: Database, question: str, *, size: int = SIZE, tables: Sequence[Table] | None = None) -> Card:
    """At most `size` characters. Reads up to 50 rows of each table that is shown. Blocks. Raises SqlError.

    Where all tables fit, they stand in the database's order, and what the question names comes after them: so all questions to a
    database begin alike, and an engine that knows the beginning of a prompt reads it once.
    """
    found, room = database.tables() if tables is None else tables, size
    usable = [one for one in found if _sayable(one.name) and any(_sayable(column.name) for column in one.columns)]
    notes = (
        [f"{len(found) - len(usable)} tables left out: their names cannot be shown"] if len(found) > len(usable) else []
    )
    asked = words(question)
    kept: list[tuple[Table, str]] = []
    hints: list[str] = []
    unread = 0
    for table in ranked(usable, asked):
        try:
            values = _values(database, table)
        except SqlError:
            values, unread = {}, unread + 1
        text = describe(table, database.dialect, {name: texts[:VALUES] for name, texts in values.items()})
        if len(text) > size and not kept:
            text = _shortened(table, database.dialect, size)
        if len(text) > size:
            break
        size -= len(text) + 1
        kept.append((table, text))
        hints += _hints(table, database.dialect, values, asked)
    if left := len(usable) - len(kept):
        notes.append(f"{left} of {len(usable)} tables left out: there is room for {room:,} characters")
    if unread:
        notes.append(f"no values of {unread} tables: they could not be read")
    shown = kept if left else sorted(kept, key=lambda pair: usable.index(pair[0]))
    said = [text for _, text in shown]
    if hints and sum(map(len, (MEANT, *hints[:HINTS]))) + HINTS < size:
        said += [MEANT, *hints[:HINTS]]
    return Card("\n".join(said), tuple(table for table, _ in kept), tuple(notes))


def ranked(tables: Sequence[Table], asked: Counter[str]) -> list[Table]:
    """Best first: words of the question in names and comments, rare ones more (inverse document frequency); then tables that
    are joined to such. Equal ones stay in order."""
    bags = [words(" ".join(_said(one))) for one in tables]
    names = [words(one.name) for one in tables]
    seen = Counter(word for bag in bags for word in bag)
    rarity = {word: math.log(1 + len(tables) / count) for word, count in seen.items() if word in asked}
    own = [
        sum(rarity[word] * (1 + (word in name)) for word in bag if word in rarity)
        for bag, name in zip(bags, names, strict=True)
    ]
    at = {one.name: i for i, one in enumerate(tables)}
    total = list(own)
    for i, table in enumerate(tables):
        for other in {at[key.table] for key in table.keys if key.table in at} - {i}:
            total[i] = max(total[i], own[i] + NEAR * own[other])
            total[other] = max(total[other], own[other] + NEAR * own[i])
    return [tables[i] for i in sorted(range(len(tables)), key=lambda i: -total[i])]


def describe(table: Table, dialect: Dialect, values: dict[str, list[str]], most: int = COLUMNS) -> str:
    """A table's lines, with at most `most` of its columns."""
    heading = f"TABLE {_named(table.schema, dialect) + '.' if table.schema else ''}{_named(table.name, dialect)}"
    lines = [heading + (f"  -- {one_line(table.comment, COMMENT)}" if table.comment else "")]
    shown = [one for one in table.columns if _sayable(one.name)]
    for column in shown[:most]:
        line = f"  {_named(column.name, dialect)} {one_line(column.type, 40)}".rstrip()
        line += " primary key" if column.primary else ""
        said = [one_line(column.comment, COMMENT)] if column.comment else []
        if found := values.get(column.name):
            said.append("such as " + ", ".join(found))
        lines.append(line + (f"  -- {'; '.join(said)}" if said else ""))
    if len(table.columns) > min(len(shown), most):
        lines.append(f"  -- and {len(table.columns) - min(len(shown), most)} more columns")
    for key in table.keys:
        if len(key.columns) == len(key.others) and all(map(_sayable, (key.table, *key.columns, *key.others))):
            pairs = zip(key.columns, key.others, strict=True)
            other = _named(key.table, dialect)
            joined = " AND ".join(f"{_named(a, dialect)} = {other}.{_named(b, dialect)}" for a, b in pairs)
            lines.append(f"  -- joins: {joined}")
    return "\n".join(lines)


def _shortened(table: Table, dialect: Dialect, size: int) -> str:
    """Without values, and with as many columns as fit: of the best table something is always shown."""
    most = COLUMNS
    while len(text := describe(table, dialect, {}, most)) > size and most > 1:
        most -= 1
    return text


def words(text: str) -> Counter[str]:
    """Words of a name or a sentence: CamelCase and snake_case are taken apart, plurals lose their s, Chinese is pairs of
    characters."""
    found: Counter[str] = Counter()
    for word in WORDS.findall(unicodedata.normalize("NFKC", text)):
        if word.isascii():
            found[_singular(word.lower())] += 1
        else:
            found.update(word[i : i + 2] for i in range(max(1, len(word) - 1)))
    return found


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _said(table: Table) -> Iterable[str]:
    yield from (table.schema, table.name, table.comment)
    for column in table.columns:
        yield from (column.name, column.comment)


def _values(database: Database, table: Table) -> dict[str, list[str]]:
    """The different values of each column of text or dates in the first rows, as literals: numbers explain little."""
    wanted = [one for one in table.columns if _sayable(one.name) and not _NO_SAMPLE.search(one.type)][:COLUMNS]
    if not wanted:
        return {}
    schema = f"{quoted(table.schema)}." if table.schema else ""
    columns = ", ".join(quoted(one.name) for one in wanted)
    found: Rows = database.run(f"SELECT {columns} FROM {schema}{quoted(table.name)} LIMIT {SAMPLE.rows}", SAMPLE)
    values: dict[str, list[str]] = {}
    for i, column in enumerate(wanted):
        texts = dict.fromkeys(row[i] for row in found.rows if isinstance(row[i], str) and row[i])
        values[column.name] = ["'" + one_line(str(text), VALUE).replace("'", "''") + "'" for text in texts]
    return values


def _hints(table: Table, dialect: Dialect, values: dict[str, list[str]], asked: Counter[str]) -> list[str]:
    """A line for each column that has values with words of the question, the best of them."""
    found = []
    for name, texts in values.items():
        scores = {text: sum((words(text) & asked).values()) for text in texts}
        best = sorted((text for text in texts if scores[text]), key=lambda text: -scores[text])[:VALUES]
        if best:
            found.append(f"  {_named(table.name, dialect)}.{_named(name, dialect)}: {', '.join(best)}")
    return found


_NO_SAMPLE = re.compile(r"blob|bytea|binary|int|real|float|double|numeric|decimal|bool|json|xml|vector", re.IGNORECASE)


def _sayable(name: str) -> bool:
    return 0 < len(name) <= NAME and name.isprintable()


def _named(name: str, dialect: Dialect) -> str:
    """As a query would have to write it."""
    folds = dialect != "postgres" or name == name.lower()
    return name if PLAIN.match(name) and folds and name.lower() not in _RESERVED else quoted(name)


_RESERVED = frozenset(
    """all and any as asc between by case check collate column constraint create cross default delete desc distinct drop else end
    except exists for foreign from full group having if in index inner insert intersect into is join key left like limit natural not
    null offset on or order outer primary references right select set table then to transaction union unique update user using
    values view when where with""".split()
)
