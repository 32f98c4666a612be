"""myna sql: a question to a database."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.table import Table

from myna.commands.options import hint, printable, spoken
from myna.commands.spend import Spend, SpendFlags
from myna.commands.trace import TraceFile, opened
from myna.modeldir import DEFAULT
from myna.records import SqlError

if TYPE_CHECKING:
    from myna.apps.sql import Answer, Database, Limits, Rows

SHOWN = 30  # rows; --json prints all
NAMED = 80  # characters of the question that name the run


def run(
    db: str,
    question: str,
    /,
    *,
    model: str = DEFAULT,
    chart: Path | None = None,
    show: bool = False,
    json: bool = False,
    rows: int = 1_000,
    timeout: float = 10.0,
    spend: SpendFlags = Spend(),
    trace: TraceFile = None,
) -> None:
    """Answer a question from a database, which is read and never changed.

    Parameters
    ----------
    db
        An SQLite or DuckDB file, or postgresql://USER@HOST/NAME, with a login that only reads.
    question
        What you want to know.
    model
        Who writes the query: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN.
    chart
        Draw the rows too: a .png, .svg or .json (Vega-Lite) file.
    show
        Print exactly what the model would be asked, and stop.
    json
        Print one JSON line: query, all rows, words, where each number comes from.
    rows
        At most so many rows.
    timeout
        The query is stopped after so many seconds.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.apps.sql import Limits, check_question, connect
    from myna.apps.sql.chart import check_out

    check_question(question)
    if rows < 1 or not timeout > 0:  # NaN
        raise SqlError("--rows and --timeout are above 0.", kind="refused")
    if chart is not None:
        check_out(chart)
    spend.budget()
    database = connect(db)
    if show:
        return _show(database, question)
    answer = _ask(database, question, Limits(seconds=timeout, rows=rows), model, spend, trace)
    _print_json(answer) if json else _print(answer)
    if chart is not None:
        _draw(answer.queried.rows, chart, sys.stderr if json else sys.stdout)


def _show(database: "Database", question: str) -> None:
    from myna.apps.sql.answer import prompt
    from myna.apps.sql.card import card

    found = card(database, question)
    for message in prompt(database, question, found).messages:
        print(f"--- {message.role}\n{spoken(message.text)}")
    for note in found.notes:
        print(f"note: {spoken(note)}")


def _ask(database: "Database", question: str, limits: "Limits", model: str, spend: Spend, trace: TraceFile) -> "Answer":
    from myna.apps.sql import CALLS, ask
    from myna.provider import powers
    from myna.provider.connect import connected

    kept = opened(trace, new=True)
    with connected(model) as provider, kept.span("sql", question[:NAMED], database=database.name):
        hint(provider, model)
        forms = powers.of(provider).forms
        return asyncio.run(ask(spend.within(provider, kept, CALLS), database, question, limits, forms))


def _print(answer: "Answer") -> None:
    from myna.apps.sql.shown import cell

    queried, console = answer.queried, Console(highlight=False)
    for attempt in queried.attempts[:-1]:
        first, error = (printable(one, {"\n": "\n  "}) for one in (attempt.sql, attempt.error))
        console.print("first try:\n  ", first, "\n  ", error, sep="", soft_wrap=True)
    console.print(printable(queried.sql), style="cyan", soft_wrap=True)
    table = Table()
    for name in queried.rows.columns:
        table.add_column(printable(name))
    for row in queried.rows.rows[:SHOWN]:
        table.add_row(*(printable(cell(one)) for one in row))
    console.print(table)
    if len(queried.rows.rows) > SHOWN:
        console.print(f"{len(queried.rows.rows) - SHOWN} more rows; --json prints all")
    if answer.text:
        console.print(printable(answer.text, {"\n": "\n"}), soft_wrap=True)
    if answer.untraced:
        console.print(
            f"[?] {answer.untraced} of the words' numbers: no cell, sum, mean or count of the rows gives it",
            markup=False,
        )
    for note in queried.notes:
        console.print("note: ", printable(note), sep="")


def _print_json(answer: "Answer") -> None:
    import orjson

    queried = answer.queried
    said = {
        "question": queried.question,
        "sql": queried.sql,
        "columns": queried.rows.columns,
        "rows": queried.rows.rows,
        "text": answer.text,
        "numbers": [{"start": one.start, "end": one.end, "source": one.source} for one in answer.numbers],
        "attempts": [{"sql": one.sql, "error": one.error} for one in queried.attempts],
        "notes": queried.notes,
    }
    print(orjson.dumps(said, default=str).decode())


def _draw(rows: "Rows", out: Path, screen: TextIO) -> None:
    from myna.apps.sql.chart import choose, render, specification, unread

    chosen = choose(rows)
    if chosen is None:
        raise SqlError(
            "No chart suits these rows: one needs two rows or more, and a column of numbers.", kind="refused"
        )
    drawn = specification(chosen, rows)
    render(drawn, out)
    print(f"{chosen.kind} of {spoken(chosen.y or chosen.x)}: {out}", file=screen)
    if out.suffix == ".png" and (boxes := unread(drawn)):
        advice = "install one (for Chinese fonts-noto-cjk or the like), or draw an .svg, which its reader's fonts show"
        print(
            f"note: no font of this machine has {boxes[:10]}, and {out.name} shows boxes instead; {advice}", file=screen
        )
