"""One dispatcher runs what a model asks for; whatever the tool or the model does, the outcome is bounded, named and in its place."""

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myna.apps.tools import Approvals, Asked, Dispatcher, Effect, Outcome, Tool, tool
from myna.records import Json, MynaError, ToolCall, ToolError


async def anything(arguments: Json) -> str | None:
    return None


def made(name: str, run: Any, effect: Effect = "read", **more: Any) -> Tool:
    return Tool(name, "A tool of the tests.", {"type": "object"}, effect, run, anything, **more)


async def fine(arguments: Json) -> str:
    return "fine"


async def yes(asked: Asked) -> bool:
    return True


def call(name: str, number: int = 0, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{number}", name, json.dumps(arguments))


def dispatch(tools: tuple[Tool, ...], *calls: ToolCall, tainted: bool = False, **more: Any) -> list[Outcome]:
    return asyncio.run(Dispatcher(tools, **more).dispatch(calls, tainted=tainted))


async def raises(arguments: Json) -> str:
    raise ValueError("boom")


async def says(arguments: Json) -> str:
    raise ToolError("no such town")


async def leaves(arguments: Json) -> str:
    sys.exit(3)


async def hangs(arguments: Json) -> str:
    await asyncio.Event().wait()
    return ""


async def clings(arguments: Json) -> str:
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue
    return "late"


async def cancels(arguments: Json) -> str:
    raise asyncio.CancelledError


async def returns_bytes(arguments: Json) -> Any:
    return b"\x00\xff"


async def floods(arguments: Json) -> str:
    return "水" * 5_000_000


async def half_a_character(arguments: Json) -> str:
    return "x\ud800y"


@tool(effect="read", timeout=0.2)
def sleeps() -> str:
    """Sleeps in its thread."""
    time.sleep(2)
    return ""


@tool(effect="read")
def endless() -> Any:
    """Gives no end of numbers."""
    import itertools

    return itertools.count()


@pytest.mark.parametrize(
    ("own", "status", "said"),
    [
        (made("t", fine), "ok", "fine"),
        (made("t", raises), "failed", "ValueError: boom"),
        (made("t", says), "error", "no such town"),
        (made("t", leaves), "failed", "SystemExit"),
        (made("t", hangs, timeout=0.05), "timeout", "within 0.05 seconds"),
        (made("t", clings, timeout=0.05), "timeout", "within 0.05 seconds"),
        (made("t", cancels), "failed", "cancelled itself"),
        (made("t", returns_bytes), "failed", "bytes"),
        (made("t", floods, cap=100), "ok", "[cut: 4999900 of 5000000 characters are not shown]"),
        (made("t", half_a_character), "ok", "x?y"),
        (replace(sleeps, name="t"), "timeout", "given up"),
        (replace(endless, name="t"), "error", "no text and no JSON"),
    ],
    ids=lambda v: v.run.__name__ if isinstance(v, Tool) else None,
)
def test_whatever_a_tool_does_the_outcome_is_bounded_and_named(own: Tool, status: str, said: str) -> None:
    (outcome,) = dispatch((own,), call("t"))
    assert outcome.status == status
    assert said in outcome.result
    assert len(outcome.result) < 2200
    assert outcome.message.tool_call_id == "call_0"
    outcome.result.encode()


def test_a_write_that_gave_no_answer_is_said_to_be_in_doubt() -> None:
    (outcome,) = dispatch((made("t", hangs, "write", timeout=0.05),), call("t"))
    assert "not known" in outcome.result
    assert outcome.ran


def test_a_tool_that_is_given_up_is_stopped() -> None:
    stopped: list[str] = []

    async def waits(arguments: Json) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append("stopped")
        return ""

    async def main() -> list[str]:
        await Dispatcher((made("t", waits, timeout=0.05),)).dispatch([call("t")], tainted=False)
        return list(stopped)

    assert asyncio.run(main()) == ["stopped"]


def test_what_is_cut_is_counted() -> None:
    (outcome,) = dispatch((made("t", floods, cap=1000),), call("t"))
    assert outcome.cut == 4_999_000
    assert outcome.result.startswith("水" * 1000 + "\n[cut")


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "{",
        "[]",
        "null",
        '"{}"',
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        '{"a":' * 90_000,
        "1" * 5000,
        '{"a":"' + "x" * (1 << 20) + '"}',
    ],
    ids=lambda text: text[:12],
)
def test_malformed_arguments_are_told_to_the_model_and_run_nothing(arguments: str) -> None:
    ran: list[Json] = []

    async def notes(given: Json) -> str:
        ran.append(given)
        return "ran"

    (outcome,) = dispatch((made("t", notes),), ToolCall("c", "t", arguments))
    assert (outcome.status, len(ran)) == (("ok", 1) if arguments == "" else ("invalid", 0))
    assert len(outcome.result) < 2200


def test_arguments_are_checked_against_the_schema() -> None:
    @tool(effect="write")
    def pay(cents: int) -> str:
        """Pay."""
        return "paid"

    wrong = [call("pay", 0, cents="5"), call("pay", 1), call("pay", 2, cents=5, to="me"), call("pay", 3, cents=5)]
    assert [o.status for o in dispatch((pay,), *wrong)] == ["invalid", "invalid", "invalid", "ok"]


