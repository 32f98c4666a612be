"""myna data: look at what a model is to learn from, and make it ready."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Annotated, TypeVar

import orjson
from cyclopts import App, Parameter
from rich.console import Console, RenderableType
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from myna.chat import Chat
from myna.commands.making import sample, synthesize
from myna.commands.options import printable
from myna.data import Kind, Overlong, Recipe, Source, kind_of, look, prepare, with_best
from myna.data.audit import Audit
from myna.data.dedup import Finder, content
from myna.data.overlap import MOST, Watch, said
from myna.data.prepare import key_of
from myna.data.quality import Summary
from myna.data.shards import check_free
from myna.data.sources import OnBad, Place, stop
from myna.data.split import split as sides
from myna.modeldir import find
from myna.records import Conversation, DataError, Json
from myna.records.jsonl import write

app = App(name="data", default_parameter=Parameter(negative_iterable=()))
app.command(sample)
app.command(synthesize)
T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes
    ----------
    format
        The rows' format; told from each file's first row if not given.
    split_on
        Cut texts into documents at lines that say this; "blank" is an empty line.
    """

    format: Annotated[str | None, Parameter(name="--from")] = None
    split_on: str | None = None

    def source(self, files: tuple[Path, ...]) -> Source:
        if not files:
            raise DataError("which files? Name files or folders.")
        return Source(files, self.format, self.split_on)


@dataclass(frozen=True)
class Making:
    """How rows become examples.

    Attributes
    ----------
    kind
        What rows are for: documents, conversations, preferences or judged; told from the first row if not given.
    context
        Tokens an example may have.
    overlong
        What becomes of longer rows: error, which makes them bad rows; split, drop or truncate. Texts are always cut into windows.
    """

    kind: Annotated[Kind | None, Parameter(name="--as")] = None
    context: int = 2048
    overlong: Overlong = "error"

    def recipe(self, source: Source, *, skip_bad: bool) -> Recipe:
        return Recipe(self.kind or kind_of(source), self.context, self.overlong, skip_bad)


ReadingFlags = Annotated[Reading, Parameter(name="*", group="Reading")]
MakingFlags = Annotated[Making, Parameter(name="*", group="Examples")]


@app.command
def check(
    *files: Path,
    model: str = "",
    eval: tuple[Path, ...] = (),
    near: float = 0.8,
    json: bool = False,
    making: MakingFlags = Making(),
    reading: ReadingFlags = Reading(),
) -> None:
    """Would it train? Bad rows by file, line and field; copies; evaluation rows among them. Exit 1 if something would not.

    Parameters
    ----------
    model
        A model, to count tokens as it would learn them, too long rows included. Without one only rows are looked at.
    eval
        Evaluation files, to be looked for in the training rows.
    near
        From which likeness on rows count as nearly the same; 0 does not look.
    """
    source = reading.source(files)
    against = Source.of(*eval) if eval else None
    if model:
        recipe = replace(making.recipe(source, skip_bad=True), near=near or None)
        with _counting("tokens") as seen:
            audit = prepare(source, Chat.load(find(model)), recipe, against=against, seen=seen).audit
    else:
        audit = look(source, against=against, near=near or None)
    fine = not (audit.bad or audit.faults() or not audit.rows)
    if json:
        _print_json({"ok": fine} | audit.to_json())
    else:
        _show_check(audit, audit if model else _rows(audit), fine)
    if not fine:
        sys.exit(1)


