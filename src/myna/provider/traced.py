"""A provider whose every call is recorded: exactly what was asked, what came, what it took, how it ended."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from myna.provider import Provider
from myna.records import Conversation, Delta, Document, Sampling, fold
from myna.trace import Trace


class Traced:
    """`provider`, recorded in `trace`. Each stream is one call; a wrapper that tries again makes several.

    A call that cannot be recorded when it begins is not made (TraceError): nothing is spent that nobody will see.
    """

    def __init__(self, provider: Provider, trace: Trace):
        self.inner, self.trace = provider, trace

    def __getattr__(self, name: str) -> Any:  # max_len, chat, defaults and the like are the provider's
        return getattr(self.inner, name)

    @property
    def name(self) -> str:
        return self.inner.name

    async def stream(
        self, what: Conversation | Document, sampling: Sampling = Sampling()
    ) -> AsyncGenerator[Delta, None]:
        """See Provider.stream."""
        version = what.meta.get("prompt")
        span = self.trace.begin("call", self.name, endpoint=str(getattr(self.inner, "base_url", "here")))
        said: list[Delta] = []
        try:
            span.ask(self.name, what, sampling, version if isinstance(version, str) else None)
            async with aclosing(self.inner.stream(what, sampling)) as deltas:
                async for delta in deltas:
                    said.append(delta)
                    yield delta
        except BaseException as e:
            span.fail(e)
            raise
        finally:
            if said:  # it was admitted, so it cost something, however it ended
                span.reply(self.name, fold(said), next((d.usage for d in reversed(said) if d.usage), None))
            span.end()
