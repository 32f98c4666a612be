"""A feed says when nothing comes, and only then."""

import asyncio
import math
from collections.abc import AsyncGenerator

import pytest

from myna.records import Conversation, Delta, Sampling, Usage
from myna.serve.feed import Feed


class Told:
    """A provider whose deltas come when the test says so."""

    name = "told"

    def __init__(self) -> None:
        self.deltas: asyncio.Queue[Delta] = asyncio.Queue()

    async def stream(self, what: object, sampling: Sampling = Sampling()) -> AsyncGenerator[Delta, None]:
        yield Delta()
        while True:
            delta = await self.deltas.get()
            yield delta
            if delta.usage is not None:
                return


END = Delta(text="!", finish_reason="stop", usage=Usage(1, 2, 0))


def feed_of(provider: Told, pause: float) -> Feed:
    return Feed(provider, [Conversation.ask("Hi")], Sampling(), pause)  # type: ignore[arg-type]


def test_silence_is_told_again_and_again_and_loses_nothing() -> None:
    async def listen() -> list[Delta | None]:
        provider = Told()
        async with feed_of(provider, 0.01) as feed:
            heard = [await anext(feed) for _ in range(4)]
            provider.deltas.put_nowait(END)
            return heard + [delta async for delta in feed if delta is not None]

    heard = asyncio.run(listen())
    assert heard == [Delta(), None, None, None, Delta(text="!", finish_reason="stop"), Delta(usage=END.usage)]


@pytest.mark.parametrize("pause", [1.0, math.inf])
def test_while_deltas_come_nothing_is_said_of_pauses(pause: float) -> None:
    """Also when together they take longer than a pause."""

    async def listen() -> list[Delta | None]:
        provider = Told()
        async with feed_of(provider, pause) as feed:
            clock = asyncio.get_running_loop()
            shown, skipped = clock.time, [0.0]
            clock.time = lambda: shown() + skipped[0]  # type: ignore[method-assign]
            heard = [await anext(feed)]
            for _ in range(5):
                skipped[0] += 0.7
                await asyncio.sleep(0)  # the clock is looked at
                provider.deltas.put_nowait(Delta(text="a"))
                heard.append(await anext(feed))
            provider.deltas.put_nowait(END)
            return heard + [delta async for delta in feed]

    assert None not in asyncio.run(listen())


def test_a_slow_reader_and_a_feed_that_was_left_keep_no_clock_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    watch = Feed._watch
    monkeypatch.setattr(Feed, "_watch", lambda feed: (looks.append(0.0), watch(feed)))

    async def listen() -> None:
        provider = Told()
        async with feed_of(provider, 0.01):  # its first delta is never read
            await asyncio.sleep(0.1)
        assert 3 < len(looks) < 15
        looks.clear()
        await asyncio.sleep(0.05)

    asyncio.run(listen())
    assert looks == []


def test_the_answers_of_several_prompts_are_one_and_so_is_what_they_used() -> None:
    class Counted(Told):
        async def stream(self, what: object, sampling: Sampling = Sampling()) -> AsyncGenerator[Delta, None]:
            for k in range(2):
                yield Delta(k, str(what), finish_reason="stop")
            yield Delta(usage=Usage(5, 7, 3))

    async def read() -> list[Delta | None]:
        async with Feed(Counted(), ["a", "b"], Sampling(n=2)) as feed:  # type: ignore[arg-type,list-item]
            return [delta async for delta in feed]

    *said, last = asyncio.run(read())
    assert sorted((delta.candidate, delta.text) for delta in said if delta and delta.text) == [
        (0, "a"), (1, "a"), (2, "b"), (3, "b"),
    ]  # fmt: skip
    assert last == Delta(usage=Usage(10, 14, 6))
