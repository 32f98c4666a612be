"""A question, answered from a database: card -> query -> guard -> rows -> a few words whose numbers are the rows' own.

Three guards stand behind one another, and each holds alone: the query is looked at (guard.py), the connection can only read
(sqlite.py, duckdb.py, postgres.py), and what it may give is bounded (database.collect). The model, the schema and the rows are
all a stranger's: the model never sees them but as data between marks, and nothing it says is run but a query that passed.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from myna.apps.sql.card import Card, card
from myna.apps.sql.database import Database, Limits, Rows, Table
from myna.apps.sql.guard import Allowed, check
from myna.apps.sql.names import unknown
from myna.apps.sql.numbers import Found, marked, trace
from myna.apps.sql.shown import one_line, shown
from myna.provider import Provider, complete
from myna.records import Conversation, Form, Message, Sampling, SqlError
from myna.records.fence import RULE, fenced

NAMES = {"sqlite": "SQLite", "duckdb": "DuckDB", "postgres": "PostgreSQL"}
# One query: words, and strings in which a semicolon may stand. For an endpoint that enforces it.
QUERY = Form("regex", r"""(SELECT|WITH)[ \n]([^;'"`]|'([^']|'')*'|"[^"]*")*""", param="sql")
DRAW = Sampling(temperature=0.0, max_tokens=400)
SHOWN = 4_000  # characters of rows that the model is shown, about 1,000 tokens
MESSAGE = 500  # characters of a database's message
HINTS = 5  # columns of which it is said where they are
_FENCE = re.compile(r"```(?:\w+)?[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_START = re.compile(r"\b(?:SELECT|WITH)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A query that the model wrote; `error` is why it did not do, or "" for the one that was run."""

    sql: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Queried:
    """`sql` is what was run: the model's query as the guard wrote it. `notes` say what was left out of card and rows."""

    question: str
    sql: str
    rows: Rows
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` with a mark after every number that no cell gives; `numbers` say of the others where they come from."""

    queried: Queried
    text: str
    numbers: tuple[Found, ...] = ()

    @property
    def untraced(self) -> int:
        return sum(not one.source for one in self.numbers)


async def ask(
    provider: Provider, database: Database, question: str, limits: Limits = Limits(), form: Form | None = None
) -> Answer:
    """Query and words. Raises what `query` raises, and what the provider raises."""
    return await put(provider, await query(provider, database, question, limits, form))


async def query(
    provider: Provider, database: Database, question: str, limits: Limits = Limits(), form: Form | None = None
) -> Queried:
    """The rows that answer a question. A query that fails is written once more, with the message as data.

    `form` is what the answer is held to where the endpoint enforces it (QUERY, with our engine). Raises SqlError where the second
    query fails too, or the database cannot be read at all.
    """
    tables = await asyncio.to_thread(database.tables)
    found = await asyncio.to_thread(card, database, question, tables=tables)
    asked = prompt(database, question, found)
    attempts: list[Attempt] = []
    while True:
        reply = await complete(provider, asked, replace(DRAW, form=form))
        written = extract(reply.text)
        try:
            sql = check(written, Allowed.of(database.dialect, tables), limits.rows)
            rows = await asyncio.to_thread(database.run, sql, limits)
        except SqlError as e:
            attempts.append(Attempt(written, str(e)))
            if e.kind == "unavailable" or len(attempts) == 2:
                raise SqlError(f"{e}\nThe query was: {one_line(written, 2_000)}", kind=e.kind, sql=written) from None
            where = await asyncio.to_thread(unknown, written, tables, database.dialect)
            asked = asked + Message("assistant", written) + Message("user", repair(e, tables, where))
            continue
        return Queried(question, sql, rows, (*attempts, Attempt(written)), (*found.notes, *rows.notes))


def prompt(database: Database, question: str, found: Card) -> Conversation:
    """What the model is asked: exactly this."""
    system = (
        f"You write {NAMES[database.dialect]} queries. {RULE} Answer the question with one SELECT "
        "query over these tables, and nothing else."
    )
    return Conversation.of(("system", system), ("user", f"{fenced(shown(found.text), 'schema')}\n\n{question}"))


def repair(error: SqlError, tables: Sequence[Table], where: Sequence[str] = ()) -> str:
    """The database's message, as data; which tables have the columns that it does not know, and which names are near them."""
    message = str(error)[:MESSAGE]
    names = {column.name for table in tables for column in table.columns} | {table.name for table in tables}
    strange = {word for word in re.findall(r"\w+", message)[:100] if word not in names}
    near = (
        {name for word in strange for name in get_close_matches(word, names, n=2, cutoff=0.75)}
        if len(names) < 2_000
        else set()
    )
    hints = list(where[:HINTS])
    if near and error.kind in ("failed", "refused"):
        hints.append(f"Names like it: {', '.join(sorted(near))}")
    said = "\n".join([message, *hints])
    return f"That query did not do:\n{fenced(shown(said), 'message')}\n\nAnswer with one corrected SELECT query, and nothing else."


def extract(text: str) -> str:
    """The query in a reply: in a code fence, or from its first SELECT or WITH on; else the reply as it is."""
    inside = _FENCE.search(text)
    said = (inside[1] if inside else text).strip()
    start = _START.search(said)
    if not inside and start and said[: start.start()].strip() and not said.lower().startswith(_VERBS):
        said = said[start.start() :].split("\n\n")[0]
    return said.strip().rstrip(";").strip()


_VERBS = (
    "insert",
    "update",
    "delete",
    "create",
    "drop",
    "alter",
    "explain",
    "pragma",
    "attach",
    "copy",
    "call",
    "set",
    "(",
    "--",
    "/*",
)


async def put(provider: Provider, queried: Queried) -> Answer:
    """The rows in a few words, in the question's language. Numbers that no cell gives are marked. Raises what the provider
    raises."""
    if not queried.rows.rows:
        return Answer(queried, "没有符合的行。" if _chinese(queried.question) else "No row answers that.")
    system = (
        f"You say what a database query found. {RULE} Answer in one or two short sentences, in the language of "
        "the question. Use only numbers that stand in the rows, as they stand there."
    )
    found = f"{queried.sql}\n\n{table_text(queried.rows)}"
    said = f"{queried.question}\n\n{fenced(shown(found), 'rows')}"
    reply = await complete(provider, Conversation.of(("system", system), ("user", said)), replace(DRAW, max_tokens=200))
    text = reply.text.strip()
    numbers = trace(text, queried.rows, (queried.question, queried.attempts[-1].sql))  # not the guard's LIMIT
    return Answer(queried, marked(text, numbers), tuple(numbers))


def table_text(rows: Rows, most: int = SHOWN) -> str:
    """Rows as lines of cells, as many as fit; the last line says how many there are and were left out."""
    lines = [" | ".join(one_line(name, 100) for name in rows.columns)]
    size = len(lines[0])
    for row in rows.rows:
        line = " | ".join("NULL" if cell is None else one_line(str(cell), 200) for cell in row)
        size += len(line) + 1
        if size > most:
            break
        lines.append(line)
    left = len(rows.rows) - (len(lines) - 1)
    return "\n".join(
        [
            *lines,
            f"({len(rows.rows)} rows{f', {left} not shown' if left else ''}{''.join(f'; {n}' for n in rows.notes)})",
        ]
    )


def _chinese(text: str) -> bool:
    return any("\u4e00" <= c <= "\u9fff" for c in text)


__all__ = ["QUERY", "Answer", "Attempt", "Queried", "ask", "extract", "prompt", "put", "query", "repair", "table_text"]
