"""myna flow run, list, show, resume, answer, report: flows of steps that are written down."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Column, Table

from myna.apps.flow import Ended, Flow, Journal, answer, begin, journal_file, open_questions, resume
from myna.apps.flow.cases import Case, judge, read_cases
from myna.apps.flow.graph import as_mermaid, as_text, graph
from myna.apps.flow.journal import RunRow, StepRow
from myna.apps.flow.load import load
from myna.apps.flow.lock import running
from myna.apps.flow.report import Rate, Report, report
from myna.commands.options import printable, spoken
from myna.commands.stoppable import run_stoppable
from myna.commands.trace import TraceFile, opened
from myna.commands.values import named_values
from myna.modeldir import DEFAULT
from myna.provider.connect import connect
from myna.provider.traced import Traced
from myna.records import DataError, RequestError
from myna.records.language import counted
from myna.trace import Trace

app = App(name="flow", help="Flows of steps that are written down: run, resume, answer, show, report.")
JournalFile = Annotated[Path | None, Parameter(name="--journal")]
Values = Annotated[tuple[str, ...], Parameter(name=("--value", "-v"), negative=())]


@app.command
def run(
    file: str, /, *, value: Values = (), cases: Path | None = None, model: str | None = None, journal: JournalFile = None,
    trace: TraceFile = None,
) -> None:  # fmt: skip
    """Run a flow of a Python file and print what it returns. The file is run as `python FILE` would run it, with all that you may do:
    run none that you have not read.

    Parameters
    ----------
    file
        FILE.py:FLOW, or FILE.py where it has one flow.
    value
        An input, NAME=VALUE or NAME=@FILE; may be given several times. JSON where the input is no text.
    cases
        JSON lines, a run for each: {"inputs": {...}, "expect": {"STEP": {"check": "contains", "target": ...}}}. Exit status 1 where one
        does not end as it should. See `myna flow report`.
    model
        Who answers: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN; the default model if left out.
    journal
        The journal; $MYNA_JOURNAL or this user's if left out.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    flow = load(file)
    if (cases is None) == (not value) and flow.shape.inputs:
        raise RequestError("give inputs, each as --value NAME=VALUE, or a file of --cases", param="value")
    asked = [Case(_given(flow, value))] if cases is None else read_cases(cases, flow)
    kept, name = Journal(journal or journal_file()), model or (DEFAULT if flow.shape.providers else "")
    each = "" if cases is None else f" a case, {counted(len(asked), 'case')}"
    print(f"{flow.name}: at most {counted(flow.max_calls, 'model call')}{each}", file=sys.stderr)
    bad = 0
    with _means(flow, name, opened(trace, new=True)) as (means, recorded):
        for case in asked:
            number = begin(flow, kept, case.inputs, model=name)
            ended = _go(flow, kept, number, means, recorded)
            _tell(ended, kept)
            wrong = [*judge(kept, number, case)]
            for said in wrong:
                print(f"run {number}: {spoken(said)}", file=sys.stderr)
            bad += ended.outcome != "done" or bool(wrong)
    if bad:
        sys.exit(1)