def test_an_unknown_tool_is_told_what_there_is() -> None:
    (outcome,) = dispatch((made("known", fine),), ToolCall("c", "x" * 9999, "{}"))
    assert outcome.status == "unknown"
    assert "known" in outcome.result
    assert len(outcome.result) < 300


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(MynaError, match="'t'"):
        Dispatcher((made("t", fine), made("t", raises)))


def test_calls_beyond_the_most_are_not_run_and_said() -> None:
    outcomes = dispatch((made("t", fine),), *(call("t", i) for i in range(70)))
    assert Counter(o.status for o in outcomes) == {"ok": 64, "invalid": 6}
    assert [o.call.id for o in outcomes] == [f"call_{i}" for i in range(70)]


def test_reads_overlap_and_results_keep_the_order_of_the_calls() -> None:
    together = asyncio.Barrier(3)

    async def meets(arguments: Json) -> str:
        await together.wait()  # ends only if all three run at once
        return str(arguments["n"])

    async def main() -> list[Outcome]:
        calls = [call("t", i, n=i) for i in range(3)]
        return await Dispatcher((made("t", meets, timeout=5.0),)).dispatch(calls, tainted=False)

    assert [o.result for o in asyncio.run(main())] == ["0", "1", "2"]


def test_cancelling_stops_what_runs_and_begins_nothing() -> None:
    seen: list[str] = []

    async def main() -> tuple[list[str], Counter[str]]:
        begun = asyncio.Event()

        async def waits(arguments: Json) -> str:
            seen.append("begun")
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                seen.append("stopped")
            return ""

        async def writes(arguments: Json) -> str:
            seen.append("written")
            return ""

        desk = Dispatcher((made("r", waits), made("w", writes, "write")))
        finished: list[str] = []

        async def work() -> None:
            async for outcome in desk.outcomes([call("w", 0), call("r", 1), call("r", 2), call("w", 3)], tainted=False):
                finished.append(outcome.call.id)

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return finished, Counter(seen)  # before the loop ends and cancels whatever is left

    finished, counted = asyncio.run(main())
    assert finished == ["call_0"]  # the write that was done is known to whoever recorded it
    assert counted == {"written": 1, "begun": 2, "stopped": 2}


def test_a_tool_gets_its_own_copy_of_what_was_approved() -> None:
    got: list[Json] = []

    async def keeps(arguments: Json) -> str:
        got.append(json.loads(json.dumps(arguments)))
        return ""

    async def alters(asked: Asked) -> bool:
        schema["properties"] = {"bcc": {}}  # the definition that is asked about is no longer the one that runs
        return True

    schema: Json = {"type": "object"}
    own = Tool("send", "Send.", schema, "danger", keeps, anything)
    (outcome,) = dispatch((own,), call("send", to="a"), ask=alters)
    assert (outcome.status, got) == ("refused", [])


NAMES = ["read", "page", "write", "danger"]
one_call = st.tuples(
    st.sampled_from([*NAMES, "nothing", "__class__"]),
    st.one_of(st.just('{"n": 1}'), st.just('{"n": 2}'), st.just("{"), st.just('{"n": "x"}'), st.text(max_size=8)),
    st.sampled_from(["a", "b", ""]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    messages=st.lists(st.lists(one_call, max_size=6), max_size=4),
    answers=st.lists(st.sampled_from([True, False, None]), min_size=24, max_size=24),
    tainted=st.booleans(),
)
def test_nothing_that_must_ask_runs_without_a_yes(
    messages: list[list[tuple[str, str, str]]], answers: list[bool | None], tainted: bool
) -> None:
    """Invariant 1 and the taint rule, over random scripted models: writes that ran <= yes that was said, call by call; order and
    number of outcomes are those of the calls; a write never overlaps with anything."""
    ran: list[tuple[str, bool]] = []  # (name, whether the context was tainted then)
    running: list[str] = []
    said = iter(answers)
    granted: Counter[tuple[str, str]] = Counter()
    state = {"tainted": tainted}

    def body(name: str) -> Any:
        async def run(arguments: Json) -> str:
            assert not running or (name in ("read", "page") and not {"write", "danger"} & set(running))
            running.append(name)
            await asyncio.sleep(0)
            running.remove(name)
            ran.append((name, state["tainted"]))
            if name in ("write", "danger") and (state["tainted"] or name == "danger"):
                granted[name, json.dumps(arguments)] -= 1
                assert granted[name, json.dumps(arguments)] >= 0, "a call ran that nobody approved"
            return name

        return run

    async def ask(asked: Asked) -> bool | None:
        answer = next(said)
        if answer:
            granted[asked.tool, json.dumps(json.loads(asked.arguments))] += 1
        return answer

    async def check(arguments: Json) -> str | None:
        return None if arguments in ({"n": 1}, {"n": 2}) else "n is 1 or 2"

    effects: dict[str, Effect] = {"read": "read", "page": "read", "write": "write", "danger": "danger"}
    tools = tuple(
        Tool(name, "A tool.", {}, effects[name], body(name), check, untrusted=name == "page") for name in NAMES
    )

    async def main() -> None:
        desk = Dispatcher(tools, Approvals(), ask)
        for message in messages:
            calls = [ToolCall(id, name, arguments) for name, arguments, id in message]
            outcomes = await desk.dispatch(calls, tainted=state["tainted"])
            assert [o.call for o in outcomes] == calls
            assert all((o.status == "ok") == (o.result == o.call.name) for o in outcomes)
            state["tainted"] |= any(o.untrusted for o in outcomes)

    asyncio.run(main())
