"""myna agent run, resume, list, test, new, memory: agents as files."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import aclosing, closing
from pathlib import Path
from typing import Annotated, Any

import orjson
from cyclopts import App, Parameter
from rich.console import Console

from myna.apps.agent import Agent, Ended, Memory, Session, steps
from myna.apps.agent import run as run_agent
from myna.apps.agent.egress import answer_of
from myna.apps.agent.file import AgentFile
from myna.apps.agent.runs import AgentFileError, Kept, Runs
from myna.apps.tools import Approvals, Asked, Tool, later, never
from myna.apps.tools.approvals import YES, shown
from myna.commands.agent_memory import app as memory_app
from myna.commands.agent_memory import data_folder, memory_file
from myna.commands.agent_view import Show, as_json, live, print_answer
from myna.commands.options import folded, hint, printable, spoken
from myna.commands.prompt import Values, given_values
from myna.commands.stoppable import run_stoppable
from myna.commands.tools import tools_of
from myna.commands.trace import TraceFile, opened
from myna.modeldir import DEFAULT
from myna.provider import Provider
from myna.provider.connect import connected
from myna.records import Candidate, Conversation, DataError, Message, RequestError
from myna.trace import Trace

app = App(name="agent", help="Agents: run, go on, test, draft, and what they remember.")
app.command(memory_app)
WAITS, FAILED = 3, 1  # exit statuses: somebody has to approve something; it ended, and not with an answer


@app.command
def run(
    file: Path, task: str | None = None, /, *, value: Values = (), model: str | None = None, python: bool = False, trace: TraceFile = None,
    json: bool = False,
) -> None:  # fmt: skip
    """Let an agent work on a task. You see each step, and are asked where something needs your approval; Ctrl-C stops it.

    Parameters
    ----------
    file
        The agent's file; its tools are in tools.py beside it, which is run.
    task
        What to do.
    value
        Another input of the file, NAME=VALUE or NAME=@FILE; may be given several times.
    model
        Who thinks: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN; the file's own, else the default model.
    python
        Offer a tool that runs Python in a sandbox; every piece of code asks.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    json
        One JSON line for every event. Nobody is asked: a run that needs an approval ends, and `myna agent resume` goes on.
    """
    spec = _reviewed(AgentFile.read(file), file)
    given = {**given_values(spec.prompt, value), **({"task": task} if task is not None else {})}
    agent, session = spec.begin(given, _tools(file.parent, python), _memory(spec, file))
    with closing(_runs()) as runs, runs.held(session.run):
        runs.begin(session, str(file.resolve()), spec.version, {"inputs": given, "python": python})
        _go(agent, session, runs, model or spec.prompt.model or DEFAULT, trace, json)


@app.command
def resume(
    run: str, /, *, approve: tuple[str, ...] = (), refuse: tuple[str, ...] = (), model: str | None = None, trace: TraceFile = None,
    json: bool = False,
) -> None:  # fmt: skip
    """Go on with a run that waits for an approval, was interrupted, or was killed.

    Parameters
    ----------
    run
        Its id, or how it begins.
    approve
        The id of a question to say yes to. At a terminal you are asked.
    refuse
        The id of a question to say no to.
    model
        Who thinks; the file's own, else the default model.
    trace
        The trace file.
    json
        One JSON line for every event.
    """
    with closing(_runs()) as runs, runs.held(runs.find(run).run):
        kept = runs.find(run)
        with closing(_approvals()) as approvals:
            _decide(approvals, kept.run, {**dict.fromkeys(approve, True), **dict.fromkeys(refuse, False)})
        if kept.state == "done":
            _tell_done(kept, json)
            return
        spec = _reviewed(AgentFile.read(kept.file), Path(kept.file))
        if spec.version != kept.version:
            print(f"{kept.file} was changed since the run began", file=sys.stderr)
        agent, _ = spec.begin(kept.given["inputs"], _tools(spec.folder, kept.given["python"]), _memory(spec, kept.file))
        _go(agent, kept.session, runs, model or spec.prompt.model or DEFAULT, trace, json)


@app.command(name="list")
def list_runs(*, limit: int = 20) -> None:
    """The latest runs, how they ended, and the questions that wait for an answer.

    Parameters
    ----------
    limit
        How many.
    """
    with closing(_runs()) as runs, closing(_approvals()) as approvals:
        table = folded("run", "agent", "state", "steps", "task")
        for run in runs.latest(limit):
            try:
                kept = runs.find(run)
            except AgentFileError as e:  # the others can be read
                table.add_row(printable(run[:12]), "", "damaged", "", printable(str(e)))
                continue
            table.add_row(
                kept.run[:12],
                printable(Path(kept.file).stem),
                kept.state,
                f"{kept.session.spent.get('steps', 0):.0f}",
                _task(kept),
            )
        Console(highlight=False, soft_wrap=not Console().is_terminal).print(table)
        for asked in approvals.waiting():
            _print_asked(asked)


@app.command
def new(
    description: str, /, *, out: Annotated[Path, Parameter(name=("--out", "-o"))], model: str | None = None, template: bool = False,
    trace: TraceFile = None,
) -> None:  # fmt: skip
    """Draft an agent's file for you to read. Its tools are chosen among those of tools.py beside it; nothing is run.

    Parameters
    ----------
    description
        What the agent is for.
    out
        The file to write; it must not be there yet.
    model
        Who writes it; the default model if left out.
    template
        Write a file to fill in, without a model.
    trace
        The trace file.
    """
    from myna.apps.agent.draft import drafted
    from myna.apps.agent.draft import template as blank

    if out.exists():
        raise DataError(f"{out} is there already; nothing was written. Name another with --out.")
    known = _tools(out.parent)
    if template:
        text = blank(out.stem, description, known)
    else:
        with connected(model or DEFAULT) as provider:
            text = asyncio.run(drafted(out.stem, description, known, provider, opened(trace, new=True)))
    out.write_text(text, encoding="utf-8")
    print(f"{out}: read it, mend it, and take out `reviewed: false`. Then: myna agent run {out} TASK")


@app.command(name="test")
def run_cases(file: Path, /, *, model: str | None = None, trace: TraceFile = None) -> None:
    """Let an agent work on the cases of its file, each by itself, and say which pass. Nobody is asked: what needs an approval is refused.
    Exit status 1 where one does not pass.

    Parameters
    ----------
    file
        The agent's file.
    model
        Who thinks; the file's own, else the default model.
    trace
        The trace file.
    """
    spec, kept = _reviewed(AgentFile.read(file), file), opened(trace, new=True)
    with connected(model or spec.prompt.model or DEFAULT) as provider:
        passed = run_stoppable(_test(spec, provider, kept))
    print(f"{passed} of {len(spec.cases)} passed ({spec.name} {spec.version[:12]}, {provider.name})")
    if passed < len(spec.cases):
        sys.exit(FAILED)


def _go(agent: Agent, session: Session, runs: Runs, model: str, trace: Path | None, json: bool) -> None:
    """Run it, ask, and go on, until it ends with something that no answer of a person's changes."""
    kept, ask = opened(trace, new=True), sys.stdin.isatty() and not json
    show = as_json if json else live(kept.prices.currency)
    with connected(model) as provider, closing(_approvals()) as approvals:
        hint(provider, model)
        try:
            while True:
                ended = run_stoppable(_watched(agent, session, provider, approvals, runs, kept, show))
                waiting = _questions(approvals, session.run)
                if ended.reason != "approval" or not ask or not waiting:
                    break
                for asked in waiting:
                    approvals.decide(asked.id, _says_yes(asked))
        except KeyboardInterrupt:
            print(f"stopped; to go on: myna agent resume {session.run[:12]}", file=sys.stderr)
            raise
    if not json:
        print_answer(ended.answer, ended.links)
        for asked in waiting:
            _print_asked(asked)
    if ended.reason != "done":
        sys.exit(WAITS if ended.reason == "approval" else FAILED)


