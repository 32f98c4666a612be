"""The loop: ask the model, run its calls, ask again, until it answers or something says enough.

    ended = await run(agent, "How many cafes opened last year?", provider, ask=at_terminal)
    assert ended.reason == "done"

Every limit is looked at before it could be passed. Whatever ends it, and that is said, each call of the conversation has its result,
but for those that wait for an approval; so any session can be run again, with more limits, an approval or another question.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field, fields
from typing import TypeVar

from myna.apps.agent.agent import Agent, Ended, Event, Reason, Said
from myna.apps.agent.desk import Keep, desk_of
from myna.apps.agent.egress import answer_of
from myna.apps.agent.own import reminded
from myna.apps.agent.session import Session
from myna.apps.agent.stall import stalled
from myna.apps.agent.turn import Turns
from myna.apps.tools import Approvals, Ask, Outcome, never
from myna.provider import Provider
from myna.provider.budget import Budget, BudgetExceeded, Limits
from myna.records import MynaError, Reply, ToolCall
from myna.records.language import counted
from myna.trace import Prices, Trace

T = TypeVar("T")


def _nowhere(session: Session) -> None:
    """It is in memory alone."""


async def run(agent: Agent, task: str | Session, provider: Provider, *, approvals: Approvals | None = None, ask: Ask = never,
              budget: Budget | None = None, prices: Prices = Prices(), trace: Trace | None = None, keep: Keep = _nowhere) -> Ended:  # fmt: skip
    """Work on a task, or go on with a session. See `steps`."""
    session = Session.of(task) if isinstance(task, str) else task
    given = {"approvals": approvals, "ask": ask, "budget": budget, "prices": prices, "trace": trace, "keep": keep}
    last: Event | None = None
    async with aclosing(steps(agent, session, provider, **given)) as events:  # type: ignore[arg-type]
        async for event in events:
            last = event
    assert isinstance(last, Ended)
    return last


async def steps(agent: Agent, session: Session, provider: Provider, *, approvals: Approvals | None = None, ask: Ask = never,
                budget: Budget | None = None, prices: Prices = Prices(), trace: Trace | None = None, keep: Keep = _nowhere,
                ) -> AsyncGenerator[Event, None]:  # fmt: skip
    """What happens, as it happens, and as the last event how it ended. Close it (contextlib.aclosing).

    approvals, ask  as a Dispatcher takes them
    budget          above the agent's own limits
    trace           where the run is recorded, with prices of its own
    keep            writes the session down: before each event is told, and before a tool that writes begins. So of a write that was
                    cut off, whoever kept the session knows that it is in doubt, and it is not made again. What it raises ends the run

    Cancelled or closed, it stops the model and the tools that run, and leaves the session whole. Raises nothing of the provider's:
    that is the reason "error".
    """
    with trace.span("agent", agent.name, run=session.run) if trace else nullcontext() as span:
        costs = trace.prices if trace else prices
        loop = _Loop(agent, session, provider, approvals or Approvals(), ask, budget, costs, trace, keep)
        async with aclosing(loop.events()) as events:
            async for event in events:
                session.spent = loop.spent()
                keep(session)
                if span and isinstance(event, Ended):
                    span.note(reason=event.reason, detail=event.detail, spent=event.spent, tainted=event.tainted)
                yield event


@dataclass
class _Loop:
    agent: Agent
    session: Session
    inner: Provider
    approvals: Approvals
    ask: Ask
    above: Budget | None
    prices: Prices
    trace: Trace | None
    keep: Keep
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before, self.began = dict(self.session.spent), time.monotonic()
        self.budget = Budget(_left(self.agent.bounds, self.before), parent=self.above)
        given = (self.approvals, self.ask, self.keep, self.trace)
        self.desk = desk_of(self.agent, self.session, self._help, *given)
        self.turns = Turns(
            self.agent, self.session, self.inner, self.budget, self.prices, self.trace, self.desk.schemas
        )

    async def events(self) -> AsyncGenerator[Event, None]:
        reason: Reason
        try:
            async with aclosing(self._turns()) as turns:
                async for event in turns:
                    yield event
            reason, detail = self._over() or ("error", "it ended, and nobody knows why")
        except BudgetExceeded as e:
            reason, detail = e.limit, str(e)  # type: ignore[assignment]
        except MynaError as e:
            reason, detail = "error", str(e)
        finally:
            self.session.settle()
            self.session.spent = self.spent()
        yield self._ended(reason, detail)

    async def _turns(self) -> AsyncGenerator[Event, None]:
        """Turn after turn, until something says enough. Calls that waited, when it stopped before, are dispatched again."""
        for call in self.session.open:  # approved, begun and cut off, it is in doubt; a helper goes on where it was
            if call.id not in self.session.children and self.approvals.used(self.session.run, call.id):
                self.session.waiting.discard(call.id)
        waited = [call for call in self.session.open if call.id in self.session.waiting]
        self.session.settle()
        if self.agent.memory:
            await reminded(self.agent.memory, self.session)
        calls: Sequence[ToolCall] = waited
        while True:
            async with aclosing(self._dispatch(calls)) as outcomes:
                async for outcome in outcomes:
                    yield outcome
            if self._over():
                return
            self.budget.step()
            async with aclosing(self.turns.next()) as turn:
                async for event in turn:
                    yield self._said(event) if isinstance(event, Reply) else event
            calls = self.session.open

    def _over(self) -> tuple[Reason, str] | None:
        """Why it should end here, by what is in the session alone."""
        session, last = self.session, self.session.messages[-1]
        if session.waiting:
            waiting = counted(len(session.waiting), "call waits", "calls wait")
            return "approval", f"{waiting} for somebody to approve"
        if last.role == "assistant" and not last.tool_calls:
            cut = last.meta.get("finish") == "length"
            return ("length", "the answer was cut: max_tokens, or what was left to spend") if cut else ("done", "")
        why = stalled(session.messages, self.agent.stall)
        return ("stalled", why) if why else None

    async def _help(self, helper: Agent, session: Session) -> Ended:
        """Run a helper on a session of its own, within this budget."""
        given = {"approvals": self.approvals, "ask": self.ask, "budget": self.budget, "prices": self.prices}
        keep = {"keep": lambda _: self.keep(self.session)}  # which the helper's is in
        return await run(helper, session, self.inner, trace=self.trace, **given, **keep)  # type: ignore[arg-type]

    def _said(self, reply: Reply) -> Said:
        message = self.turns.way.read(reply.message, len(self.session.messages))
        kept = self.session.turn(message, reply.candidates[0].finish_reason)
        return Said(int(self.spent()["steps"]), kept, reply.usage)

    async def _dispatch(self, calls: Sequence[ToolCall]) -> AsyncGenerator[Outcome, None]:
        """The outcomes of calls, each in the session before it is told."""
        async with aclosing(self.desk.outcomes(calls, tainted=self.session.tainted)) as outcomes:
            while (outcome := await self._in_time(anext(outcomes, None))) is not None:
                self.session.take(outcome)
                self.outcomes.append(outcome)
                if self.trace and not outcome.ran:
                    self.trace.begin("tool", outcome.call.name, status=outcome.status, said=outcome.result).end()
                yield outcome

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self.budget.left("seconds")):
                return await work
        except TimeoutError:
            raise BudgetExceeded("the time is over.", limit="seconds") from None

    def spent(self) -> dict[str, float]:
        now = self.budget.spent | {"seconds": time.monotonic() - self.began}
        return {name: self.before.get(name, 0) + spent for name, spent in now.items()}

    def _ended(self, reason: Reason, detail: str) -> Ended:
        session = self.session
        answer, links = answer_of(session)
        waiting = tuple(call for call in session.open if call.id in session.waiting)
        return Ended(
            reason=reason, detail=detail, answer=answer, links=links, messages=tuple(session.messages),
            outcomes=tuple(self.outcomes), waiting=waiting, spent=dict(session.spent), tainted=session.tainted, session=session,
        )  # fmt: skip


def _left(limits: Limits, spent: Mapping[str, float]) -> Limits:
    """What is left of limits."""
    given = {f.name: getattr(limits, f.name) for f in fields(limits)}
    return Limits(**{name: None if most is None else max(most - spent.get(name, 0), 0) for name, most in given.items()})
