"""Asking where whoever answers is not trusted to stop."""

from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any

from myna.checks.same import LONGEST
from myna.provider import Provider
from myna.records import Conversation, Delta, Reply, Sampling, fold
from myna.trace import here


async def ask(provider: Provider, what: Conversation, sampling: Sampling, most: int = LONGEST) -> Reply:
    """The answer; a stream that goes on past `most` characters a candidate, or past as many deltas, is closed, and what came is the
    answer: its candidates have no finish_reason then. Raises what the provider raises."""
    said: list[Delta] = []
    length, room = 0, most * (sampling.n or 1)
    async with aclosing(provider.stream(what, sampling)) as deltas:
        async for delta in deltas:
            said.append(delta)
            length += max(1, len(delta.text) + len(delta.reasoning))
            if length > room:
                break
    return fold(said)


async def say(provider: Provider, what: Conversation, sampling: Sampling, most: int = LONGEST) -> str:
    """The text of the one answer, or of as much of it as came; "" where there is none."""
    reply = await ask(provider, what, sampling, most)
    return reply.candidates[0].text[:most] if reply.candidates else ""


def step(kind: str, name: str, **facts: Any) -> AbstractContextManager[Any]:
    """A span below the one that is open here, where there is one; else nothing is recorded."""
    above = here()
    return above.trace.span(kind, name, **facts) if above else nullcontext()
