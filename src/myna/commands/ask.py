"""myna ask: a question to the documents of an index."""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.table import Column
from rich.text import Text

from myna.apps.answers import CALLS, Answer, Turn, answer, gate
from myna.apps.answers.answer import check
from myna.apps.answers.passages import ROOM, bytes_by_three, chosen, prompt
from myna.apps.index.file import FileIndex
from myna.commands.index import DEFAULT, By, IndexFile, opened
from myna.commands.options import folded, hint, printable, spoken
from myna.commands.spend import Spend, SpendFlags
from myna.commands.trace import TraceFile
from myna.commands.trace import opened as traced
from myna.modeldir import DEFAULT as DEFAULT_MODEL
from myna.provider import Provider
from myna.provider.connect import connected
from myna.records import MynaError, RequestError
from myna.records.language import counted
from myna.trace import Trace

NAMED = 80  # characters of the question that name the run


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """How to search and to answer.

    Parameters
    ----------
    k
        How many passages, at most 9.
    rewrites
        Other ways to ask that are searched for, too (one call more).
    rounds
        How often the model may look whether the passages are enough and search for what is missing (one call more each), at most 4.
    enough
        Share of the question's words that the passages must have; fewer, and nothing is answered.
    room
        Tokens that passages may take.
    style
        How to answer, in your words.
    """

    k: Annotated[int, Parameter(name=("--k", "-k"))] = 5
    rewrites: int = 0
    rounds: int = 0
    enough: float | None = None
    room: int = ROOM
    style: str = ""


def run(
    question: str | None = None,
    /,
    *,
    index: IndexFile = DEFAULT,
    model: str = DEFAULT_MODEL,
    embedder: str | None = None,
    by: By | None = None,
    how: How = How(),
    interactive: Annotated[bool, Parameter(name=("--interactive", "-i"))] = False,
    explain: bool = False,
    json: bool = False,
    spend: SpendFlags = Spend(),
    trace: TraceFile = None,
) -> None:
    """Answer a question from the documents of an index. Every citation is shown with the document's own words; what no passage
    says is marked [—]. A budget is one answer's.

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
    interactive
        A conversation: follow-up questions are understood from what was said. An empty line or Ctrl-D ends it.
    explain
        Print the passages and exactly what the model would be asked, and stop.
    json
        One JSON object, for programs.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    if (question is None) is not interactive:
        raise RequestError("ask a question, or have a conversation with -i.", param="question")
    spend.budget()  # what is no amount is said before a model is loaded
    if explain and question is None:
        raise RequestError("--explain is of one question; a conversation has none yet.", param="explain")
    with opened(Path(index), embedder, by=by) as file:
        if explain and question is not None:
            return asyncio.run(_explain(file, question, how))
        with connected(model) as provider:
            hint(provider, model)
            desk = Desk(provider, file, how, spend, traced(trace, new=True))
            if question is not None:
                found = desk.ask(question)
                print(orjson.dumps(asdict(found)).decode()) if json else _print(found)
            else:
                _talk(desk)


@dataclass(frozen=True)
class Desk:
    """Who answers, out of what, and where it is written down."""

    provider: Provider
    file: FileIndex
    how: How
    spend: Spend
    trace: Trace

    def ask(self, question: str, before: Sequence[Turn] = ()) -> Answer:
        with self.trace.span("ask", question[:NAMED], index=str(self.file.store.path)) as span:
            asked = self.spend.within(self.provider, self.trace, CALLS + self.how.rounds)
            with shown_as_it_comes() as tell:
                found = asyncio.run(answer(asked, self.file, question, before=before, tell=tell, **vars(self.how)))
            unsupported = [one.unsupported for one in found.sentences if one.unsupported]
            span.note(way=found.decision.way, reason=found.decision.reason, removed=found.removed)
            if found.sentences:
                share = 1 - len(unsupported) / len(found.sentences)
                span.check("supported", not unsupported, share, "; ".join(unsupported))
        return found


@contextmanager
def shown_as_it_comes() -> Iterator[Callable[[str], None] | None]:
    """On a terminal the model's words, until they have been looked at; elsewhere nothing."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield None
        return
    said = Text(style="dim")
    with Live(said, console=Console(stderr=True), transient=True, refresh_per_second=8) as live:

        def tell(words: str) -> None:
            said.append(spoken(words))
            live.refresh()

        yield tell


