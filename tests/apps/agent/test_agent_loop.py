"""The loop works with tools, ends by itself under every limit with a named reason, and leaves a whole conversation however it ends."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from itertools import count, cycle, repeat
from pathlib import Path
from typing import Any

import pytest
from apps_agent import Speech, World, sent, whole

from myna.apps.agent import Agent, Ended, Limits, Retried, Said, Session, run, steps, turn
from myna.apps.tools import Approvals, Asked, later, tool
from myna.provider import Scripted
from myna.provider.powers import Powers
from myna.records import Candidate, Conversation, Message, MynaError, ProviderError, RequestError, ToolCall, Unavailable
from myna.trace import Trace
from myna.trace.read import runs, total

Clerk = Callable[..., Agent]


class Mute(Scripted):
    """An endpoint that was tried and called nothing."""

    powers = Powers(tools=False, tried=1.0)


async def yes(asked: Asked) -> bool:
    return True


def ran(agent: Agent, task: str | Session, script: Any, **more: Any) -> Ended:
    return asyncio.run(run(agent, task, Scripted(script), **more))


def test_a_question_is_answered_with_a_tool(clerk: Clerk, speech: Speech) -> None:
    script = Scripted(
        [speech.call("population", {"city": "Lyon"}, text="look it up"), speech.answer("522,000 people.")]
    )
    ended = asyncio.run(run(clerk(), "How many people live in Lyon?", script))
    assert (ended.reason, ended.answer, ended.tainted) == ("done", "522,000 people.", False)
    assert [one.status for one in ended.outcomes] == ["ok"]
    assert "522000" in sent(script)
    assert whole(ended.messages)
    assert (ended.spent["steps"], ended.spent["calls"]) == (2, 2)


def test_a_chinese_question_is_answered_with_two_calls_of_one_message(clerk: Clerk, speech: Speech) -> None:
    both = speech.calls(("population", {"city": "杭州"}), ("population", {"city": "Lyon"}), text="先查人口")
    ended = ran(clerk(), "杭州的人口是里昂的多少倍？", [both, speech.answer("约 24 倍。")])
    assert (ended.reason, ended.answer) == ("done", "约 24 倍。")
    assert [one.result for one in ended.outcomes] == ["12500000", "522000"]


def test_a_model_without_calls_of_its_own_is_asked_in_text() -> None:
    script = Mute(["Final Answer: yes"])
    ended = asyncio.run(run(Agent("clerk", "You help.", World().tools), "Well?", script))
    asked = script.requests[0]
    assert isinstance(asked.what, Conversation)
    assert (asked.what.tools, ended.answer) == ((), "yes")
    assert "Action Input" in asked.what.messages[0].text
    assert asked.sampling.stop == ("\nObservation:",)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(steps=3), "steps"),
        (Limits(calls=4), "calls"),
        (Limits(tokens=3_000), "tokens"),
        (Limits(seconds=0.2), "seconds"),
    ],
)
def test_a_model_that_never_ends_is_ended_by_each_limit(
    clerk: Clerk, speech: Speech, limits: Limits, reason: str
) -> None:
    number = count()
    script = Scripted(
        (lambda talk: speech.call("note", {"text": f"note {next(number)}"}) for _ in repeat(0)),
        delay=0.05 if limits.seconds else 0,
    )
    ended = asyncio.run(run(clerk(limits=limits), "Take notes.", script))
    assert ended.reason == reason, ended.detail
    assert whole(ended.messages)
    for name in ("steps", "calls", "tokens"):
        assert ended.spent[name] <= (getattr(limits, name) or 10**9)


@pytest.mark.parametrize("period", [1, 2, 3, 4])
def test_a_pattern_of_the_same_steps_is_a_stall(clerk: Clerk, speech: Speech, world: World, period: int) -> None:
    script = (speech.call("note", {"text": str(i)}) for i in cycle(range(period)))
    ended = ran(clerk(limits=Limits(steps=100, calls=100)), "Go on.", script)
    assert ended.reason == "stalled"
    assert len(world.done) == 3 * period


def test_the_same_arguments_in_another_spelling_are_the_same(clerk: Clerk, speech: Speech, world: World) -> None:
    spellings = ['{"city": "Lyon"}', '{"city":"Lyon"}', '{ "city" : "L\\u0079on" }']
    ended = ran(clerk(), "?", [speech.call("population", one) for one in spellings] + [speech.answer("?")])
    assert (ended.reason, len(world.done)) == ("stalled", 3)


def test_what_the_user_asks_for_again_is_no_stall(clerk: Clerk, speech: Speech, world: World) -> None:
    session = Session.of("Note a twice.")
    twice = [speech.call("note", {"text": "a"}), speech.call("note", {"text": "a"})]
    assert ran(clerk(limits=Limits(steps=2)), session, [*twice, speech.answer("?")]).reason == "steps"
    session.say("And twice again.")
    assert ran(clerk(), session, [*twice, speech.answer("noted")]).reason == "done"
    assert world.done == [("note", "a")] * 4


def test_a_result_that_changes_is_no_stall(speech: Speech) -> None:
    number = count()

    @tool(effect="read")
    def job() -> str:
        """How far the job is."""
        return f"{next(number)} of 10"

    script = [*(speech.call("job") for _ in range(8)), speech.answer("done")]
    assert ran(Agent("waiter", "", (job,), speech=speech.speech), "Wait for it.", script).reason == "done"


def test_an_order_that_is_refused_three_times_does_not_end_the_users_task(
    clerk: Clerk, speech: Speech, world: World
) -> None:
    ordered = [speech.call("wipe", {"what": "everything"}) for _ in range(3)]
    ended = ran(clerk(), "多少人？", [*ordered, speech.call("population", {"city": "杭州"}), speech.answer("12.5 M")])
    assert (ended.reason, ended.answer, world.done) == ("done", "12.5 M", [("population", "杭州")])


def test_a_refused_order_for_ever_is_a_stall(clerk: Clerk, speech: Speech, world: World) -> None:
    ended = ran(clerk(), "?", [speech.call("wipe", {"what": "everything"}) for _ in range(50)])
    assert (ended.reason, ended.spent["steps"], world.done) == ("stalled", 6, [])


def test_unknown_tools_for_ever_are_a_stall(clerk: Clerk, speech: Speech) -> None:
    ended = ran(clerk(), "?", (speech.call(f"tool_{i}", {"i": i}) for i in count()))
    assert (ended.reason, ended.spent["steps"]) == ("stalled", 6)
    assert {one.status for one in ended.outcomes} == {"unknown"}


def test_empty_answers_are_told_and_then_a_stall(clerk: Clerk) -> None:
    script = Scripted(cycle(["", "  \n", ""]))
    ended = asyncio.run(run(clerk(), "?", script))
    assert (ended.reason, ended.detail) == ("stalled", "3 empty answers, one after the other")
    assert "Your last answer was empty" in sent(script)


def test_a_model_may_come_to_itself_after_an_empty_answer(clerk: Clerk, speech: Speech) -> None:
    assert ran(clerk(), "?", ["", "", speech.answer("好的")]).answer == "好的"


def test_a_word_of_the_user_begins_the_count_anew(clerk: Clerk, speech: Speech) -> None:
    session = Session.of("first")
    agent = clerk(limits=Limits(steps=100, calls=100))
    for _ in range(3):
        same = [speech.call("population", {"city": "Lyon"})] * 2
        ended = ran(agent, session, [*same, speech.answer("522,000")])
        assert ended.reason == "done"
        session.say("Again.")


@pytest.mark.parametrize(
    "arguments",
    ["{", "[]", '{"city": "Lyon", "city": "Paris"}', "not json at all", '{"town": "Lyon"}', '{"city": 3}'],
)
def test_wrong_arguments_are_told_and_nothing_runs(clerk: Clerk, speech: Speech, world: World, arguments: str) -> None:
    ended = ran(clerk(), "?", [speech.call("population", arguments), speech.answer("sorry")])
    assert ([one.status for one in ended.outcomes], world.done, ended.reason) == (["invalid"], [], "done")


def test_megabytes_of_arguments_run_nothing_and_are_not_sent_back(clerk: Clerk, world: World) -> None:
    huge = Message("assistant", tool_calls=(ToolCall("a", "note", json.dumps({"text": "水" * 3_000_000})),))
    script = Scripted([huge, "fine"], split=lambda text: [text])
    ended = asyncio.run(run(clerk(speech="native"), "?", script))
    assert (ended.reason, ended.outcomes[0].status, world.done) == ("done", "invalid", [])
    assert len(json.dumps([message.to_json() for message in ended.messages])) < 10_000


def test_tools_that_raise_hang_or_flood_end_nothing(speech: Speech) -> None:
    @tool(effect="read")
    def breaks() -> str:
        """Breaks."""
        raise ValueError("boom")

    @tool(effect="write", timeout=0.1)
    async def hangs() -> str:
        """Hangs."""
        await asyncio.Event().wait()
        return ""

    @tool(effect="read")
    def floods() -> str:
        """Floods."""
        return "x" * 5_000_000

    script = [speech.call("breaks"), speech.call("hangs"), speech.call("floods"), speech.answer("well")]
    ended = ran(Agent("brave", "", (breaks, hangs, floods), speech=speech.speech), "?", script)
    assert ended.reason == "done"
    assert [one.status for one in ended.outcomes] == ["failed", "timeout", "ok"]
    assert sum(len(message.text) for message in ended.messages) < 30_000


@pytest.mark.parametrize(
    "trouble",
    [Unavailable("busy", retry_after=0), ProviderError("broke", status=500), ("half an ans", ProviderError("cut"))],
)
def test_a_provider_that_fails_twice_is_asked_again_visibly(
    clerk: Clerk, speech: Speech, trouble: Any, tmp_path: Path
) -> None:
    async def watched() -> list[Any]:
        script = Scripted([speech.call("note", {"text": "a"}), trouble, trouble, speech.answer("good")])
        async with aclosing(steps(clerk(), Session.of("?"), script, trace=trace)) as events:
            return [event async for event in events]

    trace = Trace(tmp_path / "trace.sqlite")
    events = asyncio.run(watched())
    assert [type(event).__name__ for event in events] == ["Said", "Outcome", "Retried", "Retried", "Said", "Ended"]
    assert (events[-1].reason, events[-1].spent["calls"], events[-1].spent["steps"]) == ("done", 4, 2)
    (told,) = runs(trace.store)
    assert (told.kind, total(told.spans).calls) == ("agent", 4)
    trace.close()


def test_each_wait_is_twice_the_last_and_no_less_than_was_asked_for_nor_more_than_is_left(
    clerk: Clerk, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(seconds: float) -> None:
        slept.extend([seconds] if seconds else [])  # a script's own are of no time

    async def waits(*troubles: Exception) -> list[float]:
        script = Scripted([*troubles, speech.answer("good")])
        agent = replace(clerk(), limits=Limits(seconds=60))
        async with aclosing(steps(agent, Session.of("?"), script)) as events:
            return [event.seconds async for event in events if isinstance(event, Retried)]

    slept: list[float] = []
    monkeypatch.setattr(turn, "WAIT", 2.0)
    monkeypatch.setattr(turn, "LONGEST_WAIT", 1000.0)
    monkeypatch.setattr(turn.asyncio, "sleep", sleep)
    assert asyncio.run(waits(ProviderError("broke"), ProviderError("broke"))) == [2.0, 4.0]
    assert asyncio.run(waits(Unavailable("busy", retry_after=7))) == [7]
    assert asyncio.run(waits(Unavailable("busy", retry_after=700))) == [700]
    assert slept[:3] == [2.0, 4.0, 7]
    assert slept[3] <= 60


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_provider_that_refuses_is_not_asked_again(clerk: Clerk, status: int) -> None:
    script = Scripted([ProviderError("no key", status=status)])
    ended = asyncio.run(run(clerk(), "?", script))
    assert (ended.reason, ended.detail, len(script.requests)) == ("error", "no key", 1)


def test_a_provider_that_keeps_failing_ends_it_and_loses_nothing(clerk: Clerk, speech: Speech, world: World) -> None:
    fails = [ProviderError("broke", status=503)] * 3
    session = Session.of("Note a and b.")
    ended = ran(clerk(), session, [speech.call("note", {"text": "a"}), *fails])
    assert (ended.reason, world.done) == ("error", [("note", "a")])
    assert "broke" in ended.detail
    again = ran(clerk(), session, [speech.answer("a is noted")])
    assert (again.reason, again.spent["steps"], world.done) == ("done", 3, [("note", "a")])


def test_a_request_that_is_at_fault_is_not_repeated(clerk: Clerk) -> None:
    script = Scripted([RequestError("no such model", param="model")])
    ended = asyncio.run(run(clerk(), "?", script))
    assert (ended.reason, len(script.requests)) == ("error", 1)


def test_an_answer_that_was_cut_is_not_done(clerk: Clerk, speech: Speech) -> None:
    said = speech.answer("The answer is")
    message = said if isinstance(said, Message) else Message("assistant", said)
    ended = ran(clerk(), "?", [Candidate((message,), finish_reason="length")])
    assert (ended.reason, ended.answer) == ("length", "The answer is")


def test_equal_ids_of_calls_are_told_apart(world: World) -> None:
    same = [Message("assistant", tool_calls=(ToolCall("x", "note", json.dumps({"text": t})),)) for t in "abc"]
    none = Message(
        "assistant", tool_calls=(ToolCall("", "note", '{"text": "d"}'), ToolCall("", "note", '{"text": "e"}'))
    )
    ended = ran(Agent("clerk", "", world.tools), "?", [*same, none, "done"])
    assert [text for _, text in world.done] == list("abcde")
    assert whole(ended.messages)


def test_cancelled_it_stops_the_model_and_leaves_the_session_whole(clerk: Clerk, speech: Speech) -> None:
    async def cancelled() -> tuple[Session, Scripted]:
        session = Session.of("?")
        long = speech.call("note", {"text": "b"}, text="a very long thought " * 50)
        script = Scripted([speech.call("note", {"text": "a"}), long], delay=0.01)
        task = asyncio.create_task(run(clerk(), session, script))
        while len(script.requests) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return session, script

    session, script = asyncio.run(cancelled())
    assert script.requests[-1].outcome == "closed"
    assert whole(tuple(session.messages))
    assert session.spent["steps"] == 2


def test_cancelled_it_stops_the_tools_that_run_and_says_what_is_in_doubt(speech: Speech) -> None:
    state: list[str] = []

    @tool(effect="write")
    async def slow(text: str) -> str:
        """Takes its time."""
        state.append("begun")
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            state.append("stopped")
            raise
        return text

    async def cancelled() -> Session:
        session = Session.of("?")
        script = Scripted([speech.calls(("slow", {"text": "a"}), ("slow", {"text": "b"}))])
        task = asyncio.create_task(run(Agent("slow", "", (slow,), speech=speech.speech), session, script))
        while not state:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return session

    session = asyncio.run(cancelled())
    assert state == ["begun", "stopped"]
    assert whole(tuple(session.messages))
    assert all("Whether it had its effect is not known" in one.text for one in session.messages if one.role == "tool")


def test_a_run_is_in_the_trace_with_its_tools_and_its_end(clerk: Clerk, speech: Speech, tmp_path: Path) -> None:
    trace = Trace(tmp_path / "trace.sqlite")
    script = [speech.call("population", {"city": "Lyon"}), speech.call("nothing"), speech.answer("522,000")]
    ran(clerk(), "?", script, trace=trace)
    (told,) = runs(trace.store)
    assert [node.kind for node in told.below] == ["call", "tool", "call", "tool", "call"]
    assert told.facts["reason"] == "done"
    assert told.below[1].facts["result"] == "522000"
    assert told.below[3].facts["status"] == "unknown"
    trace.close()


def test_a_run_makes_no_more_calls_than_it_says(clerk: Clerk, speech: Speech) -> None:
    agent = clerk(limits=Limits(steps=50, calls=7))
    number = count()
    script = Scripted(
        speech.call("note", {"text": str(next(number))}) if i % 2 else ProviderError("x") for i in count()
    )
    asyncio.run(run(agent, "?", script))
    assert len(script.requests) == agent.max_calls == 7


def test_what_stops_an_agent_is_said_before_it_runs() -> None:
    with pytest.raises(MynaError, match="stall is 1"):
        Agent("a", "", stall=1)
    assert Agent("a", "").max_calls == 40


def test_said_events_are_numbered(clerk: Clerk, speech: Speech) -> None:
    async def watched() -> list[int]:
        script = Scripted([speech.call("note", {"text": "a"}), speech.answer("b")])
        async with aclosing(steps(clerk(), Session.of("?"), script)) as events:
            return [event.step async for event in events if isinstance(event, Said)]

    assert asyncio.run(watched()) == [1, 2]


def test_calls_that_wait_end_it_and_are_dispatched_again(
    clerk: Clerk, speech: Speech, world: World, tmp_path: Path
) -> None:
    approvals = Approvals(tmp_path / "approvals.sqlite")
    session = Session.of("Clean up.")
    ended = ran(clerk(), session, [speech.call("wipe", {"what": "tmp"})], approvals=approvals, ask=later)
    assert (ended.reason, len(ended.waiting), world.done) == ("approval", 1, [])
    assert whole(ended.messages, waiting=1)
    again = ran(clerk(), session, [], approvals=approvals, ask=later)
    assert (again.reason, world.done) == ("approval", [])
    (asked,) = approvals.waiting()
    approvals.decide(asked.id, True)
    last = ran(clerk(), session, [speech.answer("gone")], approvals=approvals, ask=later)
    assert (last.reason, world.done) == ("done", [("wipe", "tmp")])
    assert whole(last.messages)


def test_an_approved_call_that_was_killed_is_in_doubt_and_is_not_asked_for_again(
    clerk: Clerk, speech: Speech, world: World, tmp_path: Path
) -> None:
    approvals, session = Approvals(tmp_path / "approvals.sqlite"), Session.of("清理 tmp")
    ran(clerk(), session, [speech.call("wipe", {"what": "临时"})], approvals=approvals, ask=later)
    stored = session.to_json()  # what a kill -9 in the middle of the write leaves: it waits, and its approval is used
    approvals.decide(approvals.waiting()[0].id, True)
    ran(clerk(), session, [speech.answer("gone")], approvals=approvals, ask=later)
    back = Session.from_json(stored, ours=True)
    ended = ran(clerk(), back, [speech.answer("?")], approvals=approvals, ask=later)
    assert (ended.reason, approvals.waiting(), world.done) == ("done", [], [("wipe", "临时")])
    assert "Whether it had its effect is not known" in ended.messages[-2].text
