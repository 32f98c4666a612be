"""Making one call of a step: from the journal where it is finished, asked about where nobody knows, else attempt by attempt."""

import asyncio
import hashlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from myna.apps.flow.code import changed
from myna.apps.flow.declared import Declared
from myna.apps.flow.errors import Failure, FlowError, Halt, JournalError, NotDone, StepFailed, place, words
from myna.apps.flow.journal import End, State, StepRow
from myna.apps.flow.probe import Happened
from myna.apps.flow.running import Rows
from myna.apps.flow.scope import SCOPE, Scope, key_of
from myna.checks import Verdict, verdict
from myna.provider.budget import Budget, Budgeted, BudgetExceeded, Limits
from myna.records import Candidate, Conversation, Message, Unjudged
from myna.trace import Span
from myna.trace import here as span_here

ANEW = ("budget", "stopped", "interrupted", "answered")  # failures that say nothing of the step
FINAL = ("value", "budget")  # another attempt would fail the same way


class Wrong(Exception):
    """Checks that failed."""

    def __init__(self, verdicts: Mapping[str, Verdict], output: bytes):
        failed = {name: said.reason for name, said in verdicts.items() if not said.ok}
        super().__init__("; ".join(f"{name}: {reason}" if reason else name for name, reason in failed.items()))
        self.verdicts, self.output = verdicts, output


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a step, at its place. `data` is the JSON of its inputs, `hash` that of the JSON with its keys sorted."""

    step: Declared
    scope: Scope
    path: str
    inputs: dict[str, Any]
    means: dict[str, Any]
    data: bytes
    hash: str

    @property
    def rows(self) -> Rows:
        return self.scope.running.rows

    @property
    def key(self) -> str:
        return key_of(self.scope.running.key, self.path, self.hash)


async def make(step: Declared, scope: Scope, path: str, inputs: dict[str, Any], means: dict[str, Any]) -> Any:
    """The value of the step. Raises StepFailed, BudgetExceeded, FlowError; Halt where a person must decide."""
    data = step.shape.write_inputs(inputs)
    hash = hashlib.sha256(orjson.dumps(orjson.loads(data), option=orjson.OPT_SORT_KEYS)).hexdigest()
    call = Call(step, scope, path, inputs, means, data, hash)
    scope.running.reached.add(path)
    with _halting(path):
        last = await _known(call)
        if last is None or (last.state == "failed" and _anew(call, last)):
            return await _attempts(call, last)
        if last.state == "done":
            return _output(call, last)
    raise StepFailed(f"{path}: {last.error}", path=path, kind=last.failure or "error")


def _output(call: Call, last: StepRow) -> Any:
    """The value of a finished step. What a person said of a write is believed, if it can be what the write gives."""
    try:
        return call.step.shape.read_output(last.output or b"")
    except FlowError as e:
        if last.code is not None:
            raise
        call.rows.answer(last, "unknown", None, words(e))
        raise _asking(call, words(e)) from e


async def _known(call: Call) -> StepRow | None:
    """What the journal says of it, once nothing about it is open. None: it has not been made, or not as it is now."""
    last = call.rows.latest(call.path)
    if last is not None and last.state == "intent":
        last = _interrupted(call, last, "interrupted", "the process ended in the middle of it")
    if last is not None and last.state == "unknown":
        last = await _settled(call, last)
    if last is None or last.state != "done" or not (why := _differs(call, last)):
        return last
    match call.scope.running.changed:
        case "keep":
            return last
        case "rerun" if "write" not in (last.effect, call.step.effect):
            return call.rows.answer(last, "failed", None, f"made anew: {why}")
        case "rerun":
            call.rows.answer(last, "unknown", last.output, f"it happened, but {why}")
            raise _asking(call, f"it happened, but since then {why}")
    raise Halt("changed", call.path, f"{call.path} is finished, but {why}.")


def _differs(call: Call, last: StepRow) -> str:
    """In what a finished step is not the one that is asked for; nothing where it is."""
    found = []
    if last.code is not None and (names := changed(last.code, call.step.code)):
        found.append(f"its code changed ({', '.join(names)})")
    if last.input_hash not in (None, call.hash):
        old, new = orjson.loads(last.inputs), orjson.loads(call.data)
        names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        shown = ", ".join(f"{name} was {_short(old.get(name))}, is {_short(new.get(name))}" for name in names)
        found.append(f"its inputs changed ({shown})")
    return " and ".join(found)


def _anew(call: Call, last: StepRow) -> bool:
    """Whether a failure is not the flow's past: it ended the run, or nothing came after it."""
    return last.again or last.failure in ANEW or last.input_hash != call.hash or call.rows.last_begun() == call.path