@app.command
def stats(*files: Path, json: bool = False, reading: ReadingFlags = Reading()) -> None:
    """What is in it: rows, turns, lengths, scripts, and how many texts break which rule of Gopher's and C4's filters."""
    summary, roles, skipped = Summary(), dict[str, int](), list[str]()
    kinds = {"documents": 0, "conversations": 0, "with candidates": 0}
    for place, record in _tracked(reading.source(files).records(_note(skipped)), "rows"):
        summary.add(place, said(record))
        if isinstance(record, Conversation):
            kinds["with candidates" if record.candidates else "conversations"] += 1
            for message in record.messages:
                roles[message.role] = roles.get(message.role, 0) + 1
        else:
            kinds["documents"] += 1
    found = {"kinds": kinds, "turns": roles, "unreadable": len(skipped)} | summary.to_json()
    if json:
        _print_json(found)
        return
    screen = _screen()
    screen.print(", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count) or "no rows")
    if roles:
        screen.print("turns: " + ", ".join(f"{count:,} {role}" for role, count in roles.items()))
    screen.print(
        f"{summary.characters:,} characters, {summary.words:,} words; characters of a text: {_named(summary.percentiles())}"
    )
    screen.print(
        "scripts: " + ", ".join(f"{name} {n / summary.texts:.1%}" for name, n in summary.scripts.most_common())
    )
    table = Table("rule broken", "texts", "share", box=None, header_style="bold")
    table.add_column("first", overflow="fold")
    for rule, count in summary.broken.most_common():
        table.add_row(rule, f"{count:,}", f"{count / summary.texts:.1%}", printable(summary.first[rule][0]))
    screen.print(table)
    _say_skipped(screen, skipped)


@app.command
def convert(
    *files: Path, out: Path, best: bool = False, skip_bad: bool = False, reading: ReadingFlags = Reading()
) -> None:
    """Everybody's rows into ours: Alpaca, ShareGPT, OpenAI, HH, Dolly, OpenAssistant, preferences, questions, plain text.

    Parameters
    ----------
    out
        The file to write, .jsonl or .jsonl.gz.
    best
        Of rows with candidates make the best one the answer, to fine-tune on.
    skip_bad
        Leave bad rows out, and say so, instead of stopping at the first.
    """
    _free(out)
    skipped: list[str] = []
    bad: OnBad = _note(skipped) if skip_bad else stop
    records = (record for _, record in _tracked(reading.source(files).records(bad), "rows"))
    count = write(out, (with_best(r) if best and isinstance(r, Conversation) else r for r in records))
    screen = _screen(stderr=True)
    screen.print(f"{count:,} records in {out}", markup=False)
    _say_skipped(screen, skipped)


@app.command
def dedup(
    *files: Path,
    out: Path,
    near: float = 0.8,
    against: tuple[Path, ...] = (),
    json: bool = False,
    reading: ReadingFlags = Reading(),
) -> None:
    """Leave out rows that repeat an earlier one, exactly or nearly, and rows that stand in other files.

    Parameters
    ----------
    out
        The file to write, .jsonl or .jsonl.gz.
    near
        The likeness (Jaccard, character 5-grams) from which on a row repeats another; 0 looks for exact copies alone.
    against
        Files whose rows must not be there, such as evaluation sets: neither whole nor, by 13-grams, for 80 % of the shorter one.
    """
    _free(out)
    source = reading.source(files)
    watch = Watch.over(Source.of(*against).records()) if against else None
    finder, inside = Finder(near or None), set[int]()
    for n, (place, record) in enumerate(_tracked(source.records(), "rows")):
        finder.add(content(record))
        if watch and any(found.same or found.share >= MOST for found in watch.look(place, record)):
            inside.add(n)
    twins = finder.twins()
    kept = (record for n, (_, record) in enumerate(source.records()) if n not in twins and n not in inside)
    count = write(out, kept)
    found = {"kept": count, "exact": len(twins.exact), "near": len(twins.near), "against": len(inside)}
    _report(
        found, f"{out}: {count:,} rows; left out: {len(twins.exact):,} copies, {len(twins.near):,} near copies", json
    )
    if watch:
        _screen(stderr=True).print(f"{len(inside):,} rows stand in {', '.join(map(str, against))}", markup=False)


@app.command
def split(
    *files: Path,
    train: Path,
    eval: Path,
    share: float = 0.05,
    seed: int = 0,
    near: float = 0.8,
    json: bool = False,
    reading: ReadingFlags = Reading(),
) -> None:
    """Training and evaluation rows, by a hash of what they ask: the same every time, copies never on both sides.

    Parameters
    ----------
    train
        The file for the rows to train on.
    eval
        The file for the rows to evaluate on.
    share
        The evaluation rows' part.
    near
        From which likeness on rows are kept together; 0 keeps exact copies together alone.
    """
    for path in (train, eval):
        _free(path)
    source = reading.source(files)
    held = sides((r for _, r in _tracked(source.records(), "rows")), share, seed=seed, near=near or None)
    if not any(held) or all(held):
        raise DataError(
            f"all {len(held)} rows fall on one side: they are too few or too alike; try another --seed or --near 0"
        )
    counts = [
        write(path, compress((record for _, record in source.records()), chosen))
        for path, chosen in ((train, (not h for h in held)), (eval, held))
    ]
    said = f"{counts[0]:,} rows in {train}, {counts[1]:,} ({counts[1] / len(held):.1%}) in {eval}"
    _report({"train": counts[0], "eval": counts[1]}, said, json)


@app.command
def tokenize(
    *files: Path,
    out: Path,
    model: str,
    skip_bad: bool = False,
    eval: tuple[Path, ...] = (),
    json: bool = False,
    making: MakingFlags = Making(),
    reading: ReadingFlags = Reading(),
) -> None:
    """Tokenize once, into a folder of shards that training maps. Stopped, it goes on where it was.

    Parameters
    ----------
    out
        The folder.
    model
        Whose tokenizer and chat template.
    skip_bad
        Leave bad rows out, and count them, instead of stopping at the first.
    eval
        Evaluation files, to be looked for in the training rows.
    """
    source = reading.source(files)
    recipe = making.recipe(source, skip_bad=skip_bad)
    against, chat = Source.of(*eval) if eval else None, Chat.load(find(model))
    check_free(out, key_of(source, chat, recipe, against))
    with _counting("tokens") as seen:
        audit = prepare(source, chat, recipe, cache=out, against=against, seen=seen).audit
    if json:
        _print_json(audit.to_json())
    else:
        _screen().print(audit)


def _show_check(audit: Audit, shown: RenderableType, fine: bool) -> None:
    screen = _screen()
    for error in audit.first_bad:
        screen.print(printable(error), style="red")
    if audit.bad > len(audit.first_bad):
        screen.print(f"... and {audit.bad - len(audit.first_bad):,} more")
    screen.print(shown)
    for fault in audit.faults():
        screen.print(printable(fault), style="red")
    if audit.unread:
        screen.print(printable(f"{len(audit.unread)} files are not read, first {audit.unread[0]}"), style="yellow")
    screen.print(_verdict(audit, fine), style="green" if fine else "red")


def _verdict(audit: Audit, fine: bool) -> str:
    if fine:
        return "every row can be learned from"
    if not audit.rows:
        return "there are no rows"
    if audit.bad:
        return f"{audit.bad:,} of {audit.rows:,} rows cannot be learned from"
    return "training would refuse this"


def _rows(audit: Audit) -> Table:
    table = Table(box=None, header_style="bold")
    cells = {"rows": audit.rows, "bad": audit.bad, "copies": audit.exact, "near copies": audit.near}
    if audit.overlap:
        cells |= {
            "evaluation rows": audit.overlap.eval_rows,
            "touched": audit.overlap.touched,
            "inside": audit.overlap.inside,
        }
    for name in cells:
        table.add_column(name, justify="right")
    table.add_row(*(f"{count:,}" for count in cells.values()))
    return table


def _note(skipped: list[str]) -> OnBad:
    def note(place: Place, error: DataError) -> None:
        skipped.append(str(error))

    return note


def _say_skipped(screen: Console, skipped: list[str]) -> None:
    if skipped:
        screen.print(
            printable(f"left out {len(skipped):,} rows that cannot be read, first {skipped[0]}"), style="yellow"
        )


def _free(path: Path) -> None:
    if path.exists():
        raise DataError(f"{path} is there already; give another name, or remove it")
    if path.name.removesuffix(".gz").rpartition(".")[2] != "jsonl":
        raise DataError(f"{path}: rows are written as .jsonl or .jsonl.gz")


def _report(found: Json, said: str, json: bool) -> None:
    if json:
        _print_json(found)
    else:
        _screen(stderr=True).print(said, markup=False)


def _print_json(row: Json) -> None:
    sys.stdout.buffer.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def _screen(stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=not Console(stderr=stderr).is_terminal)


def _named(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in numbers.items())


def _tracked(items: Iterable[T], what: str) -> Iterator[T]:
    """The items; on a terminal with a count of them while they come."""
    with _counting(what) as count:
        for item in items:
            yield item
            count(1)


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int], None]]:
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda n: bars.advance(task, n)
