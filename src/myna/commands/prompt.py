"""myna prompt show, run, diff, test: prompt files."""

import asyncio
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Column, Table

from myna.apps.prompt import Answer, Explained, Prompt, ask, explain
from myna.apps.prompt.ask import Refused, explained_for
from myna.checks.reviews import Ask, Reviews
from myna.commands.options import printable, spoken
from myna.commands.spend import Spend, SpendFlags
from myna.commands.trace import TraceFile, opened
from myna.commands.values import named_values
from myna.modeldir import DEFAULT
from myna.provider import Provider
from myna.provider.budget import Budget, BudgetExceeded
from myna.provider.connect import connected
from myna.records import Candidate, Conversation, DataError, Message, RequestError
from myna.records.jsonl import read_rows
from myna.trace import Trace

app = App(name="prompt", help="Prompt files: what they send, what comes back, what changed.")
Values = Annotated[tuple[str, ...], Parameter(name=("--value", "-v"), negative=())]


@app.command
def show(file: str, /, *, value: Values = (), model: str | None = None, trace: TraceFile = None) -> None:
    """What a prompt would send: the exact messages, the tokens of each part, and what is cut so that it fits.

    Parameters
    ----------
    file
        A prompt file, or the version of one that the trace knows (its first characters will do).
    value
        An input, NAME=VALUE or NAME=@FILE; may be given several times. JSON where the input is no string.
    model
        Whose tokens are counted, and in whose context it must fit: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN; bytes
        are counted without one.
    trace
        Where versions are looked up.
    """
    prompt = _prompt(file, trace)
    given = given_values(prompt, value)
    if model is None:
        found = explain(prompt, given)
    else:
        with connected(model) as provider:
            found = explained_for(prompt, given, provider)
    _print_explained(prompt, found)


@app.command
def run(
    file: str,
    /,
    *,
    value: Values = (),
    model: str | None = None,
    spend: SpendFlags = Spend(),
    trace: TraceFile = None,
    json: bool = False,
) -> None:
    """Ask a model what a prompt asks, and print the answer. The run is recorded.

    Parameters
    ----------
    file
        A prompt file, or the version of one that the trace knows.
    value
        An input, NAME=VALUE or NAME=@FILE; may be given several times. JSON where the input is no string.
    model
        Who answers: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN; the file's own, else the default model.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    json
        Print the answer with what it took as one JSON object.
    """
    prompt, kept = _prompt(file, trace), opened(trace, new=True)
    given = given_values(prompt, value)
    prompt.check(given)  # before a model is loaded
    spend.budget()  # what is no amount is said before a model is loaded
    with connected(model or prompt.model or DEFAULT) as provider:
        asked = ask(prompt, given, provider, person=_person(prompt), trace=kept, budget=spend.budget())
        answer = asyncio.run(asked)
    if json:
        print(orjson.dumps(_as_json(prompt, answer)).decode())
        return
    print(spoken(answer.text) if sys.stdout.isatty() else answer.text)


@app.command
def diff(before: str, after: str, /, *, trace: TraceFile = None) -> None:
    """What changed between two prompts, line by line.

    Parameters
    ----------
    before
        A prompt file, or the version of one that the trace knows.
    after
        Another.
    trace
        Where versions are looked up.
    """
    old, new = (_prompt(one, trace) for one in (before, after))
    for what in ("source", "examples"):
        a, b = (_lines(one.kept[what]) for one in (old, new))
        names = (f"{before} {what} {old.version[:12]}", f"{after} {what} {new.version[:12]}")
        for line in difflib.unified_diff(a, b, *names, lineterm=""):
            print(spoken(line))