async def _attempts(call: Call, last: StepRow | None) -> Any:
    number, tries = (last.attempt, last.try_) if last else (0, 1)
    if last is not None and last.failure == "check":
        tries += 1  # what is nested in it would give the same again
    for left in range(call.step.retry, -1, -1):
        number += 1
        try:
            return await _attempt(call, number, tries)
        except StepFailed as e:
            if left == 0 or e.kind in FINAL:
                raise
        tries += 1


async def _attempt(call: Call, number: int, tries: int) -> Any:
    step, running = call.step, call.scope.running
    budget = Budget(Limits(calls=step.calls), parent=call.scope.budget)
    with _span(call, number) as span:
        row = call.rows.begin(
            StepRow(0, running.run or 0, call.path, number, tries, step.name, step.effect, step.code, call.hash, call.data, "intent",
                    None, None, None, False, 0.0, None, None, None)
        )  # fmt: skip
        try:
            return await running.within(step.timeout, _body(call, row, budget, span))
        except (Halt, asyncio.CancelledError):
            _interrupted(call, row, "stopped", "it was stopped in the middle", budget)
            raise
        except JournalError:
            raise
        except Exception as e:
            kind, error = _failure(call, e)
            unknown = step.effect == "write" and kind != "not done"
            verdicts, output = (e.verdicts, e.output) if isinstance(e, Wrong) else ({}, None)
            call.rows.end(row, End("unknown" if unknown else "failed", output, kind, error, verdicts, *_spent(budget)))
            if unknown:
                return await _after_write(call, row, error)
            if isinstance(e, BudgetExceeded):
                raise
            raise StepFailed(f"{call.path}: {error}", path=call.path, kind=kind) from e


async def _body(call: Call, row: StepRow, budget: Budget, span: Span | None) -> Any:
    """In a task of its own, so that what is finished is written down whoever stops waiting for it."""
    step = call.step
    inside = call.path if row.try_ == 1 else f"{call.path}@{row.try_}"
    SCOPE.set(Scope(call.scope.running, inside, budget, asyncio.current_task(), row.attempt, call.key))
    value = await step.shape.function(**call.inputs, **_means(call, budget))
    try:
        data, value = step.shape.write_output(value)
    except FlowError as e:
        raise StepFailed(words(e), path=call.path, kind="value") from e
    verdicts = await _judged(call, data, span)
    if not all(said.ok for said in verdicts.values()):
        raise Wrong(verdicts, data)
    call.rows.end(row, End("done", data, None, None, verdicts, *_spent(budget)))
    return value


def _means(call: Call, budget: Budget) -> dict[str, Any]:
    """What it works with; a provider within its own budget, and so within all around."""
    found = dict(call.means)
    for name in call.step.shape.providers:
        if (given := found[name]) is not None:
            inner = given.inner if isinstance(given, Budgeted) and given.budget is call.scope.budget else given
            found[name] = Budgeted(inner, budget, call.scope.running.prices)
    return found


async def _judged(call: Call, output: bytes, span: Span | None) -> dict[str, Verdict]:
    """What its checks say of an output."""
    asked = Conversation((Message("user", as_text(call.data, single=True)),), id=call.path)
    candidate = Candidate((Message("assistant", as_text(output)),))
    verdicts = {}
    for name, check in call.step.checks.items():
        verdicts[name] = await verdict(check, asked, candidate)
        if span is not None:
            span.check(name, verdicts[name].ok, verdicts[name].score, verdicts[name].reason)
    return verdicts


