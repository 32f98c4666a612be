"""myna redteam: attacks on a model or an app, and how it takes them."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated

import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Column, Table

from myna.apps import redteam
from myna.apps.agent.file import AgentFile
from myna.apps.prompt import Prompt
from myna.apps.redteam.ask import MAX_TOKENS
from myna.apps.redteam.report import Line
from myna.apps.redteam.run import AT_ONCE
from myna.commands.options import printable
from myna.commands.tools import tools_of
from myna.commands.trace import TraceFile, opened
from myna.modeldir.progress import progress
from myna.provider import Provider, Scripted
from myna.provider.connect import connect
from myna.provider.traced import Traced
from myna.records import RequestError, Sampling
from myna.trace import Trace

LABEL = {"harmful": "harmful, refused", "benign": "benign, refused all the same", "injection": "injections obeyed"}


def run(
    who: str,
    /,
    *,
    set: tuple[Path, ...] = (),
    prompt: Path | None = None,
    agent: Path | None = None,
    limit: int | None = None,
    judge: str | None = None,
    max_tokens: int = MAX_TOKENS,
    at_once: Annotated[int, Parameter(name="--at-once")] = AT_ONCE,
    again: bool = False,
    trace: TraceFile = None,
    json: bool = False,
) -> None:
    """Ask what should be refused, what should not, and questions about documents that give orders; say how often what happened.

    Every answer is kept in the trace. Stopped or run again, it goes on where it was.

    Parameters
    ----------
    who
        Who answers: a model, http://...#MODEL, ollama:MODEL (see docs/trace.md).
    set
        JSON lines of cases (see docs/redteam.md); may be given several times. Our own cases if left out.
    prompt
        Test an app: its prompt file takes each case as an input.
    agent
        Test an agent: its file, with its tools, of which those that change something are refused.
    limit
        At most so many cases of each kind, always the same ones.
    judge
        A model that labels answers, too; what it says stands beside the rule's verdict.
    max_tokens
        Of an answer. A prompt file has its own.
    at_once
        Questions asked at the same time.
    again
        Ask everything anew.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    json
        Print the report as one JSON object.
    """
    if at_once < 1 or (limit is not None and limit < 1):
        raise RequestError("--at-once and --limit are 1 or more", param="limit")
    given = [case for path in set for case in redteam.read(path)] or redteam.packaged()
    cases, added = redteam.whole(given)
    cases = cases if limit is None else redteam.drawn(cases, limit)
    kept = opened(trace, new=True)
    with _connected(who) as provider, _connected(judge) as labeller:
        target = _target(provider, prompt, agent, kept, max_tokens)
        label = redteam.judge(Traced(labeller, kept)) if judge else None
        found = redteam.results(cases, target, kept, judge=label, at_once=at_once, again=again)
        report = redteam.report(asyncio.run(_all(found, len(cases))))
    if json:
        print(orjson.dumps({"who": target.name, "added": added, "judged_by": judge, **report.to_json()}).decode())
    else:
        _print(report, target, added, kept.store.path)


@contextmanager
def _connected(who: str | None) -> Iterator[Provider]:
    provider: Provider = connect(who) if who else Scripted()
    try:
        yield provider
    finally:
        if close := getattr(provider, "close", None):
            close()


def _target(
    provider: Provider, prompt: Path | None, agent: Path | None, kept: Trace, max_tokens: int
) -> redteam.Target:
    if prompt and agent:
        raise RequestError("--prompt or --agent: one of them is tested", param="agent")
    if agent:
        tools = tools_of(agent.parent / "tools.py") if (agent.parent / "tools.py").is_file() else []
        return redteam.clerk(AgentFile.read(agent).helper({one.name: one for one in tools}), provider, kept)
    if prompt:
        return redteam.app(Prompt.read(prompt), provider, kept)
    return redteam.model(Traced(provider, kept), Sampling(temperature=0, max_tokens=max_tokens))


async def _all(found: AsyncGenerator[redteam.Result, None], total: int) -> list[redteam.Result]:
    """Every result, with a bar on a terminal and JSON lines otherwise."""
    told: list[redteam.Result] = []
    with _progress(total) as advance:
        async with aclosing(found):
            async for one in found:
                told.append(one)
                advance()
    return told


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    if not sys.stderr.isatty():
        with progress("redteam", total) as advance:  # its rate is cases a second
            yield lambda: advance(1)
        return
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)


def _print(found: redteam.Report, target: redteam.Target, added: tuple[str, ...], path: Path) -> None:
    screen = Console(highlight=False, soft_wrap=True, width=1000)
    screen.print(printable(target.name))
    table = Table(
        Column("what"),
        *(Column(name, justify="right") for name in ("rate", "95 %", "n")),
        box=None,
        header_style="bold",
    )
    for line in found.lines:
        table.add_row(printable(LABEL[line.kind] if not line.by else f"  {line.by}: {line.value}"), *_shown(line))
    screen.print(table)
    for text in _notes(found, added):
        screen.print(printable(text))
    screen.print(printable(f"every answer: myna trace list --trace {path}"))


def _shown(line: Line) -> tuple[str, str, str]:
    if line.rate.share is None:
        return "none answered", "", "0"
    low, high = line.rate.interval
    return f"{line.rate.share:.1%}", f"{low:.0%} to {high:.0%}", str(line.rate.n)


def _notes(found: redteam.Report, added: tuple[str, ...]) -> Iterator[str]:
    yield "judged by words of refusal at the beginning of an answer; what is not refused need not do harm"
    if added:
        yield f"the sets had no {' and no '.join(added)} cases, so our own were asked, too"
    for kind, outcomes in found.outcomes.items():
        if left := [f"{n} {name}" for name, n in sorted(outcomes.items()) if name in ("failed", "empty", "blocked")]:
            yield f"{kind}: {', '.join(left)} (failed and empty ones are in no rate; blocked by the app is refused)"
    for kind, judged in found.judged.items():
        yield f"{kind}, rule and judge: " + ", ".join(
            f"{rule} / {said} {n}" for (rule, said), n in sorted(judged.items())
        )
    if found.answered.n:
        yield f"of injections, the question itself was answered: {found.answered.count} of {found.answered.n}"
    if found.before:
        yield f"{found.before} answers are from earlier runs (--again asks anew)"
