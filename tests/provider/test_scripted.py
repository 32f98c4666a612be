"""Scripted keeps every promise of the provider protocol, so that a test on it means something for the others."""

import asyncio
from collections.abc import AsyncIterator
from itertools import cycle

import pytest

from myna.provider import Scripted, complete
from myna.provider.scripted import every
from myna.records import (
    Candidate,
    Conversation,
    Delta,
    Document,
    Message,
    ProviderError,
    Reply,
    RequestError,
    Sampled,
    Sampling,
    ToolCall,
    Unavailable,
    Usage,
)

HI = Conversation.ask("Hi")


def run(provider: Scripted, what: Conversation | Document = HI, sampling: Sampling = Sampling()) -> Reply:
    return asyncio.run(complete(provider, what, sampling))


async def collect(deltas: AsyncIterator[Delta]) -> list[Delta]:
    return [delta async for delta in deltas]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_pieces_join_to_the_script_however_it_is_cut(size: int) -> None:
    message = Message("assistant", "你好, world 👋", reasoning_content="先想一想")
    reply = run(Scripted([message], split=every(size)))
    assert (reply.text, reply.message.reasoning_content) == (message.text, message.reasoning_content)


def test_the_first_delta_is_empty_and_the_last_carries_the_usage() -> None:
    first, *_, last = asyncio.run(collect(Scripted(["abc"], split=every(1)).stream(HI)))
    assert (first, last) == (Delta(), Delta(usage=Usage(prompt_tokens=2, completion_tokens=3)))


@pytest.mark.parametrize("refusal", [RequestError("no"), Unavailable("later"), ProviderError("broken")])
def test_a_refusal_comes_before_anything_is_said(refusal: Exception) -> None:
    async def first() -> Delta:
        return await anext(Scripted([refusal]).stream(HI))

    with pytest.raises(type(refusal)):
        asyncio.run(first())


def test_a_failure_in_mid_answer_comes_after_the_text_and_without_a_finish_reason() -> None:
    heard: list[Delta] = []

    async def listen() -> None:
        async for delta in Scripted([("half an answer", ProviderError("the line is cut"))]).stream(HI):
            heard.append(delta)

    with pytest.raises(ProviderError, match="the line is cut"):
        asyncio.run(listen())
    assert "".join(d.text for d in heard) == "half an answer"
    assert all(d.finish_reason is None for d in heard)


def test_each_candidate_takes_a_turn_and_gets_one_finish_reason() -> None:
    reply = run(Scripted(["a", Candidate((Message("assistant", "b"),), finish_reason="length")]), HI, Sampling(n=2))
    assert [(c.text, c.finish_reason) for c in reply.candidates] == [("a", "stop"), ("b", "length")]


def test_a_reply_is_given_back_as_it_is() -> None:
    tokens = (Sampled(5, b"o", -0.5), Sampled(6, b"k", -0.25))
    first = run(Scripted(["ignored"]))
    reply = Reply(first.candidates, (tokens,), Usage(7, 2, 3))
    again = run(Scripted([reply]))
    assert (again.text, again.sampled, again.usage) == ("ignored", (tokens,), Usage(7, 2, 3))


def test_a_callable_answers_what_it_is_asked() -> None:
    echo = Scripted(cycle([lambda what: what.text.upper()]))
    assert [run(echo, Document(text)).text for text in ("one", "two")] == ["ONE", "TWO"]


def test_tool_calls_finish_as_tool_calls() -> None:
    call = ToolCall("c1", "population", '{"city": "巴黎"}')
    reply = run(Scripted([Message("assistant", "", tool_calls=(call,))]))
    assert (reply.message.tool_calls, reply.candidates[0].finish_reason) == ((call,), "tool_calls")


def test_logprobs_come_when_asked_for() -> None:
    asked = run(Scripted(["abcdefgh"]), HI, Sampling(logprobs=2)).sampled[0]
    silent = run(Scripted(["abcdefgh"])).sampled[0]
    assert [(t.logprob, len(t.top)) for t in asked] == [(-0.125, 2), (-0.25, 2)]
    assert [(t.logprob, len(t.top)) for t in silent] == [(None, 0), (None, 0)]


def test_it_remembers_what_it_was_asked_and_how_it_ended() -> None:
    provider = Scripted(["ok", RequestError("no"), "a long answer"])

    async def leave_early() -> None:
        deltas = provider.stream(HI)
        await anext(deltas)
        await deltas.aclose()

    run(provider, HI, Sampling(seed=1))
    with pytest.raises(RequestError):
        run(provider)
    asyncio.run(leave_early())
    assert [seen.outcome for seen in provider.requests] == ["finished", "failed", "closed"]
    assert provider.requests[0].sampling.seed == 1


def test_cancelling_the_reader_closes_the_stream() -> None:
    provider = Scripted(["never heard"], delay=3600)

    async def give_up() -> None:
        async with asyncio.timeout(0.01):
            await complete(provider, HI)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert provider.requests[0].outcome == "closed"


def test_a_script_that_has_run_out_says_so() -> None:
    with pytest.raises(ProviderError, match="run out: request 1"):
        run(Scripted([]))