def as_text(data: bytes, *, single: bool = False) -> str:
    """A text as it is, anything else as JSON. `single`: of an object with one value, that value."""
    value = orjson.loads(data)
    if single and isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _failure(call: Call, error: Exception) -> tuple[Failure, str]:
    """Its kind, and what is said of it."""
    where = place(error, inspect.getfile(call.step.shape.function))
    said = f"{words(error)} ({where})" if where else words(error)
    match error:
        case Wrong():
            return "check", f"its output fails {words(error).removeprefix('Wrong: ')}"
        case TimeoutError() if not where:
            return "timeout", f"it took more than {call.step.timeout:g} seconds"
        case BudgetExceeded():
            return "budget", said
        case NotDone():
            return "not done", said
        case Unjudged():
            return "unjudged", said
        case StepFailed(path=call.path, kind=kind):
            return kind, words(error)
    return "error", said


async def _after_write(call: Call, row: StepRow, error: str) -> Any:
    """A write that failed may have happened all the same."""
    settled = await _settled(call, call.rows.latest(call.path) or row, error)
    if settled.state == "done":
        return call.step.shape.read_output(settled.output or b"")
    raise StepFailed(f"{call.path}: {error}; it did not happen", path=call.path, kind="not done")


async def _settled(call: Call, last: StepRow, error: str | None = None) -> StepRow:
    """The row of a write of which it is not known whether it happened, once its probe says so. Halts where it cannot."""
    why = error or last.error or "nobody knows how it ended"
    if call.step.probe is None:
        raise _asking(call, why)
    inputs = call.step.shape.read_inputs(last.inputs)
    try:
        said = await call.scope.running.within(call.step.timeout, _probe(call, inputs, last))
        data = call.step.shape.write_output(said.value)[0] if isinstance(said, Happened) else None
    except Exception as e:
        raise _asking(call, f"{why}; its probe failed: {words(e)}") from e
    if said is None:
        raise _asking(call, f"{why}; its probe cannot tell")
    if data is not None:
        return call.rows.answer(last, "done", data, "its probe found that it happened")
    return call.rows.answer(last, "failed", None, "its probe found that it did not happen")


async def _probe(call: Call, inputs: dict[str, Any], last: StepRow) -> Any:
    assert call.step.probe
    key = key_of(call.scope.running.key, call.path, last.input_hash or "")
    SCOPE.set(Scope(call.scope.running, call.path, call.scope.budget, asyncio.current_task(), last.attempt, key))
    said = await call.step.probe(**inputs, **call.means)
    if said is None or said is False or isinstance(said, Happened):
        return said
    raise FlowError(f"a probe says Happened(value), False or None, not {_short(said)}")


def _interrupted(call: Call, row: StepRow, why: Failure, error: str, budget: Budget | None = None) -> StepRow:
    """A read is made again; of a write nobody knows."""
    state: State = "unknown" if "write" in (row.effect, call.step.effect) else "failed"
    call.rows.end(row, End(state, None, why, error, {}, *(_spent(budget) if budget else ())))
    return call.rows.latest(call.path) or row


def _spent(budget: Budget) -> tuple[int, int]:
    """Calls and tokens."""
    return int(budget.spent["calls"]), int(budget.spent["tokens"])


def _asking(call: Call, why: str) -> Halt:
    return Halt("unknown", call.path, f"{call.path}: nobody knows whether it happened: {why}")


@contextmanager
def _span(call: Call, number: int) -> Iterator[Span | None]:
    """A span below the one that is open here; none where nobody traces."""
    above = span_here()
    if above is None:
        yield None
        return
    with above.trace.span("step", call.step.name, path=call.path, attempt=number, effect=call.step.effect) as span:
        yield span


@contextmanager
def _halting(path: str) -> Iterator[None]:
    """Without its journal a run does not go on."""
    try:
        yield
    except JournalError as e:
        raise Halt("journal", path, str(e)) from e


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
