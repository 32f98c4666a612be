"""myna ask: a question to the documents of an index."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.table import Column, Table

from myna.commands.index import DEFAULT, By, IndexFile, opened
from myna.commands.options import printable, spoken
from myna.commands.trace import TraceFile
from myna.commands.trace import opened as traced
from myna.modeldir import DEFAULT as DEFAULT_MODEL
from myna.records import RequestError

if TYPE_CHECKING:
    from myna.apps.answers import Answer, Turn
    from myna.apps.index.file import FileIndex
    from myna.provider import Provider

NAMED = 80  # characters of the question that name the run


def run(
    question: str | None = None,
    /,
    *,
    index: IndexFile = DEFAULT,
    model: str = DEFAULT_MODEL,
    embedder: str | None = None,
    by: By | None = None,
    k: Annotated[int, Parameter(name=("--k", "-k"))] = 5,
    rewrites: int = 0,
    enough: float | None = None,
    room: int | None = None,
    style: str = "",
    interactive: Annotated[bool, Parameter(name=("--interactive", "-i"))] = False,
    explain: bool = False,
    json: bool = False,
    seconds: float | None = None,
    trace: TraceFile = None,
) -> None:
    """Answer a question from the documents of an index. Every citation is shown with the document's own words; what no passage
    says is marked [—].

    Parameters
    ----------
    question
        What you want to know.
    index
        The file of the index; `myna index add FOLDER` makes it.
    model
        Who answers: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN.
    embedder
        The model that made the index's vectors; words alone if left out.
    by
        A structure to search beside words and vectors: tree or graph.
    k
        How many passages, at most 9.
    rewrites
        Other ways to ask that are searched for, too (one call more).
    enough
        Share of the question's words that the passages must have; fewer, and nothing is answered.
    room
        Tokens that passages may take.
    style
        How to answer, in your words.
    interactive
        A conversation: follow-up questions are understood from what was said. An empty line or Ctrl-D ends it.
    explain
        Print the passages and exactly what the model would be asked, and stop.
    json
        One JSON object, for programs.
    seconds
        Give up after so many.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    from myna.apps.answers.passages import ROOM
    from myna.provider.connect import connected

    if (question is None) is not interactive:
        raise RequestError("ask a question, or have a conversation with -i.", param="question")
    how = {
        "k": k,
        "rewrites": rewrites,
        "enough": enough,
        "room": room or ROOM,
        "style": style,
    }
    with opened(Path(index), embedder, by=by) as file:
        if explain and question:
            return asyncio.run(_explain(file, question, k, room or ROOM, enough, style))
        with connected(model) as provider:
            if question:
                _once(provider, file, question, how, seconds, trace, json)
            else:
                _talk(provider, file, how, seconds, trace)


def _once(
    provider: "Provider", file: "FileIndex", question: str, how: Mapping[str, object], seconds: float | None, trace: Path | None, json: bool
) -> None:  # fmt: skip
    found = _answered(provider, file, question, (), how, seconds, trace)
    if json:
        print(orjson.dumps(asdict(found)).decode())
    else:
        _print(found)


def _talk(
    provider: "Provider", file: "FileIndex", how: Mapping[str, object], seconds: float | None, trace: Path | None
) -> None:
    from myna.apps.answers import Turn

    turns: list[Turn] = []
    while True:
        try:
            question = input("? ").strip()
        except EOFError:
            print()
            return
        if not question:
            return
        found = _answered(provider, file, question, turns, how, seconds, trace)
        if found.question != question:
            Console(highlight=False).print(printable(f"understood as: {found.question}"), style="dim")
        _print(found)
        turns.append(Turn(question, found.text))


def _answered(
    provider: "Provider", file: "FileIndex", question: str, before: "Sequence[Turn]", how: Mapping[str, object], seconds: float | None,
    trace: Path | None,
) -> "Answer":  # fmt: skip
    from myna.apps.answers import CALLS, answer
    from myna.provider.budget import Budget, Budgeted, Limits
    from myna.provider.traced import Traced

    kept = traced(trace, new=True)
    with kept.span("ask", question[:NAMED], index=str(file.store.path)) as span:
        asked = Budgeted(Traced(provider, kept), Budget(Limits(calls=CALLS, seconds=seconds)), kept.prices)
        found = asyncio.run(answer(asked, file, question, before=before, **how))  # type: ignore[arg-type]
        unsupported = [one.unsupported for one in found.sentences if one.unsupported]
        span.note(way=found.decision.way, reason=found.decision.reason, removed=found.removed, unsupported=unsupported)
        if found.sentences:
            share = 1 - len(unsupported) / len(found.sentences)
            span.check("supported", not unsupported, share, "; ".join(unsupported))
    return found


async def _explain(file: "FileIndex", question: str, k: int, room: int, enough: float | None, style: str) -> None:
    from myna.apps.answers import gate
    from myna.apps.answers.passages import bytes_by_three, chosen, prompt

    screen = Console(highlight=False, soft_wrap=True)
    before = gate.before(question)
    if before.way == "none":
        screen.print(printable(f"{before.reason}: nothing is searched for"))
        return
    found = await file.search(question, k)
    passages, left = chosen(found.hits, room)
    table = Table(Column("passage"), Column("tokens, about", justify="right"), box=None, header_style="bold")
    for one in passages:
        table.add_row(printable(f"[{one.number}] {one.place}"), f"{bytes_by_three(one.hit.text):,}")
    screen.print(table)
    if left:
        screen.print(f"{left} passages left out: there is room for {room:,} tokens")
    screen.print(printable(f"{gate.after(question, [one.hit.text for one in passages], enough).reason}; {found.how}"))
    for message in prompt(question, passages, style).messages:
        screen.print(f"[{message.role}]", style="bold", markup=False)
        screen.print(printable(message.text, {"\n": "\n"}))


def _print(found: "Answer") -> None:
    screen = Console(highlight=False, soft_wrap=True)
    print(spoken(found.text) if sys.stdout.isatty() else found.text)
    for source in found.sources:
        page = f", page {source.page}" if source.page else ""
        path = f" ({' > '.join(source.path)})" if source.path else ""
        screen.print(printable(f"[{source.number}] {source.name}{page}{path}: "), end="", style="bold")
        screen.print(printable(" ".join(source.text.split())))
    for one in found.sentences:
        if one.unsupported:
            screen.print(printable(f"[—] {one.text[:80]}: {one.unsupported}"), style="yellow")
    if found.removed:
        screen.print(printable(f"citations of nothing, taken out: {', '.join(found.removed[:20])}"), style="yellow")
    for note in (*found.notes, *([found.decision.reason] if found.decision.way != "retrieve" else [])):
        screen.print(printable(note), style="dim")
