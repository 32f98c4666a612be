"""One turn of the model: what it is sent, made to fit, and asked again where the provider fails."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import nullcontext
from dataclasses import dataclass, replace

from myna.apps.agent import window
from myna.apps.agent.agent import Agent, Compacted, Retried
from myna.apps.agent.session import Session
from myna.apps.agent.speech import WAYS, spoken
from myna.provider import Provider, complete
from myna.provider.budget import Budget, Budgeted
from myna.provider.traced import Traced
from myna.records import Conversation, Json, ProviderError, Reply, RequestError, Sampling, Unavailable
from myna.trace import Prices, Trace

TRIES = 3  # of one turn, where the provider fails
WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before another try, doubled each time


@dataclass
class Turns:
    """The model's turns in a session. `schemas`: of the tools it may call."""

    agent: Agent
    session: Session
    inner: Provider
    budget: Budget
    prices: Prices
    trace: Trace | None
    schemas: tuple[Json, ...]

    def __post_init__(self) -> None:
        asked = Traced(self.inner, self.trace) if self.trace else self.inner
        self.provider = Budgeted(asked, self.budget, self.prices)
        self.way = WAYS[spoken(self.agent, self.inner, frozenset(one["function"]["name"] for one in self.schemas))]
        self.room = window.room_of(self.agent, self.inner)
        paid = any(self.budget.left(name) is not None for name in ("tokens", "cost"))
        self.answer = self.agent.sampling.max_tokens or (window.TURN if paid else None)

    async def next(self) -> AsyncGenerator[Compacted | Retried | Reply, None]:
        """What happens until the model has said its turn, and last what it said. It is asked again where the provider fails or finds the
        request too long; each try is a call. Raises what the last one raised."""
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
                yield reply
                return

    async def _fitting(self) -> tuple[Conversation, Compacted | None]:
        """What the model is sent, in the room that it has, and what had to be told in short for that."""
        talk, room = self._talk(), self.room
        if room is None or (before := window.tokens(self.inner, talk)) <= room:
            return talk, None
        seen = self.trace.span("compact", self.agent.name, tokens=before, room=room) if self.trace else nullcontext()
        with seen as span:
            short = await window.compact(self.session, self.provider, room)
            text, by, messages = short or ("", "list", 0)
            talk, cut = window.clipped(self._talk(), self.inner, room)
            made = Compacted(messages, before, window.tokens(self.inner, talk), text, by, cut)
            if span:
                span.note(messages=messages, after=made.after, by=by, text=text, cut=cut)
        return talk, made

    def _talk(self) -> Conversation:
        return self.way.written(window.view(self.agent.instructions, self.session, self.schemas))

    def _sampling(self) -> Sampling:
        return self.way.sampled(replace(self.agent.sampling, max_tokens=self.answer))

    async def _sleep(self, seconds: float) -> None:
        left = self.budget.left("seconds")
        await asyncio.sleep(seconds if left is None else max(min(seconds, left), 0))


def _passes(error: ProviderError | Unavailable) -> bool:
    """Whether another try may help: the endpoint was busy, broke or fell silent, and did not refuse."""
    status = getattr(error, "status", None)
    return status is None or status >= 500 or status in (408, 429)
