"""Running a flow with a journal, and resuming it: after a kill -9, a failure, an answer to what was asked."""

import asyncio
import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from myna.apps.flow.errors import FlowError, Halt, JournalError, StepFailed, every, place, words
from myna.apps.flow.flow import Flow
from myna.apps.flow.journal import Journal, StepRow
from myna.apps.flow.lock import locked
from myna.apps.flow.running import Changed, Kept, Running
from myna.apps.flow.scope import Scope
from myna.apps.flow.step import Step
from myna.provider.budget import Budget, BudgetExceeded, Limits
from myna.records import DataError, RequestError
from myna.trace import Prices, Span, Trace

Outcome = Literal["done", "failed", "unknown", "changed", "budget", "stopped"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    outcome   done; failed: a step or the flow raised; unknown: a write may have happened, a person must say; changed: code or inputs
              of a finished step are not what they were; budget: no more may be spent; stopped: from outside. All but done can be resumed
    value     what the flow returned, where it is done
    error     what went wrong, for people; `path`: of the step where
    unasked   finished steps of the journal that the flow, as it is now, did not ask for
    span      its run in the trace, where there is one
    """

    run: int
    outcome: Outcome
    value: Any = None
    error: str = ""
    path: str = ""
    unasked: tuple[str, ...] = ()
    span: int | None = None


async def run(
    flow: Flow[Any, Any],
    journal: Journal,
    inputs: Mapping[str, Any],
    means: Mapping[str, Any] = {},
    *,
    trace: Trace | None = None,
    budget: Budget | None = None,
    model: str = "",
) -> Ended:
    """Run a flow from its beginning.

    inputs   by name, as the flow's types say
    means    what the flow takes after its *: providers and the like
    trace    where its steps and their calls are recorded
    budget   what it may spend beside its own max_calls
    model    a note in the journal of who answers, for whoever resumes it

    Raises FlowError or RequestError where the inputs are wrong, before anything is done; JournalError where nothing can be written
    down; CancelledError, and then the run can be resumed.
    """
    flow.shape.bind((), {**inputs, **means})
    number = begin(flow, journal, inputs, model=model)
    return await resume(flow, journal, number, means, trace=trace, budget=budget)


def begin(flow: Flow[Any, Any], journal: Journal, inputs: Mapping[str, Any], *, model: str = "") -> int:
    """The number of a new run, which `resume` then makes. Raises FlowError where the inputs are wrong, JournalError."""
    inputs, _ = flow.shape.bind((), {**inputs, **dict.fromkeys(flow.shape.means)})
    data = flow.shape.write_inputs(inputs)
    return journal.begin_run(flow.name, inspect.getfile(flow.shape.function), data, model, flow.max_calls)


async def resume(
    flow: Flow[Any, Any],
    journal: Journal,
    run: int,
    means: Mapping[str, Any] = {},
    *,
    changed: Changed = "refuse",
    trace: Trace | None = None,
    budget: Budget | None = None,
    model: str | None = None,
) -> Ended:
    """Go on with a run. Steps that are finished are not made again, and give what they gave. One that is done is only told again.

    changed   a finished step whose code or inputs are not what they were: refuse ends the run as `changed`; rerun makes it anew, and so
              all that takes what it gives (a write is asked about first); keep takes what it gave

    Raises RequestError where there is no such run, or it is another flow's; JournalError where another process runs it.
    """
    kept = journal.run(run)
    if kept.flow != flow.name:
        raise RequestError(f"run {run} is one of the flow {kept.flow}, not of {flow.name}.", param="run")
    with locked(journal.path, run):
        kept = journal.run(run)
        if kept.outcome == "done":
            return Ended(run, "done", flow.shape.read_output(kept.output or b""), span=kept.span)
        inputs = flow.shape.read_inputs(kept.inputs)
        _, given = flow.shape.bind((), {**inputs, **means})
        journal.resume_run(run, kept.model if model is None else model)
        return await _go(flow, journal, run, inputs, given, trace=trace, budget=budget, changed=changed)


async def _go(
    flow: Flow[Any, Any], journal: Journal, run: int, inputs: Mapping[str, Any], means: Mapping[str, Any], *, trace: Trace | None,
    budget: Budget | None, changed: Changed,
) -> Ended:  # fmt: skip
    kept = journal.run(run)
    prices = trace.prices if trace else Prices()
    running = Running(Kept(journal, kept), run, kept.key, changed, prices)
    scope = Scope(running, "", Budget(Limits(calls=flow.max_calls), parent=budget), None)
    span_id = None
    try:
        with trace.span("flow", flow.name, journal=str(journal.path), run=run) if trace else nullcontext() as span:
            if isinstance(span, Span):
                span_id = span.id
                journal.span(run, span.id)
            try:
                value = await flow.within(scope, inputs, means)
            finally:
                await running.close()
    except asyncio.CancelledError:
        journal.end_run(run, "stopped", None, "it was stopped from outside", [])
        raise
    except BaseException as e:
        ended = _ended(flow, run, span_id, e)
        again = [one.path for one in every(e) if isinstance(one, StepFailed)]
        journal.end_run(run, ended.outcome, None, ended.error, again)
        return ended
    data, value = flow.shape.write_output(value)
    journal.end_run(run, "done", data, "", [])
    return Ended(run, "done", value, unasked=_unasked(journal, running), span=span_id)


def _ended(flow: Flow[Any, Any], run: int, span: int | None, error: BaseException) -> Ended:
    """What an error makes of a run. Raises the error where it is none of the flow's."""
    for one in every(error):
        match one:
            case Halt(reason="journal"):
                raise JournalError(f"{one} Run {run} can be resumed: myna flow resume {run}.") from error
            case Halt(reason="unknown" | "changed" as reason):
                return Ended(run, reason, error=str(one), path=one.path, span=span)
    if not isinstance(error, Exception):
        raise error
    outcome: Outcome = "budget" if isinstance(error, BudgetExceeded) else "failed"
    failed = [one for one in every(error) if isinstance(one, StepFailed)]
    if isinstance(error, StepFailed):  # of steps within steps the innermost
        error = max((one for one in failed if one.path.startswith(error.path)), key=lambda one: len(one.path))
        return Ended(run, outcome, error=words(error), path=error.path, span=span)
    where = place(error, inspect.getfile(flow.shape.function))
    path = failed[0].path if failed else ""
    return Ended(run, outcome, error=words(error) + (f" ({where})" if where else ""), path=path, span=span)


def _unasked(journal: Journal, running: Running) -> tuple[str, ...]:
    """Paths of finished steps that were not reached, nor stand below one that was."""
    latest = {row.path: row for row in journal.steps(running.run or 0)}
    return tuple(
        path for path, row in latest.items()
        if row.state in ("done", "unknown") and path not in running.reached and not _below(path, running.reached)
    )  # fmt: skip


def _below(path: str, reached: set[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:n]).partition("@")[0] in reached for n in range(1, len(parts)))


