"""Flows: what is finished stays finished, what is paid for is kept, and nothing is done twice."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from myna.apps.flow import FlowError, Journal, StepFailed, flow, gather, here, resume, run, step
from myna.provider import Provider, Scripted, complete
from myna.provider.budget import BudgetExceeded
from myna.records import Conversation, RequestError
from myna.trace import Trace
from myna.trace.read import tree

made: list[str] = []  # what steps did, in the order in which they did it


@pytest.fixture(autouse=True)
def _none_made() -> None:
    made.clear()


class Intent(BaseModel):
    """A pydantic model, as some write them."""

    kind: str
    sure: float


@dataclass(frozen=True)
class Rewritten:
    question: str
    tags: tuple[str, ...] = ()


@step
async def intent(question: str) -> Intent:
    made.append(f"intent {question}")
    return Intent(kind="问题", sure=0.1 + 0.2)


@step
async def rewrite(question: str, kind: Intent) -> Rewritten:
    made.append(f"rewrite {question}")
    return Rewritten(question + "?", ("a", kind.kind))


@step
async def answer(asked: Rewritten, *, provider: Provider) -> str:
    made.append("answer")
    return (await complete(provider, Conversation.ask(asked.question))).text


@flow(max_calls=answer.max_calls)
async def desk(question: str, *, provider: Provider) -> dict[str, Any]:
    kind = await intent(question)
    asked = await rewrite(question, kind)
    text = await answer(asked, provider=provider)
    return {"kind": kind.kind, "sure": kind.sure, "tags": list(asked.tags), "text": text}


@pytest.mark.parametrize("question", ["why", "为什么"])
def test_a_flow_is_a_plain_function(question: str) -> None:
    said = asyncio.run(desk(question, provider=Scripted(["because"])))
    assert said == {"kind": "问题", "sure": 0.1 + 0.2, "tags": ["a", "问题"], "text": "because"}


@pytest.mark.parametrize("question", ["why", "为什么"])
def test_what_is_finished_is_not_made_again_and_gives_the_same(journal: Journal, question: str) -> None:
    first = asyncio.run(run(desk, journal, {"question": question}, {"provider": Scripted([ValueError("no line")])}))
    assert (first.outcome, first.path) == ("failed", "answer")
    assert "ValueError: no line" in first.error
    made.clear()
    ended = asyncio.run(resume(desk, journal, first.run, {"provider": Scripted(["because"])}))
    assert made == ["answer"]
    assert ended.value == asyncio.run(desk(question, provider=Scripted(["because"])))
    made.clear()
    assert asyncio.run(resume(desk, journal, first.run, {"provider": Scripted([])})).value == ended.value
    assert made == []


def test_the_order_in_which_an_input_says_its_names_makes_no_other_input(journal: Journal) -> None:
    @step
    async def counted(facts: dict[str, int]) -> int:
        made.append("counted")
        return sum(facts.values())

    @step
    async def fails(number: int) -> int:
        if names == ["一", "b"]:
            raise ValueError("not yet")
        return number

    @flow
    async def sums() -> int:
        return await fails(await counted({name: len(name) for name in names}))

    names = ["一", "b"]
    ended = asyncio.run(run(sums, journal, {}))
    assert ended.outcome == "failed"
    names = ["b", "一"]
    assert asyncio.run(resume(sums, journal, ended.run)).value == 2
    assert made == ["counted"]


def test_a_journal_of_another_time_is_read_by_another_process(journal: Journal) -> None:
    """Nothing that a resume needs is in memory."""
    first = asyncio.run(run(desk, journal, {"question": "q"}, {"provider": Scripted([ValueError()])}))
    journal.close()
    other = Journal(journal.path)
    assert asyncio.run(resume(desk, other, first.run, {"provider": Scripted(["ok"])})).outcome == "done"


def test_every_step_is_a_span_with_its_calls_below(journal: Journal, tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    from myna.provider.traced import Traced

    ended = asyncio.run(
        run(desk, journal, {"question": "q"}, {"provider": Traced(Scripted(["ok"]), trace)}, trace=trace)
    )
    assert ended.span
    node = tree(trace.store, ended.span)
    assert [(one.kind, one.name) for one in node.below] == [("step", "intent"), ("step", "rewrite"), ("step", "answer")]
    assert [one.kind for one in node.below[2].below] == ["call"]
    assert journal.run(ended.run).span == ended.span


class Plain:
    pass


@dataclass(frozen=True)
class Pair:
    a: int


def returning(hint: Any, value: Any) -> Callable[[], Any]:
    async def odd() -> Any:
        return value

    odd.__annotations__["return"] = hint
    return odd


@pytest.mark.parametrize(
    ("hint", "value", "why"),
    [
        (float, float("nan"), "output"), (Any, {1, 2}, "set"), (Any, (1, 2), "gives"), (Any, {1: 2}, "gives"), (int, "seven", "int"),
        (str, "half \ud800", "JSON"), (str, "x" * (9 << 20), "can be kept"), (Any, Plain(), "JSON"), (int, 2**70, "JSON"), (Any, b"\xff", "JSON"),
        (Any, Pair(1), "gives"), (bool, 1, "gives"),
    ],
)  # fmt: skip
def test_what_json_does_not_give_back_is_refused(journal: Journal, hint: Any, value: Any, why: str) -> None:
    odd = step(returning(hint, value))

    @flow
    async def odd_flow() -> None:
        await odd()

    ended = asyncio.run(run(odd_flow, journal, {}))
    assert (ended.outcome, ended.path) == ("failed", "odd")
    assert why in ended.error
    with pytest.raises(StepFailed, match="output"):
        asyncio.run(odd())


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_too_deep_is_an_error_and_no_crash() -> None:
    with pytest.raises(StepFailed):
        asyncio.run(step(returning(Any, deep(100_000)))())


def test_inputs_are_data_and_means_stand_after_the_star() -> None:
    with pytest.raises(FlowError, match=r"provider is no data.*after a \*"):

        @step
        async def a(provider: Provider) -> str:
            return ""

    with pytest.raises(FlowError, match=r"k is data.*before the \*"):

        @step
        async def b(*, k: int = 3) -> str:
            return ""

    with pytest.raises(FlowError, match="question has no type"):

        @step
        async def c(question) -> str:  # type: ignore[no-untyped-def]
            return ""

    with pytest.raises(FlowError, match="async def"):

        @step  # type: ignore[arg-type]
        def d() -> str:
            return ""

    with pytest.raises(FlowError, match="max_calls"):

        @flow
        async def e(*, provider: Provider) -> str:
            return ""


def test_wrong_inputs_are_refused_before_anything_is_done(journal: Journal) -> None:
    with pytest.raises(FlowError, match="question"):
        asyncio.run(run(desk, journal, {}, {"provider": Scripted([])}))
    with pytest.raises(FlowError, match="question"):
        asyncio.run(run(desk, journal, {"question": 7}, {"provider": Scripted([])}))
    with pytest.raises(RequestError, match="no run 7"):
        asyncio.run(resume(desk, journal, 7, {"provider": Scripted([])}))
    assert journal.runs() == []


@step(calls=2, retry=1)
async def greedy(n: int, *, provider: Provider) -> str:
    for _ in range(n):
        await complete(provider, Conversation.ask("?"))
    if n == 2:
        raise ValueError("again")
    return "ok"


@flow(max_calls=3)
async def spender(n: int, *, provider: Provider) -> str:
    return await greedy(n, provider=provider)


@pytest.mark.parametrize(("n", "made_calls", "why"), [(1, 1, ""), (2, 3, "budget"), (3, 2, "budget")])
def test_no_call_is_made_beyond_what_a_step_and_its_flow_declare(
    journal: Journal, n: int, made_calls: int, why: str
) -> None:
    """n = 2: the step may make 2 calls, twice, but the flow only 3 in all."""
    provider = Scripted(["x"] * 9)
    ended = asyncio.run(run(spender, journal, {"n": n}, {"provider": provider}))
    assert len(provider.requests) == made_calls
    assert ended.outcome == (why or "done")
    if why:
        with pytest.raises(BudgetExceeded):
            asyncio.run(spender(n, provider=Scripted(["x"] * 9)))
    rows = journal.steps(ended.run)
    assert sum(row.calls or 0 for row in rows) == made_calls


async def slow(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return name


@step
async def first(name: str, seconds: float) -> str:
    made.append(f"first {name}")
    return await slow(name, seconds)


@step
async def second(name: str) -> str:
    made.append(f"second {name}")
    if "-" in name:
        raise ValueError(name)
    return f"{name} at {here().path}"


async def branch(name: str, seconds: float) -> str:
    return await second(await first(name, seconds))


@flow
async def wide(names: list[str], seconds: list[float]) -> list[str]:
    return await gather(*(branch(name, s) for name, s in zip(names, seconds, strict=True)), limit=2)


@pytest.mark.parametrize("seconds", [[0.0, 0.02, 0.01], [0.03, 0.0, 0.0]])
def test_paths_do_not_depend_on_who_is_faster(journal: Journal, seconds: list[float]) -> None:
    ended = asyncio.run(run(wide, journal, {"names": ["a", "二", "c"], "seconds": seconds}))
    assert ended.value == ["a at gather[0]/second", "二 at gather[1]/second", "c at gather[2]/second"]


def test_a_branch_that_fails_does_not_lose_the_others(journal: Journal) -> None:
    ended = asyncio.run(run(wide, journal, {"names": ["-", "b", "-c"], "seconds": [0.0, 0.02, 0.0]}))
    assert (ended.outcome, ended.path) == ("failed", "gather[0]/second")
    assert sorted(made) == ["first -", "first -c", "first b", "second -", "second -c", "second b"]
    made.clear()
    asyncio.run(resume(wide, journal, ended.run))
    assert sorted(made) == ["second -", "second -c"]


def test_steps_in_tasks_of_their_own_are_refused(journal: Journal) -> None:
    @flow
    async def racing() -> list[str]:
        return list(await asyncio.gather(branch("a", 0.0), branch("b", 0.0)))

    ended = asyncio.run(run(racing, journal, {}))
    assert ended.outcome == "failed"
    assert "gather" in ended.error

    @flow
    async def fine() -> list[str]:
        return list(await asyncio.gather(second("a"), second("b")))

    assert asyncio.run(fine()) == ["a at second", "b at second#2"]


@flow
async def counting(n: int) -> list[str]:
    return [await second(str(i)) for i in range(n)]


@flow
async def outer(n: int) -> list[str]:
    """A flow in a flow."""
    return [*await counting(n), *await counting(n)]


@step
async def nest(n: int) -> list[str]:
    return [*await counting(n), await second("-" if here().attempt == 1 else "ok")]


@flow
async def nested(n: int) -> list[str]:
    return await nest(n)


def test_loops_and_flows_within_flows_have_paths(journal: Journal) -> None:
    assert asyncio.run(outer(2)) == [
        "0 at counting/second", "1 at counting/second#2", "0 at counting#2/second", "1 at counting#2/second#2",
    ]  # fmt: skip
    ended = asyncio.run(run(outer, journal, {"n": 1}))
    assert [row.path for row in journal.steps(ended.run)] == ["counting/second", "counting#2/second"]


def test_what_is_nested_in_a_step_that_failed_is_kept(journal: Journal) -> None:
    ended = asyncio.run(run(nested, journal, {"n": 2}))
    assert (ended.outcome, ended.path) == ("failed", "nest/second")
    made.clear()
    ended = asyncio.run(resume(nested, journal, ended.run))
    assert ended.value == ["0 at nest/counting/second", "1 at nest/counting/second#2", "ok at nest/second"]
    assert made == ["second ok"]
