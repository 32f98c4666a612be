"""Where a step is called: its path, which is the same each time the flow runs, and what it may spend.

A path is made when a step is called, not when it begins: `a`, then `a#2`; inside of a step `outer/a`; in the branches of a gather
`gather[0]/a`. So it does not depend on which of several tasks is the faster.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from myna.apps.flow.errors import FlowError, Halt
from myna.provider.budget import Budget

if TYPE_CHECKING:
    from myna.apps.flow.running import Running

T = TypeVar("T")
SCOPE: ContextVar["Scope | None"] = ContextVar("scope", default=None)


@dataclass
class Scope:
    """The inside of a flow, of a step, or of a branch. `task` is the one that may call steps here; `attempt` and `key` are those of the
    step around."""

    running: "Running"
    path: str
    budget: Budget
    task: "asyncio.Task[Any] | None"
    attempt: int = 1
    key: str = ""
    counts: Counter[str] = field(default_factory=Counter)

    def place(self, name: str) -> str:
        """The path of what is called here now. Raises FlowError in another task, whose order would decide."""
        if self.task is not None and asyncio.current_task() is not self.task:
            raise FlowError(
                f"{name} is called in a task of its own, so its place in the flow would depend on who is faster; "
                "use myna.apps.flow.gather, which gives each branch a place (and asyncio.timeout instead of wait_for)."
            )
        self.counts[name] += 1
        own = name if self.counts[name] == 1 else f"{name}#{self.counts[name]}"
        return f"{self.path}/{own}" if self.path else own

    def branch(self, path: str) -> "Scope":
        """A part of this scope with its own counting, for the task that asks."""
        return Scope(self.running, path, self.budget, asyncio.current_task(), self.attempt, self.key)


@dataclass(frozen=True, slots=True)
class Here:
    """The step that is being made.

    run       its number in the journal; None where there is no journal
    attempt   from 1: a seed that differs in each attempt, and is the same when the run is replayed
    key       for whoever takes an idempotency key: the same in all attempts at this step with these inputs, and in no other run
    """

    run: int | None
    path: str
    attempt: int
    key: str


def here() -> Here:
    """Raises FlowError outside of a step."""
    scope = SCOPE.get()
    if scope is None:
        raise FlowError("here() is asked outside of a step.")
    return Here(scope.running.run, scope.path, scope.attempt, scope.key)


def key_of(run_key: str, path: str, input_hash: str) -> str:
    return hashlib.sha256(f"{run_key}\n{path}\n{input_hash}".encode()).hexdigest()[:32]


async def gather(*branches: Coroutine[Any, Any, T], limit: int | None = None) -> list[T]:
    """What the branches return, in their order; at most `limit` of them at once.

    All are let to end, also where one fails: what is paid for is kept. Then the first failure, in their order, is raised, with the
    others in its notes. Cancelling it cancels them.
    """
    scope = SCOPE.get()
    place = scope.place("gather") if scope else ""
    room = asyncio.Semaphore(limit or len(branches) or 1)

    async def one(number: int, branch: Coroutine[Any, Any, T]) -> T:
        if scope:
            SCOPE.set(scope.branch(f"{place}[{number}]"))
        try:
            async with room:
                return await branch
        finally:
            branch.close()  # one that never began

    tasks = [asyncio.create_task(one(number, branch)) for number, branch in enumerate(branches)]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return _all_or_first_error(tasks)


def _all_or_first_error(tasks: "list[asyncio.Task[T]]") -> list[T]:
    errors = [error for task in tasks if (error := _error(task)) is not None]
    if not errors:
        return [task.result() for task in tasks]
    first = next((error for error in errors if isinstance(error, Halt)), errors[0])
    if others := [error for error in errors if error is not first]:
        first.beside = others  # type: ignore[attr-defined]
        first.add_note(f"{len(others)} more of {len(tasks)} branches failed.")
    raise first


def _error(task: "asyncio.Task[Any]") -> BaseException | None:
    return asyncio.CancelledError() if task.cancelled() else task.exception()