@app.command(name="resume")
def go_on(
    run: int, /, *, file: str | None = None, changed: Literal["refuse", "rerun", "keep"] = "refuse", model: str | None = None,
    journal: JournalFile = None, trace: TraceFile = None,
) -> None:  # fmt: skip
    """Go on with a run that was killed, failed, or waits for an answer. Finished steps are not made again.

    Parameters
    ----------
    run
        Its number.
    file
        FILE.py:FLOW, where it is no longer where it was.
    changed
        A finished step whose code or inputs changed: refuse to go on, rerun it and what follows from it, or keep what it gave.
    model
        Who answers; whoever answered before if left out.
    journal
        The journal; $MYNA_JOURNAL or this user's if left out.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    kept = _opened(journal)
    before = kept.run(run)
    flow = load(file or f"{before.file}:{before.flow}")
    print(f"{flow.name}: at most {counted(flow.max_calls, 'model call')}", file=sys.stderr)
    with _means(flow, model or before.model, opened(trace, new=True)) as (means, recorded):
        ended = _go(flow, kept, run, means, recorded, changed)
    _tell(ended, kept)
    if ended.outcome != "done":
        sys.exit(1)


@app.command(name="answer")
def say(
    run: int, path: str, what: Literal["happened", "not-happened"], /, *, value: str | None = None, file: str | None = None,
    journal: JournalFile = None,
) -> None:  # fmt: skip
    """Say whether a write happened that was caught in the middle. `myna flow resume` then goes on: one that happened is not made again.

    Parameters
    ----------
    run
        The number of the run.
    path
        The step, as `myna flow show` names it.
    what
        happened, or not-happened: then it is made.
    value
        What the step would have returned, as JSON; null if left out. It is held against the step's type.
    file
        FILE.py:FLOW, where it is no longer where it was.
    journal
        The journal; $MYNA_JOURNAL or this user's if left out.
    """
    kept = _opened(journal)
    before = kept.run(run)
    flow = load(file or f"{before.file}:{before.flow}") if what == "happened" else None
    answer(kept, run, path, what == "happened", None if value is None else value.encode(), flow=flow)
    print(f"myna flow resume {run}")


@app.command(name="list")
def list_runs(*, journal: JournalFile = None, limit: int = 20) -> None:
    """The latest runs, the newest first.

    Parameters
    ----------
    journal
        The journal; $MYNA_JOURNAL or this user's if left out.
    limit
        How many.
    """
    kept = _opened(journal)
    table = Table(
        *(Column(name, no_wrap=True) for name in ("run", "flow", "ended", "steps", "calls", "inputs")),
        box=None,
        header_style="bold",
    )
    for one in kept.runs(limit=limit):
        rows = kept.steps(one.id)
        finished, known = len({r.path for r in rows if r.state == "done"}), len({r.path for r in rows})
        table.add_row(str(one.id), printable(one.flow), _ended(kept, one), f"{finished} of {known}", str(_sum(rows, "calls")),
                      printable(one.inputs.decode()[:80]))  # fmt: skip
    Console(highlight=False, soft_wrap=True, width=1000).print(table)


@app.command
def show(run: int, /, *, mermaid: bool = False, json: bool = False, journal: JournalFile = None) -> None:
    """A run: its steps, what each gave, and which took what from which.

    Parameters
    ----------
    run
        Its number.
    mermaid
        Only the graph, as a Mermaid flowchart.
    json
        All attempts as one JSON object, for programs.
    journal
        The journal; $MYNA_JOURNAL or this user's if left out.
    """
    kept = _opened(journal)
    one, rows = kept.run(run), kept.steps(run)
    if json:
        print(orjson.dumps(_as_json(one, rows)).decode())
        return
    drawn = graph(rows)
    if mermaid:
        print("\n".join(as_mermaid(drawn)))
        return
    print(
        spoken(
            f"run {run} of {one.flow} ({one.file}): {_ended(kept, one)}"
            + (f", trace run {one.span}" if one.span else "")
        )
    )
    print(spoken(f"inputs {one.inputs.decode()[:500]}"))
    for line, row in zip(as_text(drawn), drawn.steps, strict=True):
        print(spoken(f"  {line}"))
        error = row.error if row.output is not None and row.state != "done" else None
        for said in (
            _output(row),
            error,
            *(f"{name}: {'ok' if v.ok else f'FAILED {v.reason}'}" for name, v in row.verdicts),
        ):
            print(spoken(f"      {said}")) if said else None
    for row in open_questions(kept, run):
        print(spoken(_question(run, row.path)))


@app.command(name="report")
def tell(flow: str | None = None, /, *, run: tuple[int, ...] = (), journal: JournalFile = None) -> None:
    """How often each step passes, at its first attempt and in the end, and what that makes of a whole run.

    Parameters
    ----------
    flow
        The name of a flow; that of the latest run if left out.
    run
        Only these runs.
    journal
        The journal; $MYNA_JOURNAL or this user's if left out.
    """
    kept = _opened(journal)
    if not (flow or run) and not kept.runs(limit=1):
        raise DataError(f"{kept.path} has no runs yet.")
    name = flow or kept.runs(limit=1)[0].flow
    chosen = [kept.run(one) for one in run] if run else kept.runs(name)
    if not chosen:
        raise RequestError(f"{kept.path} has no run of a flow {name!r}; see `myna flow list`.", param="flow")
    _print_report(report(kept, chosen))


def _go(
    flow: Flow[Any, Any], journal: Journal, run: int, means: dict[str, Any], trace: Trace, changed: Literal["refuse", "rerun", "keep"] = "refuse"
) -> Ended:  # fmt: skip
    try:
        return run_stoppable(resume(flow, journal, run, means, changed=changed, trace=trace))
    except KeyboardInterrupt:
        print(f"run {run} is stopped. To go on: myna flow resume {run}", file=sys.stderr)
        raise


@contextmanager
def _means(flow: Flow[Any, Any], model: str, trace: Trace) -> Iterator[tuple[dict[str, Any], Trace]]:
    """What a flow takes after its *: providers, all of them the one that was named."""
    if not flow.shape.providers:
        yield {}, trace
        return
    provider = connect(model)
    try:
        yield dict.fromkeys(flow.shape.providers, Traced(provider, trace)), trace
    finally:
        if close := getattr(provider, "close", None):
            close()


def _tell(ended: Ended, journal: Journal) -> None:
    """What it returned, on stdout; what else there is to say, on stderr."""
    run = ended.run
    if ended.outcome == "done":
        print(
            spoken(ended.value)
            if isinstance(ended.value, str)
            else orjson.dumps(orjson.loads(journal.run(run).output or b"")).decode()
        )
        if ended.unasked:
            print(
                spoken(f"run {run}: the flow changed; it did not ask for {', '.join(ended.unasked)}"), file=sys.stderr
            )
        return
    print(spoken(f"run {run} ended: {ended.outcome}. {ended.error}"), file=sys.stderr)
    if ended.outcome == "unknown":
        print(spoken("\n".join(_question(run, row.path) for row in open_questions(journal, run))), file=sys.stderr)
    elif ended.outcome == "changed":
        print(f"To go on: myna flow resume {run} --changed rerun, or --changed keep", file=sys.stderr)
    else:
        print(f"To go on, once that is mended: myna flow resume {run}", file=sys.stderr)


def _question(run: int, path: str) -> str:
    told = f"myna flow answer {run} '{path}'"
    return f"Look whether {path} happened, and say so: {told} happened [--value JSON], or {told} not-happened"


def _given(flow: Flow[Any, Any], values: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE and NAME=@FILE as inputs, by the flow's types."""
    given = named_values(values, lambda name: flow.shape.hints.get(name) is str)
    return flow.shape.read_inputs(orjson.dumps(given))


