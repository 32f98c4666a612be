"""A run in progress: where its rows are kept, what has been reached, which tasks are open."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

from myna.apps.flow.journal import End, Journal, RunRow, State, StepRow
from myna.trace import Prices

T = TypeVar("T")
GRACE = 5.0  # seconds in which a step that is cancelled may end; then nobody waits for it any more
Changed = Literal["refuse", "rerun", "keep"]


class Rows(Protocol):
    """Where attempts are written down."""

    def latest(self, path: str) -> StepRow | None: ...

    def last_begun(self) -> str | None: ...

    def begin(self, row: StepRow) -> StepRow: ...

    def end(self, row: StepRow, end: End) -> None: ...

    def answer(self, row: StepRow, state: State, output: bytes | None, error: str) -> StepRow: ...


@dataclass(frozen=True, slots=True)
class Kept:
    """In a journal."""

    journal: Journal
    run: RunRow

    def latest(self, path: str) -> StepRow | None:
        return self.journal.latest(self.run.id, path)

    def last_begun(self) -> str | None:
        return self.journal.last_begun(self.run.id)

    def begin(self, row: StepRow) -> StepRow:
        return self.journal.begin(replace(row, run=self.run.id))

    def end(self, row: StepRow, end: End) -> None:
        self.journal.end(row.id, end)

    def answer(self, row: StepRow, state: State, output: bytes | None, error: str) -> StepRow:
        self.journal.answer(row.id, state, output, error)
        return self.journal.latest(self.run.id, row.path) or row


class Unkept:
    """Nowhere: the flow is a plain function."""

    def latest(self, path: str) -> StepRow | None:
        return None

    def last_begun(self) -> str | None:
        return None

    def begin(self, row: StepRow) -> StepRow:
        return row

    def end(self, row: StepRow, end: End) -> None:
        pass

    def answer(self, row: StepRow, state: State, output: bytes | None, error: str) -> StepRow:
        return replace(row, state=state, output=output, error=error)


@dataclass
class Running:
    """`key` is the run's own, of which idempotency keys are made; `reached` are the paths that were asked for this time."""

    rows: Rows
    run: int | None
    key: str
    changed: Changed = "refuse"
    prices: Prices = field(default_factory=Prices)
    reached: set[str] = field(default_factory=set)
    tasks: "set[asyncio.Task[Any]]" = field(default_factory=set)

    async def within(self, seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns, in a task of its own. Raises TimeoutError after that many seconds; one that does not end when it is
        cancelled is left behind."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            await _cancel({task})
            raise
        if not done:
            await _cancel({task})
            if not task.done() or task.cancelled():
                raise TimeoutError
        return task.result()

    async def close(self) -> None:
        """No step outlives its flow."""
        await _cancel({task for task in self.tasks if not task.done()})

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of one that was left behind


async def _cancel(tasks: "set[asyncio.Task[Any]]") -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=GRACE)
