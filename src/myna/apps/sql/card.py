"""What a model is told of a database: its tables as CREATE TABLE statements, each with its keys, comments and first three rows (after
Rajkumar et al. 2022, https://arxiv.org/abs/2204.00498), those that the question is about first. Everything in it is a stranger's text:
it stands between marks, and on lines of its own making it cannot leave.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from myna.apps.sql.database import Database, Dialect, Limits, Rows, Table, quoted
from myna.apps.sql.joins import joins_of
from myna.apps.sql.shown import cell, one_line
from myna.records import SqlError

SIZE = 12_000  # characters, about 3,000 tokens
ROWS, VALUES, VALUE = 3, 3, 40  # rows of a table, values of a column that are shown; characters of one
HINTS = 10  # columns with values that the question may mean
JOINS, JOINABLE = "-- Joins:", 40  # of so many tables
MEANT = "-- Values that the question may mean:"
SAMPLE = Limits(seconds=1.0, rows=50, bytes=200_000, cell=80)  # of a table, to take values from
TOLD = 5  # names of tables that are left out
COMMENT = 200  # characters
NAME = 200  # characters of a name; a table or column with a longer one, or with control characters, is left out
COLUMNS = 100  # that are shown of a table
MORE = re.compile(r"\d+ more columns\Z")
MEANS = 0.5  # of a value's words
EVERYWHERE = frozenset(
    "a all an and are as at be by do for from has have how i in is it me no not of on or the to was what which who with".split()
)
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
    database begin alike, and an engine that knows the beginning of a prompt reads it once. Where they do not, tables come before
    rows: a table that is too large is passed over for smaller ones, and what room is left is for the best tables' rows.
    """
    found = database.tables() if tables is None else tables
    usable = [one for one in found if _sayable(one.name) and any(_sayable(column.name) for column in one.columns)]
    asked, dialect = words(question), database.dialect
    best = ranked(usable, asked)
    texts = _plain(best, dialect, size)
    left = size - sum(len(text) + 1 for text in texts.values())
    hints: list[str] = []
    unread = bare = 0
    for table in [one for one in best if id(one) in texts]:
        try:
            rows = _sample(database, table)
        except SqlError:
            unread += 1
            continue
        example = examples(rows, dialect)
        if len(example) < left:
            texts[id(table)] += example
            left -= len(example)
        else:
            bare += 1
        hints += _hints(table, dialect, rows, question)
    shown = [one for one in (usable if len(texts) == len(usable) else best) if id(one) in texts]
    said = [texts[id(one)] for one in shown]
    if not any(one.keys for one in found):
        joins = _joins(shown, dialect, left)
        left -= sum(len(line) + 1 for line in joins)
        said += joins
    if hints and sum(map(len, (MEANT, *hints[:HINTS]))) + HINTS + 1 < left:
        said += [MEANT, *hints[:HINTS]]
    notes = [*_left_out(found, usable, [one for one in best if id(one) not in texts], size)]
    if narrow := sum(MORE.search(texts[id(one)].split("\n", 1)[0]) is not None for one in shown):
        notes.append(f"{narrow} tables have more columns than are shown")
    notes += [f"no example rows of {bare} tables: there is no room for them"] if bare else []
    notes += [f"no example rows of {unread} tables: they could not be read"] if unread else []
    return Card("\n".join(said), tuple(one for one in best if id(one) in texts), tuple(notes))


def _joins(shown: Sequence[Table], dialect: Dialect, size: int) -> list[str]:
    """Of a database without keys, what its tables are probably joined by, as far as there is room. Where there are keys, the tables
    have them, and lines of them beside make a small model join tables that it does not need (docs/log.md)."""
    lines, few = [JOINS], shown[:JOINABLE]
    for (i, j), conditions in sorted(joins_of(few).items()):
        one, other = (named(few[at].name, dialect) for at in (i, j))
        for (a, b), *_ in conditions:
            lines.append(f"-- {one}.{named(a, dialect)} = {other}.{named(b, dialect)}")
    while lines and sum(len(line) + 1 for line in lines) > size:
        lines.pop()
    return lines if len(lines) > 1 else []


def _plain(best: Sequence[Table], dialect: Dialect, size: int) -> dict[int, str]:
    """The statements of as many tables as fit, by the tables' identity; of the best one something is always shown."""
    texts: dict[int, str] = {}
    for table in best:
        text = describe(table, dialect)
        if not texts and len(text) > size:
            text = _shortened(table, dialect, size)
        if len(text) <= size:
            texts[id(table)] = text
            size -= len(text) + 1
    return texts


def _left_out(found: Sequence[Table], usable: Sequence[Table], missing: Sequence[Table], size: int) -> Iterable[str]:
    if len(found) > len(usable):
        yield f"{len(found) - len(usable)} tables left out: their names cannot be shown"
    if missing:
        names = ", ".join(one_line(one.name, VALUE) for one in missing[:TOLD]) + (
            ", ..." if len(missing) > TOLD else ""
        )
        yield f"{len(missing)} of {len(usable)} tables left out, there is room for {size:,} characters: {names}"


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