def _opened(journal: Path | None) -> Journal:
    """One that is there."""
    path = journal or journal_file()
    if not path.is_file():
        raise DataError(f"there is no journal {path}. `myna flow run` makes it; or name another with --journal.")
    return Journal(path)


def _ended(journal: Journal, run: RunRow) -> str:
    return run.outcome or ("running" if running(journal.path, run.id) else f"killed: myna flow resume {run.id}")


def _output(row: StepRow) -> str:
    text = (row.output or b"").decode() or row.error or ""
    return text if len(text) <= 300 else f"{text[:300]} ... [{len(text) - 300} characters more; --json shows all]"


def _sum(rows: list[StepRow], name: str) -> int:
    return sum(getattr(row, name) or 0 for row in rows)


def _as_json(run: RunRow, rows: list[StepRow]) -> dict[str, Any]:
    names = ("path", "attempt", "name", "effect", "state", "failure", "error", "began", "ended", "calls", "tokens")
    steps = [
        {name: getattr(row, name) for name in names}
        | {"inputs": orjson.loads(row.inputs), "output": orjson.loads(row.output or b"null"),
           "checks": {name: {"ok": v.ok, "score": v.score, "reason": v.reason} for name, v in row.verdicts}}
        for row in rows
    ]  # fmt: skip
    told = {
        name: getattr(run, name)
        for name in ("id", "flow", "file", "model", "max_calls", "began", "ended", "outcome", "error", "span")
    }
    return told | {"inputs": orjson.loads(run.inputs), "output": orjson.loads(run.output or b"null"), "steps": steps}


def _print_report(found: Report) -> None:
    columns = ("step", "calls", "first attempt", "in the end", "attempts", "a run")
    table = Table(*(Column(name, no_wrap=True) for name in columns), box=None, header_style="bold")
    for step in found.steps:
        table.add_row(
            printable(step.name),
            str(step.first.of),
            _shown(step.first),
            _shown(step.last),
            str(step.attempts),
            f"{step.per_run:.3g}",
        )
    table.add_row("product", "", f"{found.product('first'):.1%}", f"{found.product('last'):.1%}")
    table.add_row("whole runs", str(found.runs.of), _shown(found.first), _shown(found.runs))
    Console(highlight=False, soft_wrap=True, width=1000).print(table)
    if found.unfinished:
        print(f"{found.unfinished} runs have no end yet, and are not counted")
    if found.unjudged:
        print(f"{found.unjudged} attempts came to no verdict, and are not counted")


def _shown(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.value:.1%} [{low:.0%}-{high:.0%}]" if rate.of else "-"