async def _watched(
    agent: Agent, session: Session, provider: Provider, approvals: Approvals, runs: Runs, trace: Trace, show: Show
) -> Ended:
    """Every event is in the file before it is shown, and a write before it begins."""
    runs.save(session)
    state, last = "interrupted", None
    given: dict[str, Any] = {"approvals": approvals, "ask": later, "trace": trace, "keep": runs.save}
    try:
        async with aclosing(steps(agent, session, provider, **given)) as events:
            async for event in events:
                show(event)
                last = event
        assert isinstance(last, Ended)
        state = last.reason
        return last
    finally:
        runs.save(session, state)


async def _test(spec: AgentFile, provider: Provider, trace: Trace) -> int:
    from myna.checks import named, verdict

    passed, known = 0, _tools(spec.folder)
    with trace.span("test", spec.name, version=spec.version) as span:
        for number, case in enumerate(spec.cases, 1):
            agent, session = spec.begin(case.inputs, known)
            ended = await run_agent(agent, session, provider, ask=never, trace=trace)
            said = Candidate((Message("assistant", ended.answer),))
            good = ended.reason == "done"
            if good and case.check is not None:
                good = (await verdict(named(case.check), Conversation((), target=case.target), said)).ok
            passed += good
            if not good:
                print(f"FAILED case {number}: {ended.reason} {spoken(ended.detail or ended.answer)[:300]}")
        span.note(passed=passed, cases=len(spec.cases))
    return passed


