"""A question, answered from a database: card -> query -> guard -> rows -> a few words whose numbers are the rows' own.

Three guards stand behind one another, and each holds alone: the query is looked at (guard.py), the connection can only read
(sqlite.py, duckdb.py, postgres.py), and what it may give is bounded (database.collect). The model, the schema and the rows are
all a stranger's: the model never sees them but as data between marks, and nothing it says is run but a query that passed.
"""

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from myna.apps.sql.card import Card, card
from myna.apps.sql.database import Database, Limits, Rows, Table
from myna.apps.sql.form import select_form
from myna.apps.sql.guard import Allowed, check
from myna.apps.sql.names import unknown
from myna.apps.sql.numbers import Found, marked, trace
from myna.apps.sql.shown import cell, one_line, shown
from myna.provider import Provider, complete
from myna.provider.budget import BudgetExceeded
from myna.records import Conversation, Form, Message, Sampling, SqlError
from myna.records.errors import SqlFailure
from myna.records.fence import RULE, fenced
from myna.records.form import Kind
from myna.records.language import is_chinese

NAMES = {"sqlite": "SQLite", "duckdb": "DuckDB", "postgres": "PostgreSQL"}
# One query: words, and strings in which a semicolon may stand. For an endpoint that enforces it.
QUERY = Form("regex", r"""(SELECT|WITH)[ \n]([^;'"`]|'([^']|'')*'|"[^"]*")*""", param="sql")
# A query is made of the schema's own words: a penalty on words of the prompt, which models' own defaults have, would ask for others.
DRAW = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=400)
TRIES = 2  # queries
CALLS = TRIES + 1  # that a question takes at most: the queries, and the words
QUESTION = 4_000  # characters
SHOWN = 4_000  # characters of rows that the model is shown, about 1,000 tokens
MESSAGE = 500  # characters of a database's message
HINTS = 5  # columns of which it is said where they are
_FENCE = re.compile(r"```(?:\w+)?[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_START = re.compile(r"\b(?:SELECT|WITH)\b", re.IGNORECASE)
# A reply that begins so is no query with words before it; the guard says what is wrong with it.
_VERBS = (
    "insert", "update", "delete", "create", "drop", "alter", "explain", "pragma", "attach", "copy", "call", "set", "(", "--", "/*",
)  # fmt: skip


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
    provider: Provider, database: Database, question: str, limits: Limits = Limits(), forms: Collection[Kind] = ()
) -> Answer:
    """Query and words, in at most CALLS calls. Raises what `query` raises, and what the provider raises. Rows that are there and may
    not be put into words, because a budget is spent, are an answer without any."""
    found = await query(provider, database, question, limits, forms)
    try:
        return await put(provider, found)
    except BudgetExceeded as e:
        return Answer(replace(found, notes=(*found.notes, f"not put into words: {e}")), "")


async def query(
    provider: Provider, database: Database, question: str, limits: Limits = Limits(), forms: Collection[Kind] = ()
) -> Queried:
    """The rows that answer a question. A query that fails is written once more.

    `forms` are the kinds of Form that the endpoint enforces (powers.of(provider).forms). Where they are enough, the first answer is one
    query (QUERY), and the second is asked for as the first was and can only be one of this database's tables and columns (form.py);
    elsewhere the second is told what was wrong with the first, as data. Raises SqlError where the second query fails too or cannot be
    paid for, the question is none, or the database cannot be read at all.
    """
    check_question(question)
    tables = await asyncio.to_thread(database.tables)
    found = await asyncio.to_thread(card, database, question, tables=tables)
    asked, form = prompt(database, question, found), QUERY if "regex" in forms else None
    attempts: list[Attempt] = []
    while True:
        try:
            reply = await complete(provider, asked, replace(DRAW, form=form))
        except BudgetExceeded as e:
            if not attempts:
                raise
            raise _ended(attempts[-1], "failed", f"No second try: {e}") from None
        written = extract(reply.text)
        try:
            sql = check(written, Allowed.of(database.dialect, tables), limits.rows)
            rows = await asyncio.to_thread(database.run, sql, limits)
        except SqlError as e:
            attempts.append(Attempt(written, str(e)))
            if e.kind == "unavailable" or len(attempts) == TRIES:
                raise _ended(attempts[-1], e.kind) from None
            if held := select_form(found.tables, database.dialect) if "grammar" in forms else None:
                form = held  # and asked anew: beside its own mistake a small model does not find back (docs/log.md)
                continue
            where = await asyncio.to_thread(unknown, written, tables, database.dialect)
            asked = asked + Message("assistant", written) + Message("user", repair(e, tables, where))
            continue
        return Queried(question, sql, rows, (*attempts, Attempt(written)), (*found.notes, *rows.notes))


