"""A model of no weights: it says what it is given, through the real engine."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from myna.chat.byte_chat import byte_chat, ids_of
from myna.engine.request import Request
from myna.provider import complete
from myna.provider.answer import HIGH, Inbox
from myna.provider.local import Local
from myna.provider.replay import replay
from myna.records import Conversation, Delta, Document, Form, Sampling, Tokens

HI = Conversation.ask("Hi")
LONG = "All work and no play makes Jack a dull boy. " * 120


def say(provider: Local, what: Any = HI, **sampling: Any) -> Any:
    try:
        return asyncio.run(complete(provider, what, Sampling(**sampling)))
    finally:
        provider.close()


def all_free(provider: Local) -> bool:
    engine = provider.loop.engine
    return engine.idle and engine.scheduler.blocks.free == engine.scheduler.blocks.count and not engine._live


@pytest.mark.parametrize("text", ["Hello.", "你好，世界 👋", "", "a\nb\t\x00<|im_end|>"])
def test_bytes_there_and_back(text: str) -> None:
    tokenizer = byte_chat().tokenizer
    ids = tokenizer.encode(text)
    assert ids == [*text.encode()]
    assert b"".join(map(tokenizer.piece, ids)).decode() == text


def test_it_says_its_answers_in_order_token_for_token() -> None:
    provider = replay(["Hello, 世界", ids_of("two")])

    async def both() -> list[Any]:
        return [await complete(provider, HI), await complete(provider, HI)]

    one, two = asyncio.run(both())
    provider.close()
    assert (one.text, two.text) == ("Hello, 世界", "two")
    assert two.candidates[0].tokens.ids == (*b"two", 257)
    assert one.usage.prompt_tokens == len(byte_chat().render(HI).ids)


def test_what_is_not_finished_is_cut_by_max_tokens_and_stop_strings_are_found() -> None:
    assert say(replay(["abcdef"]), max_tokens=3).candidates[0].finish_reason == "length"
    assert say(replay(["abcdef"]), stop=("de",)).text == "abc"


def test_candidates_and_echoes() -> None:
    reply = say(replay(lambda request, k: ids_of(f"candidate {k}")), n=3)
    assert [c.messages[0].text for c in reply.candidates] == ["candidate 0", "candidate 1", "candidate 2"]
    assert say(replay(lambda request, k: request.ids), Document("", tokens=Tokens((65, 66)))).text == "AB"


def test_logprobs_are_certain() -> None:
    reply = say(replay(["ab"]), logprobs=2)
    assert [token.logprob for token in reply.sampled[0]] == [0.0, 0.0, 0.0]


def test_an_answer_that_breaks_its_form_ends_as_a_models_would() -> None:
    with pytest.raises(Exception, match="form"):
        say(replay(["not json"]), form=Form("regex", "[0-9]+"))


# Readers.


@pytest.mark.parametrize("n", [1, 4])
def test_a_reader_that_takes_nothing_stops_the_engine_and_misses_nothing_when_it_goes_on(n: int) -> None:
    provider = replay([LONG], kv_tokens=1 << 16)
    engine = provider.loop.engine

    async def read() -> list[str]:
        async with asyncio.timeout(60), aclosing(provider.stream(HI, Sampling(n=n))) as deltas:
            texts = [""] * n
            for _ in range(2):
                await anext(deltas)
            while engine.stats()["sequences_held"] < n:
                await asyncio.sleep(0.01)
            assert engine.scheduler.blocks.free == engine.scheduler.blocks.count
            made = sum(s.generated for s in engine.scheduler.held)
            assert HIGH <= made < n * len(LONG) // 2  # the steps in flight brought some more
            first = await anext(deltas)
            texts[first.candidate] += first.text
            async for delta in deltas:
                texts[delta.candidate] += delta.text
            return texts

    try:
        texts = asyncio.run(read())
    finally:
        provider.close()
    assert [LONG.endswith(text) and len(text) > len(LONG) - 4 for text in texts] == [True] * n


def test_a_slow_reader_is_held_as_often_as_it_falls_behind() -> None:
    orders: list[str] = []

    class Ticket:
        def hold(self) -> None:
            orders.append("hold")

        def resume(self) -> None:
            orders.append("resume")

    async def read() -> None:
        inbox = Inbox()
        inbox.ticket = Ticket()  # type: ignore[assignment]
        for _ in range(2):
            for _ in range(HIGH + 3):
                inbox.put(Delta(text="x"))
            for _ in range(HIGH + 3):
                await inbox.get()

    asyncio.run(read())
    assert orders == ["hold", "resume"] * 2


def test_who_leaves_before_the_first_token_waits_no_more() -> None:
    provider = replay(["ab"], seconds=0.2)

    async def read() -> None:
        async with aclosing(provider.stream(HI)) as deltas:
            await anext(deltas)
            assert provider.queued_tokens > 0
        assert provider.queued_tokens == 0

    asyncio.run(read())
    provider.close()


def test_an_answer_that_a_stop_string_ends_after_its_call_was_cut() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = '```json\n{"name": "f", "arguments": {}}\n```'
    for said, finish in ((call, "tool_calls"), (f"{call} so END", "stop")):
        (candidate,) = say(replay([said]), replace(HI, tools=(tool,)), stop=("END",)).candidates
        assert (len(candidate.messages[0].tool_calls), candidate.finish_reason) == (1, finish)


def test_what_candidates_share_with_each_other_was_not_cached() -> None:
    provider = replay(["ab", "ab"])
    prompt = Conversation.ask("x" * 100)
    shares = [asyncio.run(complete(provider, prompt, Sampling(n=3))).usage.cached_tokens for _ in range(2)]  # type: ignore[union-attr]
    provider.close()
    assert shares[0] == 0
    assert shares[1] > 90


def test_a_held_reader_that_leaves_leaves_nothing() -> None:
    provider = replay([LONG])

    async def read() -> None:
        async with asyncio.timeout(60), aclosing(provider.stream(HI)) as deltas:
            await anext(deltas)
            await anext(deltas)
            while not provider.stats()["sequences_held"]:
                await asyncio.sleep(0.01)
        while not all_free(provider):
            await asyncio.sleep(0.01)
        assert provider.queued_tokens == 0

    asyncio.run(read())
    provider.close()


def test_what_goes_behind_gives_way() -> None:
    """One place: the two that come later take it from the three that came first."""
    said: list[int] = []  # the priority of whoever got a token

    def answer(request: Request, candidate: int) -> list[int]:
        said.append(request.priority)
        return ids_of("x" * 30)

    provider = replay(answer, max_running=1)
    engine, run = provider.loop.engine, provider.loop.engine.runner.run

    def arrived() -> int:
        return engine._next_id + len(provider.loop._orders)

    def slowly(plan: Any) -> Any:
        while arrived() < 5:  # the engine waits until everybody is in the line
            time.sleep(0.001)
        return run(plan)

    async def all_of_them() -> None:
        behind = provider.behind()
        batch = [asyncio.create_task(complete(behind, HI)) for _ in range(3)]
        while arrived() < 3:
            await asyncio.sleep(0.001)
        await asyncio.gather(*batch, *(complete(provider, HI) for _ in range(2)))

    engine.runner.run = slowly  # type: ignore[method-assign]
    asyncio.run(all_of_them())
    provider.close()
    assert said[0] == 1
    assert said[1:] == [0] * 62 + [1] * 92


def test_tokens_in_the_queue_are_counted_until_the_first_one_comes() -> None:
    provider = replay(["ab"])
    prompt = len(byte_chat().render(HI).ids)

    async def read() -> list[int]:
        seen = []
        async with aclosing(provider.stream(HI)) as deltas:
            async for _ in deltas:
                seen.append(provider.queued_tokens)
        return [*seen, provider.queued_tokens]

    assert asyncio.run(read()) == [prompt, 0, 0, 0, 0]
    provider.close()
