"""The loop: ask the model, run its calls, ask again, until it answers or something says enough.

    ended = await run(agent, "How many cafes opened last year?", provider, ask=at_terminal)
    assert ended.reason == "done"

Every limit is looked at before it could be passed. Whatever ends it, and that is said, each call of the conversation has its result,
but for those that wait for an approval; so any session can be run again, with more limits, an approval or another question.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from myna.apps.agent import window
from myna.apps.agent.agent import Agent, Compacted, Ended, Event, Reason, Retried, Said
from myna.apps.agent.egress import answer_of
from myna.apps.agent.own import own_tools, reminded
from myna.apps.agent.session import Session
from myna.apps.agent.speech import WAYS, spoken
from myna.apps.agent.stall import stalled
from myna.apps.tools import Approvals, Ask, Dispatcher, Outcome, Tool, never, this_call
from myna.apps.tools.tool import canonical
from myna.provider import Provider, complete
from myna.provider.budget import Budget, Budgeted, BudgetExceeded, Limits
from myna.provider.traced import Traced
from myna.records import (
    Conversation,
    Json,
    MynaError,
    ProviderError,
    Reply,
    RequestError,
    Sampling,
    ToolCall,
    Unavailable,
)
from myna.trace import Prices, Trace

T = TypeVar("T")
TRIES = 3  # of one turn, where the provider fails
WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before another try, doubled each time
Keep = Callable[[Session], None]


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
        loop = _Loop(
            agent,
            session,
            provider,
            approvals or Approvals(),
            ask,
            budget,
            trace.prices if trace else prices,
            trace,
            keep,
        )
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
        asked = Traced(self.inner, self.trace) if self.trace else self.inner
        self.provider = Budgeted(asked, self.budget, self.prices)
        self.room = window.room_of(self.agent, self.inner)
        paid = any(self.budget.left(name) is not None for name in ("tokens", "cost"))
        self.answer = self.agent.sampling.max_tokens or (window.TURN if paid else None)
        tools = (*self.agent.tools, *own_tools(self.agent, self.session, self._help))
        tools = tuple(tool if tool.effect == "read" else self._begun(tool) for tool in tools)
        if self.trace:
            tools = tuple(_seen(tool, self.trace) for tool in tools)
        self.desk = Dispatcher(tools, self.approvals, self.ask, self.session.run)
        self.way = WAYS[spoken(self.agent, self.inner, frozenset(tool.name for tool in tools))]

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
            async with aclosing(self._answer()) as answers:
                async for event in answers:
                    yield event
            calls = self.session.open

    def _over(self) -> tuple[Reason, str] | None:
        """Why it should end here, by what is in the session alone."""
        session, last = self.session, self.session.messages[-1]
        if session.waiting:
            return "approval", f"{len(session.waiting)} calls wait for somebody to approve them"
        if last.role == "assistant" and not last.tool_calls:
            cut = last.meta.get("finish") == "length"
            return ("length", "the answer was cut: max_tokens, or what was left to spend") if cut else ("done", "")
        why = stalled(session.messages, self.agent.stall)
        return ("stalled", why) if why else None

    async def _answer(self) -> AsyncGenerator[Event, None]:
        """One turn of the model, tried again where the provider fails or finds it too long; each try is a call."""
        for attempt in range(TRIES):
            last = attempt == TRIES - 1
            talk, made = await self._fitting()
            if made:
                yield made
            try:
                reply = await complete(self.provider, talk, self._sampling())
            except (ProviderError, Unavailable) as e:
                if last or not _passes(e):
                    raise
                wait = min(max(WAIT * 2**attempt, getattr(e, "retry_after", 0)), LONGEST_WAIT)
                yield Retried(str(e), wait)
                await self._sleep(wait)
            except RequestError as e:
                if last or e.code != "context_length_exceeded":
                    raise
                if self.answer != window.TURN:
                    self.room = window.tokens(self.inner, talk) * 2 // 3
                self.answer = self.agent.sampling.max_tokens or window.ANSWER  # a short one may have room
            else:
                yield self._said(reply)
                return

    async def _fitting(self) -> tuple[Conversation, Compacted | None]:
        """What the model is sent, in the room that it has, and what had to be told in short for that."""
        talk, room = self._talk(), self.room
        if room is None or (before := window.tokens(self.inner, talk)) <= room:
            return talk, None
        with (
            self.trace.span("compact", self.agent.name, tokens=before, room=room)
            if self.trace
            else nullcontext() as span
        ):
            short = await window.compact(self.session, self.provider, room)
            text, by, messages = short or ("", "list", 0)
            talk, cut = window.clipped(self._talk(), self.inner, room)
            made = Compacted(messages, before, window.tokens(self.inner, talk), text, by, cut)
            if span:
                span.note(messages=messages, after=made.after, by=by, text=text, cut=cut)
        return talk, made

    async def _help(self, helper: Agent, session: Session) -> Ended:
        """Run a helper on a session of its own, within this budget."""
        given = {"approvals": self.approvals, "ask": self.ask, "budget": self.budget, "prices": self.prices}
        keep = {"keep": lambda _: self.keep(self.session)}  # which the helper's is in
        return await run(helper, session, self.inner, trace=self.trace, **given, **keep)  # type: ignore[arg-type]

    def _begun(self, tool: Tool) -> Tool:
        """The tool, after it is written down that it begins: a call that waited waits no longer."""

        async def work(arguments: Json) -> str:
            self.session.waiting.discard(this_call().id)
            self.keep(self.session)
            return await tool.run(arguments)

        return replace(tool, run=work)

    def _said(self, reply: Reply) -> Said:
        message = self.way.read(reply.message, len(self.session.messages))
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

    def _talk(self) -> Conversation:
        return self.way.written(window.view(self.agent.instructions, self.session, self.desk.schemas))

    def _sampling(self) -> Sampling:
        return self.way.sampled(replace(self.agent.sampling, max_tokens=self.answer))

    async def _sleep(self, seconds: float) -> None:
        left = self.budget.left("seconds")
        await asyncio.sleep(seconds if left is None else max(min(seconds, left), 0))

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


def _passes(error: ProviderError | Unavailable) -> bool:
    """Whether another try may help: the endpoint was busy, broke or fell silent, and did not refuse."""
    status = getattr(error, "status", None)
    return status is None or status >= 500 or status in (408, 429)


def _seen(tool: Tool, trace: Trace) -> Tool:
    """The tool, with a span around its work; what happens inside of it is below that."""

    async def work(arguments: Json) -> str:
        with trace.span("tool", tool.name, arguments=canonical(arguments), effect=tool.effect) as span:
            result = await tool.run(arguments)
            span.note(result=result)
            return result

    return replace(tool, run=work)