def check_question(question: str) -> None:
    """Raises SqlError for what is no question: empty, too long to be one, with a NUL or half a character in it."""
    if not question.strip():
        raise SqlError("The question is empty.", kind="refused")
    if len(question) > QUESTION:
        raise SqlError(f"The question has {len(question):,} characters; {QUESTION:,} are allowed.", kind="size")
    if "\0" in question or any("\ud800" <= c <= "\udfff" for c in question):
        raise SqlError("The question holds a NUL or half a character.", kind="refused")


def _ended(last: Attempt, kind: SqlFailure, why: str = "") -> SqlError:
    said = [last.error, *([why] if why else []), f"The query was: {one_line(last.sql, 2_000)}"]
    if kind in ("failed", "refused") and not why:
        said.append(
            "Ask in the schema's own words (`myna sql --show` prints what the model is told), or ask a larger model."
        )
    return SqlError("\n".join(said), kind=kind, sql=last.sql)


def prompt(database: Database, question: str, found: Card) -> Conversation:
    """What the model is asked: exactly this."""
    system = (
        f"You write {NAMES[database.dialect]} queries. {RULE} Answer the question with one SELECT "
        "query over these tables, and nothing else."
    )
    return Conversation.of(("system", system), ("user", f"{fenced(shown(found.text), 'schema')}\n\n{question}"))


def repair(error: SqlError, tables: Sequence[Table], where: Sequence[str] = ()) -> str:
    """The database's message, as data; which tables have the columns that it does not know, and which names are near those of the
    query that the message speaks of: its other words, such as "column", are no names."""
    message = str(error)[:MESSAGE]
    names = {column.name for table in tables for column in table.columns} | {table.name for table in tables}
    known, said = {one.lower() for one in names}, set(re.findall(r"\w+", error.sql))
    strange = {word for word in re.findall(r"\w+", message)[:100] if word in said and word.lower() not in known}
    near = (
        {name for word in strange for name in get_close_matches(word, names, n=2, cutoff=0.75)}
        if len(names) < 2_000
        else set()
    )
    hints = list(where[:HINTS])
    if near and error.kind in ("failed", "refused"):
        hints.append(f"Names like it: {', '.join(sorted(near))}")
    told = "\n".join([message, *hints])
    return f"That query did not do:\n{fenced(shown(told), 'message')}\n\nAnswer with one corrected SELECT query, and nothing else."


def extract(text: str) -> str:
    """The query in a reply: in a code fence, or from its first SELECT or WITH on; else the reply as it is."""
    inside = _FENCE.search(text)
    said = (inside[1] if inside else text).strip()
    start = _START.search(said)
    if not inside and start and said[: start.start()].strip() and not said.lower().startswith(_VERBS):
        said = said[start.start() :].split("\n\n")[0]
    return said.strip().rstrip(";").strip()


async def put(provider: Provider, queried: Queried) -> Answer:
    """The rows in a few words, in the question's language. Numbers that no cell gives are marked. Raises what the provider
    raises."""
    if not queried.rows.rows:
        return Answer(queried, "没有符合的行。" if is_chinese(queried.question) else "No row answers that.")
    tongue = "in Chinese, 用中文回答" if is_chinese(queried.question) else "in the language of the question"
    system = (
        f"You say what a database query found. {RULE} Answer in one or two short sentences, {tongue}. "
        "Use only numbers that stand in the rows, as they stand there."
    )
    own = queried.attempts[-1].sql  # without the guard's LIMIT, which would be said as if it were a finding
    found = f"{own}\n\n{table_text(queried.rows)}"
    said = f"{queried.question}\n\n{fenced(shown(found), 'rows')}"
    reply = await complete(provider, Conversation.of(("system", system), ("user", said)), replace(DRAW, max_tokens=200))
    text = reply.text.strip()
    numbers = trace(text, queried.rows, (queried.question, own))
    return Answer(queried, marked(text, numbers), tuple(numbers))


def table_text(rows: Rows, most: int = SHOWN) -> str:
    """Rows as lines of cells, as many as fit; the last line says how many there are and were left out."""
    lines = [" | ".join(one_line(name, 100) for name in rows.columns)]
    size = len(lines[0])
    for row in rows.rows:
        line = " | ".join(one_line(cell(one), 200) for one in row)
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


__all__ = [
    "CALLS",
    "QUERY",
    "Answer",
    "Attempt",
    "Queried",
    "ask",
    "check_question",
    "extract",
    "prompt",
    "put",
    "query",
    "repair",
    "table_text",
]
