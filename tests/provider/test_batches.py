"""Texts of many requests share batches, and nobody notices."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from myna.provider.batches import Batches
from myna.records import ProviderError, Unavailable


class Machine:
    """Computes a text's upper case, notes its batches, and stands still while `gate` is closed."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, texts: list[str]) -> Sequence[str]:
        self.batches.append(texts)
        self.begun.set()
        self.gate.wait(10)
        if "bad" in texts:
            raise MemoryError
        return [text.upper() for text in texts]

    @property
    def seen(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


Case = Callable[[Machine, "Batches[str, str]"], Coroutine[Any, Any, None]]


def play(case: Case, *, budget: int = 10, most: int = 1000) -> Machine:
    machine = Machine()
    batches: Batches[str, str] = Batches(machine, budget=budget, most=most, name="it")
    try:
        asyncio.run(case(machine, batches))
    finally:
        machine.gate.set()
        batches.close()
    return machine


async def held(machine: Machine, batches: "Batches[str, str]") -> "asyncio.Task[list[str]]":
    """A first request, whose batch does not end while the gate is closed."""
    machine.gate.clear()
    machine.begun.clear()
    first = asyncio.create_task(batches.run(["first"]))
    await asyncio.to_thread(machine.begun.wait, 10)
    return first


def test_answers_come_in_the_order_of_the_texts_and_batches_keep_to_the_budget() -> None:
    texts = ["a" * n for n in (3, 9, 1, 30, 2, 5, 5, 1)]

    async def case(machine: Machine, batches: Batches[str, str]) -> None:
        assert await batches.run(texts) == [text.upper() for text in texts]
        assert await batches.run([]) == []
        assert batches.queued_tokens == 0

    machine = play(case)
    assert all(sum(map(len, batch)) <= 10 or len(batch) == 1 for batch in machine.batches)
    assert all(sorted(batch, key=len) == batch for batch in machine.batches)
    assert len(machine.batches) < len(texts)


def test_requests_take_turns() -> None:
    async def case(machine: Machine, batches: Batches[str, str]) -> None:
        first = await held(machine, batches)
        long = asyncio.create_task(batches.run(["llll"] * 50))
        await asyncio.sleep(0)
        short = asyncio.create_task(batches.run(["s"]))
        await asyncio.sleep(0)
        machine.gate.set()
        await asyncio.gather(first, long, short)

    assert "s" in play(case).batches[1]


def test_a_cancelled_request_takes_what_waits_with_it() -> None:
    async def case(machine: Machine, batches: Batches[str, str]) -> None:
        first = await held(machine, batches)
        gone = asyncio.create_task(batches.run(["gone"] * 50))
        other = asyncio.create_task(batches.run(["other"]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert batches.queued_tokens == len("other")
        machine.gate.set()
        assert await other == ["OTHER"]
        assert await first == ["FIRST"]

    assert play(case).seen == ["first", "other"]


def test_a_batch_that_fails_ends_its_requests_and_no_others() -> None:
    async def case(machine: Machine, batches: Batches[str, str]) -> None:
        first = await held(machine, batches)
        bad = asyncio.create_task(batches.run(["bad", "worse than bad"]))
        other = asyncio.create_task(batches.run(["some other"]))
        await asyncio.sleep(0)
        machine.gate.set()
        with pytest.raises(ProviderError, match="MemoryError"):
            await bad
        assert await first == ["FIRST"]
        assert await other == ["SOME OTHER"]
        assert await batches.run(["again"]) == ["AGAIN"]
        assert batches.queued_tokens == 0

    play(case)


def test_too_much_waiting_is_refused_unless_nothing_waits() -> None:
    async def case(machine: Machine, batches: Batches[str, str]) -> None:
        assert await batches.run(["x" * 100]) == ["X" * 100]  # more than may wait, and nobody is before it
        first = await held(machine, batches)
        waits = asyncio.create_task(batches.run(["w" * 15]))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="15 tokens wait for it already") as caught:
            await batches.run(["more than fits"])
        assert (caught.value.code, caught.value.retry_after) == ("queue_full", 1)
        machine.gate.set()
        await asyncio.gather(first, waits)

    play(case, most=20)


def test_closing_tells_who_waits() -> None:
    async def case(machine: Machine, batches: Batches[str, str]) -> None:
        first = await held(machine, batches)
        waits = asyncio.create_task(batches.run(["waits"]))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(batches.close))
        with pytest.raises(ProviderError, match="it was shut down"):
            await waits
        machine.gate.set()
        await closing
        assert await first == ["FIRST"]
        assert not batches.is_open
        with pytest.raises(Unavailable, match="it is shut down"):
            await batches.run(["late"])

    play(case)