def _questions(approvals: Approvals, run: str) -> list[Asked]:
    """What waits for an answer of a run and of its helpers, whose runs are called RUN/CALL."""
    return [one for one in approvals.waiting() if one.run.split("/")[0] == run]


def _decide(approvals: Approvals, run: str, answers: Mapping[str, bool]) -> None:
    """Answer questions of this run; none where one of them is not. Raises RequestError."""
    asked = [one.id for one in _questions(approvals, run)]
    for id in answers:
        if id not in asked:
            there = f"it asks {', '.join(asked)}" if asked else "it asks nothing"
            raise RequestError(f"run {run[:12]} has no such question waiting: {id}; {there}.", param="approve")
    for id, yes in answers.items():
        approvals.decide(id, yes)


def _tell_done(kept: Kept, json: bool) -> None:
    """A run that is done has nothing to go on with; its answer is told again."""
    answer, links = answer_of(kept.session)
    if json:
        print(
            orjson.dumps(
                {"event": "ended", "reason": "done", "answer": answer, "links": links, "run": kept.run}
            ).decode()
        )
        return
    print(f"run {kept.run[:12]} is done, and nothing more was run. Its answer:", file=sys.stderr)
    print_answer(answer, links)


def _reviewed(spec: AgentFile, file: Path) -> AgentFile:
    if not spec.reviewed:
        raise DataError(f"{file} is a draft that says `reviewed: false`. Read all of it, then take out that line.")
    return spec


def _tools(folder: Path, python: bool = False) -> dict[str, Tool]:
    """The tools of tools.py in the agent's folder, and with `python` the sandbox."""
    from myna.apps.tools.sandbox import python_tool

    file = folder / "tools.py"
    found = tools_of(file) if file.is_file() else []
    found += [python_tool()] if python else []
    return {one.name: one for one in found}


def _memory(spec: AgentFile, file: Path | str) -> Memory | None:
    return Memory(memory_file(Path(file))) if spec.memory else None


def _runs() -> Runs:
    return Runs(data_folder() / "runs.sqlite")


def _approvals() -> Approvals:
    folder = data_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Approvals(folder / "approvals.sqlite", seconds=DAY)


DAY = 24 * 3600.0  # that a question of a run which ended waits for its answer


def _says_yes(asked: Asked) -> bool:
    """Anything but yes is no, the end of the input too. Not in a thread: Ctrl-C is to end it."""
    try:
        return input(f"{shown(asked)}\nRun it? [y/N] ").strip().lower() in YES
    except EOFError:
        return False


def _print_asked(asked: Asked) -> None:
    print(f"waits: {asked.id}  (run {asked.run[:12]})\n  {shown(asked)}", file=sys.stderr)
    print(f"  myna agent resume {asked.run[:12]} --approve {asked.id}", file=sys.stderr)


def _task(kept: Kept) -> Any:
    text = str(kept.given.get("inputs", {}).get("task") or kept.session.messages[0].text)
    return printable(" ".join(text.split())[:60])