def answer(
    journal: Journal, run: int, path: str, happened: bool, value: bytes | None = None, *, flow: Flow[Any, Any] | None = None
) -> StepRow:  # fmt: skip
    """A person says whether a write happened that is `unknown`; `value` is the JSON of what the step gave, null if left out.

    The next resume believes it: one that did not happen is made, one that did is not. With the `flow` the value is held against the
    step's type now, without it when the run is resumed. Raises RequestError where nothing is asked, or no such step gives that value.
    """
    with locked(journal.path, run):
        journal.run(run)
        row = journal.latest(run, path)
        if row is None or row.state not in ("unknown", "intent") or row.effect != "write":
            asked = [one.path for one in open_questions(journal, run)]
            raise RequestError(
                f"run {run} asks nothing about {path!r}; it asks about {', '.join(asked) or 'nothing'}.", param="path"
            )
        if not happened:
            journal.answer(row.id, "failed", None, "a person said that it did not happen")
        else:
            output = _given(value if value is not None else row.output or b"null")
            if step := flow and flow.step(row.name):
                _refuse_other(step, output)
            journal.answer(row.id, "done", output, "a person said that it happened")
        return journal.latest(run, path) or row


def open_questions(journal: Journal, run: int) -> list[StepRow]:
    """The writes of a run of which nobody knows whether they happened."""
    latest = {row.path: row for row in journal.steps(run)}
    return [row for row in latest.values() if row.state == "unknown"]


def _refuse_other(step: Step[Any, Any], output: bytes) -> None:
    try:
        step.shape.read_output(output)
    except FlowError as e:
        raise RequestError(f"--value: {e}", param="value") from None


def _given(value: bytes) -> bytes:
    try:
        return orjson.dumps(orjson.loads(value))
    except orjson.JSONDecodeError as e:
        raise DataError(f"--value: not JSON: {e}") from None