@app.command(name="test")
def run_cases(
    file: str,
    cases: Path,
    /,
    *,
    model: str | None = None,
    spend: SpendFlags = Spend(),
    trace: TraceFile = None,
) -> None:
    """Ask everything in a file of cases, and say which answers pass. Exit status 1 where one does not. The budget is that of all cases
    together.

    Parameters
    ----------
    file
        A prompt file, or the version of one that the trace knows.
    cases
        JSON lines: {"inputs": {...}, "target": ..., "check": "exact"}. The check (exact, contains, number) compares the answer with
        the target; without one an answer passes that is what the prompt's output demands.
    model
        Who answers: a pulled model, http://HOST/v1#MODEL, ollama:MODEL, replay:TRACE#RUN; the file's own, else the default model.
    trace
        The trace file; $MYNA_TRACE or this user's if left out.
    """
    prompt, kept = _prompt(file, trace), opened(trace, new=True)
    asked = [_case(prompt, row, f"{cases}:{line}") for line, row in read_rows(cases)]
    spend.budget()  # what is no amount is said before a model is loaded
    with connected(model or prompt.model or DEFAULT) as provider:
        passed = asyncio.run(_test(prompt, asked, provider, kept, spend.budget()))
    print(f"{passed} of {len(asked)} passed ({prompt.name} {prompt.version[:12]}, {provider.name})")
    if passed < len(asked):
        sys.exit(1)


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs, and what the answer is compared with, if with anything."""

    inputs: dict[str, Any]
    target: Any
    check: str | None
    place: str


def _case(prompt: Prompt, row: object, place: str) -> Case:
    from myna.checks import named
    from myna.records.fields import Fields

    try:
        f = Fields(row)
        case = Case(
            f.take("inputs", dict),
            f.take("target", str, int, float, bool, default=None),
            f.take("check", str, default=None),
            place,
        )
        if unknown := f.rest():
            raise DataError(f"{next(iter(unknown))}: a case has inputs, target and check")
        if (case.check is None) != (case.target is None):
            raise DataError("target: a case has a target and a check that compares with it, or neither")
        if case.check is not None:
            named(case.check)
        prompt.check(case.inputs)
    except (DataError, RequestError) as e:
        raise DataError(f"{place}: {e}") from None
    return case


async def _test(prompt: Prompt, cases: list[Case], provider: Provider, trace: Trace, budget: Budget) -> int:
    """How many pass. A case that a limit stops has failed; where nothing is left, those after it fail unasked."""
    from myna.checks import named, verdict

    passed = 0
    with trace.span("test", prompt.name, version=prompt.version) as span:
        for case in cases:
            try:
                answer = await ask(prompt, case.inputs, provider, person=_person(prompt), trace=trace, budget=budget)
            except (Refused, BudgetExceeded) as e:
                print(f"FAILED {case.place}: {spoken(str(e))}")
                continue
            said = Candidate((Message("assistant", answer.text),))
            asked = Conversation((), target=case.target)
            found = await verdict(named(case.check), asked, said) if case.check else None
            if found is None or found.ok:
                passed += 1
            else:
                print(f"FAILED {case.place}: {spoken(found.reason)}")
        span.note(passed=passed, cases=len(cases))
    return passed


def _person(prompt: Prompt) -> Ask | None:
    """Whom checks ask, where one of them does: the queue that `myna check reviews` lists."""
    if not any(one.otherwise == "escalate" or "ask" in one.check.needs for one in prompt.checks):
        return None
    from myna.commands.check import reviews_file

    return Reviews(reviews_file()).ask


def _prompt(file: str, trace: Path | None) -> Prompt:
    """From a file, or from the trace by its version."""
    if Path(file).is_file() or not file.isalnum() or len(file) < 6:
        return Prompt.read(file)
    kept = opened(trace).store
    found = kept.rows("SELECT DISTINCT prompt FROM calls WHERE prompt GLOB ?", f"{file}*")
    if len(found) != 1:
        raise DataError(f"{file} is no file, and {len(found) or 'no'} versions in {kept.path} begin with it")
    row = kept.content(found[0][0])
    return Prompt.parse(row["source"], row["name"], examples=row["examples"])


def given_values(prompt: Prompt, values: tuple[str, ...]) -> dict[str, Any]:
    """Inputs of a prompt; one that is not declared stays text, and is refused with its name."""
    inputs = prompt.inputs
    return named_values(values, lambda name: name not in inputs or inputs[name].schema.get("type") == "string")


def _print_explained(prompt: Prompt, found: Explained) -> None:
    screen = Console(highlight=False, soft_wrap=True)
    for message in found.conversation.messages:
        screen.print(f"[{message.role}]", style="bold", markup=False)
        screen.print(printable(message.text, {"\n": "\n"}))
    unit = "tokens" if found.exact else "bytes"
    table = Table(
        Column("part"),
        Column(unit, justify="right"),
        Column("left out", justify="right"),
        box=None,
        header_style="bold",
    )
    for part in found.parts:
        table.add_row(printable(part.name), f"{part.tokens:,}", f"{part.left_out:,}" if part.left_out else "")
    table.add_row("in all", f"{found.tokens:,}", f"of {found.room:,} free" if found.room else "")
    screen.print()
    screen.print(table)
    if found.sampling.form:
        screen.print(printable(f"the answer: {found.sampling.form.source}"))
    screen.print(f"version {prompt.version[:12]}")


def _as_json(prompt: Prompt, answer: Answer) -> Mapping[str, Any]:
    usage = answer.reply.usage
    return {"value": answer.value, "version": prompt.version, "calls": answer.calls, "rejected": answer.rejected,
            "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}  # fmt: skip


def _lines(value: Any) -> list[str]:
    return value.splitlines() if isinstance(value, str) else [orjson.dumps(one).decode() for one in value]