def _talk(desk: Desk) -> None:
    """Ctrl-C ends an answer, and at the question the conversation; what goes wrong with an answer ends that one alone."""
    turns: list[Turn] = []
    while True:
        try:
            question = input("? ").strip()
        except EOFError:
            print()
            return
        if not question:
            return
        try:
            found = desk.ask(question, turns)
        except KeyboardInterrupt:
            print("stopped; Ctrl-C again ends the conversation", file=sys.stderr)
            continue
        except MynaError as e:
            print(f"myna: {spoken(str(e))}", file=sys.stderr)
            continue
        if found.question != question:
            Console(highlight=False).print(printable(f"understood as: {found.question}"), style="dim")
        _print(found)
        turns.append(Turn(question, found.text))


async def _explain(file: FileIndex, question: str, how: How) -> None:
    check(question, how.k, how.rewrites, how.room, how.enough, how.rounds)
    screen = Console(highlight=False, soft_wrap=True)
    before = gate.before(question)
    if before.way == "none":
        screen.print(printable(f"{before.reason}: nothing is searched for"))
        return
    found = await file.search(question, how.k)
    passages, left = chosen(found.hits, how.room)
    table = folded(Column("passage"), Column("tokens, about", justify="right"))
    for one in passages:
        table.add_row(printable(f"[{one.number}] {one.place}"), f"{bytes_by_three(one.hit.text):,}")
    screen.print(table)
    if left:
        screen.print(f"{counted(left, 'passage')} left out: there is room for {how.room:,} tokens")
    enough = gate.after(question, [one.hit.text for one in passages], how.enough)
    screen.print(printable(f"{enough.reason}; {found.how}"))
    if earlier := bool(how.rewrites) + how.rounds:
        screen.print(
            f"before that at most {counted(earlier, 'call')}, for other words and what is missing, which may bring other passages"
        )
    elif enough.way == "abstain":
        screen.print("nothing would be asked: the answer is that the documents do not say")
        return
    for message in prompt(question, passages, how.style).messages:
        screen.print(f"[{message.role}]", style="bold", markup=False)
        screen.print(printable(message.text, {"\n": "\n"}))


def _print(found: Answer) -> None:
    screen = Console(highlight=False, soft_wrap=True)
    print(spoken(found.text) if sys.stdout.isatty() else found.text)
    for source in found.sources:
        page = f", page {source.page}" if source.page else ""
        path = f" ({' > '.join(source.path)})" if source.path else ""
        date = f", {source.dated}" if source.dated else ""
        screen.print(printable(f"[{source.number}] {source.name}{page}{date}{path}: "), end="", style="bold")
        screen.print(printable(" ".join(source.text.split())))
    reasons = Counter(one.unsupported for one in found.sentences if one.unsupported)
    for one in found.sentences:
        if reasons[one.unsupported] == 1:
            screen.print(printable(f"[—] {one.text[:80]}: {one.unsupported}"), style="yellow")
    for reason, count in reasons.items():
        if count > 1:
            screen.print(printable(f"[—] {count} sentences: {reason}"), style="yellow")
    if found.removed:
        screen.print(printable(f"citations of nothing, taken out: {', '.join(found.removed[:20])}"), style="yellow")
    for number, made in enumerate(found.rounds, 1):
        brought = f"searched for {made.query!r}: {counted(made.fresh, 'new passage')}" if made.query else ""
        screen.print(printable(f"round {number}: {'; '.join(filter(None, (brought, made.ended)))}"), style="dim")
    for note in (*found.notes, *([found.decision.reason] if found.decision.way != "retrieve" else [])):
        screen.print(printable(note), style="dim")
