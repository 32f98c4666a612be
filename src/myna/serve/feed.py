"""One request's answer as it is made: the streams of all its prompts as one, safe to wait on and to abandon."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from enum import Enum
from typing import Self

from myna.provider import Provider
from myna.records import Conversation, Delta, Document, ProviderError, Sampling, Usage

# Deltas that wait for a slow reader. Beyond it the provider's stream is not read on, so memory does not grow.
AHEAD = 16


class _Sign(Enum):
    """What a feed's queue holds besides deltas and errors."""

    ENDED = "a prompt's stream has ended"
    PAUSE = "nothing came for a while"


class Feed:
    """Iterates over the deltas of every prompt: candidate k of prompt i is candidate i * n + k. The summed usage is last.

    With a `pause`, None comes whenever so many seconds went by without a delta.

    `async with Feed(...) as feed` returns when every prompt is admitted, and raises if one is refused. Leaving it
    closes every stream, wherever it stands. Waiting for the next delta may be cancelled; none is lost.
    """

    def __init__(
        self,
        provider: Provider,
        prompts: Sequence[Conversation | Document],
        sampling: Sampling,
        pause: float = math.inf,
    ):
        self._provider, self._prompts, self._sampling, self._pause = provider, prompts, sampling, pause
        self._queue: asyncio.Queue[Delta | Exception | _Sign] = asyncio.Queue(AHEAD)
        self._admitted: list[asyncio.Future[None]] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._running = len(prompts)
        self._usage: Usage | None = None
        self._heard = 0.0  # when the last delta, or pause, was read
        self._clock: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._admitted = [loop.create_future() for _ in self._prompts]
        # A task per stream: a generator is read, and closed, in the one task that started it.
        self._pumps = [asyncio.create_task(self._pump(i)) for i in range(len(self._prompts))]
        try:
            await asyncio.gather(*self._admitted)
        except BaseException:
            await self.__aexit__()
            raise
        self._heard = loop.time()
        self._watch()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._clock is not None:
            self._clock.cancel()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta | None:
        while self._running:
            item = await self._queue.get()
            self._heard = asyncio.get_running_loop().time()
            if item is _Sign.ENDED:
                self._running -= 1
            elif item is _Sign.PAUSE:
                return None
            elif isinstance(item, Exception):
                raise item
            elif isinstance(item, Delta):
                self._usage = _sum(self._usage, item.usage)
                return item if item.usage is None else replace(item, usage=None)
        if self._usage is None:
            raise StopAsyncIteration
        usage, self._usage = self._usage, None
        return Delta(usage=usage)

    def _watch(self) -> None:
        """Look once a pause whether anything came; a timeout around each wait would cost more than a token's other work."""
        if self._pause == math.inf:
            return
        loop = asyncio.get_running_loop()
        if loop.time() - self._heard >= self._pause:
            self._heard = loop.time()
            if self._queue.empty():
                self._queue.put_nowait(_Sign.PAUSE)
        self._clock = loop.call_at(self._heard + self._pause, self._watch)

    async def _pump(self, i: int) -> None:
        admitted = self._admitted[i]
        try:
            await self._read(i)
            await self._queue.put(_Sign.ENDED)
        except Exception as error:
            if admitted.done():
                await self._queue.put(error)
            else:
                admitted.set_exception(error)

    async def _read(self, i: int) -> None:
        n = self._sampling.n or 1
        unfinished = set(range(n))
        async with aclosing(self._provider.stream(self._prompts[i], self._sampling)) as deltas:
            async for delta in deltas:
                if not self._admitted[i].done():
                    self._admitted[i].set_result(None)
                if delta.finish_reason:
                    unfinished.discard(delta.candidate)
                await self._queue.put(replace(delta, candidate=delta.candidate + i * n) if i else delta)
        if unfinished:
            raise ProviderError(f"{self._provider.name} stopped before the answer was finished.")


def _sum(total: Usage | None, more: Usage | None) -> Usage | None:
    if total is None or more is None:
        return total or more
    return Usage(
        total.prompt_tokens + more.prompt_tokens,
        total.completion_tokens + more.completion_tokens,
        total.cached_tokens + more.cached_tokens,
    )