def describe(table: Table, dialect: Dialect, most: int = COLUMNS) -> str:
    """The statement that would make the table, with at most `most` of its columns."""
    shown = [one for one in table.columns if _sayable(one.name)][:most]
    primary = [one.name for one in table.columns if one.primary]
    parts = []
    for column in shown:
        line = f"{named(column.name, dialect)} {one_line(column.type, 40)}".rstrip()
        line += " PRIMARY KEY" if primary == [column.name] else ""
        parts.append((line, one_line(column.comment, COMMENT)))
    if len(primary) > 1 and all(map(_sayable, primary)):
        parts.append((f"PRIMARY KEY ({', '.join(named(one, dialect) for one in primary)})", ""))
    for key in table.keys:
        if len(key.columns) == len(key.others) and all(map(_sayable, (key.table, *key.columns, *key.others))):
            own, others = (", ".join(named(one, dialect) for one in names) for names in (key.columns, key.others))
            parts.append((f"FOREIGN KEY ({own}) REFERENCES {named(key.table, dialect)} ({others})", ""))
    left = len(table.columns) - len(shown)
    comment = "; ".join(filter(None, [one_line(table.comment, COMMENT), f"{left} more columns" if left else ""]))
    schema = f"{named(table.schema, dialect)}." if table.schema else ""
    lines = [f"CREATE TABLE {schema}{named(table.name, dialect)} (" + (f"  -- {comment}" if comment else "")]
    for n, (line, said) in enumerate(parts, start=1):
        lines.append(f"    {line}{',' if n < len(parts) else ''}" + (f"  -- {said}" if said else ""))
    return "\n".join([*lines, ");"])


def examples(rows: Rows, dialect: Dialect) -> str:
    """The first rows, as a comment after the statement; "" where there are none."""
    if not rows.rows:
        return ""
    lines = [" | ".join(named(one, dialect) for one in rows.columns)]
    for row in rows.rows[:ROWS]:
        lines.append(" | ".join(one_line(cell(one), VALUE) for one in row))
    return "\n/*\n" + "\n".join(lines) + "\n*/"


def _shortened(table: Table, dialect: Dialect, size: int) -> str:
    """With as many columns as fit."""
    most = COLUMNS
    while len(text := describe(table, dialect, most)) > size and most > 1:
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


def _sample(database: Database, table: Table) -> Rows:
    """The first rows, without columns that would be long."""
    wanted = [one for one in table.columns if _sayable(one.name) and not _NO_SAMPLE.search(one.type)][:COLUMNS]
    if not wanted:
        return Rows((), ())
    schema = f"{quoted(table.schema)}." if table.schema else ""
    columns = ", ".join(quoted(one.name) for one in wanted)
    return database.run(f"SELECT {columns} FROM {schema}{quoted(table.name)} LIMIT {SAMPLE.rows}", SAMPLE)


def _hints(table: Table, dialect: Dialect, rows: Rows, question: str) -> list[str]:
    """A line for each column that has short texts which stand in the question, or of which half the words or more do, the best of them,
    as literals. Words that every sentence has do not count: the state OR is in no question that says "or"."""
    found, asked, flat = [], words(question), " ".join(question.casefold().split())
    for i, name in enumerate(rows.columns):
        texts = dict.fromkeys(one for row in rows.rows if isinstance(one := row[i], str) and 0 < len(one) <= VALUE)
        scores = {text: _meant(text, asked, flat) for text in texts}
        best = sorted((text for text in texts if scores[text] >= MEANS), key=lambda text: -scores[text])[:VALUES]
        if best:
            said = ", ".join("'" + one_line(text, 2 * VALUE).replace("'", "''") + "'" for text in best)
            found.append(f"-- {named(table.name, dialect)}.{named(name, dialect)}: {said}")
    return found


def _meant(text: str, asked: Counter[str], question: str) -> float:
    """The share of a text's words that the question has; all of them where it stands there as it is, whatever its capitals: JetBlue is
    two words, and Jetblue is one."""
    own = [word for word in words(text) if word not in EVERYWHERE]
    if own and re.search(rf"(?<![a-z0-9]){re.escape(text.strip().casefold())}(?![a-z0-9])", question):
        return 1.0
    return sum(word in asked for word in own) / len(own) if own else 0.0


_NO_SAMPLE = re.compile(r"blob|bytea|binary|json|xml|vector", re.IGNORECASE)


def _sayable(name: str) -> bool:
    return 0 < len(name) <= NAME and name.isprintable()


def named(name: str, dialect: Dialect) -> str:
    """As a query would have to write it."""
    folds = dialect != "postgres" or name == name.lower()
    return name if PLAIN.match(name) and folds and name.lower() not in _RESERVED else quoted(name)


_RESERVED = frozenset(
    """all and any as asc between by case check collate column constraint create cross default delete desc distinct drop else end
    except exists for foreign from full group having if in index inner insert intersect into is join key left like limit natural not
    null offset on or order outer primary references right select set table then to transaction union unique update user using
    values view when where with""".split()
)
