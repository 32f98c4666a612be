"""A7: whatever a model does, no limit is ever passed, the end has a name, and the conversation is whole."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from apps_agent import World, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from myna.apps.agent import Agent, Limits, Session, run
from myna.apps.tools import Asked
from myna.provider import Scripted
from myna.records import Candidate, Message, ProviderError, Reply, RequestError, ToolCall, Unavailable, Usage
from myna.trace import Prices
from myna.trace.prices import Price

PRICES = Prices((Price("*", 2.0, 10.0, 0.5),))
names = st.sampled_from(
    ["population", "mail", "note", "wipe", "helper", "make_plan", "step_done", "pin", "answer", "nothing", ""]
)
arguments = st.one_of(
    st.sampled_from(
        ['{"city": "Lyon"}', '{"number": 1}', '{"text": "a"}', '{"what": "b"}', '{"task": "go"}', "{", "", "[]"]
    ),
    st.integers(0, 9).map(lambda i: json.dumps({"text": f"note {i} 笔记"})),
)
calls = st.lists(st.builds(ToolCall, st.sampled_from(["", "x", "y"]), names, arguments), max_size=4)
messages = st.builds(
    lambda text, made: Message("assistant", text, tool_calls=tuple(made)),
    st.sampled_from(["", "hm", "思考" * 30]),
    calls,
)
turns = st.one_of(
    messages,
    messages,
    st.sampled_from(["done", "", 'Action: note\nAction Input: {"text": "r"}', "Final Answer: x"]),
    st.builds(lambda m: Candidate((m,), finish_reason="length"), messages),
    st.sampled_from(
        [Unavailable("busy", retry_after=0), ProviderError("broke", status=500), ProviderError("no", status=401)]
    ),
    st.just(RequestError("long", code="context_length_exceeded")),
    st.just(("half", ProviderError("cut"))),
)
bounds = st.builds(
    lambda steps, calls, tokens, cost: Limits(steps=steps, calls=calls, tokens=tokens, cost=cost, seconds=20),
    st.integers(0, 6), st.integers(0, 8), st.one_of(st.none(), st.integers(0, 6000)), st.one_of(st.none(), st.floats(0, 0.01)),
)  # fmt: skip


class Counting(Scripted):
    """Says for sure what it took: what was generated, cut at max_tokens as an endpoint does, and the prompt at a byte a token."""

    async def stream(self, what: Any, sampling: Any = None) -> Any:  # type: ignore[override]
        from myna.provider.budget import prompt_at_most

        prompt, most, made = prompt_at_most(Scripted(), what) // 2, sampling.max_tokens, 0
        async for delta in Scripted.stream(self, what, sampling):
            if delta.usage:
                continue
            if most is not None and made + len(delta.tokens) > most:
                continue
            made += len(delta.tokens)
            cut = most is not None and made >= most and delta.finish_reason
            yield replace(delta, finish_reason="length") if cut else delta
        yield type(delta)(usage=Usage(prompt, made))


def spent(scripted: Scripted) -> int:
    return len(scripted.requests)


CASE = {
    "script": st.lists(turns, min_size=1, max_size=8),
    "limits": bounds,
    "inner": bounds,
    "speech": st.sampled_from(["native", "bound", "react"]),
    "window": st.sampled_from([None, 600, 3000]),
    "answer": st.sampled_from([True, False, None]),
}


@settings(max_examples=20)
@given(**CASE)
def test_no_limit_is_ever_passed(**case: Any) -> None:
    hold(**case)


@pytest.mark.slow
@settings(max_examples=1500)
@given(**CASE)
def test_no_limit_is_ever_passed_in_many_more_runs(**case: Any) -> None:
    hold(**case)


def hold(
    script: list[Any], limits: Limits, inner: Limits, speech: Any, window: int | None, answer: bool | None
) -> None:
    """A run of this model, gone on with once, passes no limit; whoever may not be asked has done nothing."""

    async def decide(asked: Asked) -> bool | None:
        return answer

    def endless() -> Any:
        while True:
            yield from script

    world = World()
    helper = Agent("helper", "", world.tools, limits=inner, about="Helps.")
    agent = Agent("a", "Be good.", world.tools, limits, speech=speech, helpers=(helper,), plan=True, window=window)
    provider = Counting(endless(), split=lambda text: [text[i : i + 8] for i in range(0, len(text), 8)])
    session = Session.of("任务: do it")
    for _ in range(2):  # and gone on with, within what is left
        ended = asyncio.run(run(agent, session, provider, ask=decide, prices=PRICES))
        for name in ("steps", "calls", "tokens", "cost"):
            most = getattr(limits, name)
            assert most is None or ended.spent[name] <= most + 1e-12, name
        assert len(provider.requests) <= agent.max_calls
        assert len(provider.requests) <= ended.spent["calls"]
        assert ended.reason in (
            "done",
            "steps",
            "calls",
            "tokens",
            "cost",
            "seconds",
            "stalled",
            "approval",
            "length",
            "error",
        )
        assert whole(ended.messages, waiting=len(ended.waiting))
        assert bool(ended.waiting) <= (answer is None)
        assert Session.from_json(json.loads(json.dumps(session.to_json())), ours=True) == session
        if answer is not True:
            assert not [one for one in world.done if one[0] == "wipe"]


@pytest.mark.parametrize("cost", [0.0001, 0.001])
def test_money_is_never_overspent_by_a_model_that_talks(cost: float) -> None:
    provider = Counting((Message("assistant", "言" * 5000) for _ in iter(int, 1)), split=lambda text: list(text))
    ended = asyncio.run(run(Agent("a", "", (), Limits(cost=cost)), "?", provider, prices=PRICES))
    assert ended.reason in ("cost", "length")
    assert ended.spent["cost"] <= cost


def test_a_helpers_calls_are_its_callers(world: World) -> None:
    helper = Agent("helper", "", world.tools, Limits(calls=50, steps=50), about="Helps.")
    agent = Agent("boss", "", (), Limits(calls=6), helpers=(helper,))
    number = iter(range(1000))

    def turn(talk: Any) -> Any:
        i = next(number)
        mine = any(one["function"]["name"] == "helper" for one in talk.tools)
        name, given = ("helper", {"task": f"t{i}"}) if mine else ("note", {"text": f"n{i}"})
        return Message("assistant", tool_calls=(ToolCall(f"c{i}", name, json.dumps(given)),))

    provider = Scripted(turn for _ in iter(int, 1))
    ended = asyncio.run(run(agent, "?", provider))
    assert (ended.reason, len(provider.requests), ended.spent["calls"]) == ("calls", 6, 6)


def test_a_reply_is_kept_when_its_tools_outlast_the_time(world: World) -> None:
    reply = Reply((Candidate((Message("assistant", "thinking", tool_calls=(ToolCall("a", "slow", "{}"),)),)),))
    from myna.apps.tools import tool

    @tool(effect="read")
    async def slow() -> str:
        """Slow."""
        await asyncio.sleep(30)
        return ""

    ended = asyncio.run(run(Agent("a", "", (slow,), Limits(seconds=0.3)), "?", Scripted([reply])))
    assert ended.reason == "seconds"
    assert [one.text for one in ended.messages if one.role == "assistant"] == ["thinking"]
    assert whole(ended.messages)
