"""What a report and a graph say is counted from a journal: nothing in them is written by hand."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from myna.apps.flow import Flow, Journal, flow, gather, run, step
from myna.apps.flow.cases import judge, read_cases
from myna.apps.flow.graph import Edge, as_mermaid, as_text, graph
from myna.apps.flow.report import Rate, Report, StepRate, report
from myna.checks import Verdict
from myna.provider import Provider, Scripted, complete
from myna.records import Candidate, Conversation, DataError

STEPS, RUNS = 10, 100


def is_right(conversation: Conversation, candidate: Candidate) -> Verdict:
    return Verdict.of(candidate.text == "right", "it is wrong")


def ninety(seed: int) -> Scripted:
    """A model that is right nine times of ten, each time by itself."""
    draw = random.Random(seed)
    return Scripted((lambda _: "right" if draw.random() < 0.9 else "wrong") for _ in range(10_000))


def ten_steps(retry: int) -> Flow[Any, Any]:
    @step(checks={"right": is_right}, retry=retry)
    async def one(number: int, *, provider: Provider) -> str:
        return (await complete(provider, Conversation.ask(f"step {number}"))).text

    @flow(max_calls=STEPS * one.max_calls)
    async def ten(*, provider: Provider) -> int:
        for number in range(STEPS):
            await one(number, provider=provider)
        return STEPS

    return ten


def measured(journal: Journal, retry: int) -> Any:
    flow, provider = ten_steps(retry), ninety(7)

    async def all_runs() -> None:
        for _ in range(RUNS):
            await run(flow, journal, {}, {"provider": provider})

    asyncio.run(all_runs())
    return report(journal, journal.runs())


def test_ten_steps_of_ninety_percent_come_to_a_third_and_trying_again_mends_it(folder: Path) -> None:
    """0.9 ** 10 = 34.9 %, and with two further attempts (1 - 0.1 ** 3) ** 10 = 99.0 %; 100 runs each. The bounds are four standard
    errors of 100 draws, or of the 640 and 1,000 attempts."""
    without = measured(Journal(folder / "a.sqlite"), 0)
    (one,) = without.steps
    assert abs(one.first.value - 0.9) < 0.048
    assert one.first == one.last
    assert (one.per_run, without.runs.of) == (STEPS, RUNS)
    assert abs(without.product("first") - 0.9**10) < 0.19
    assert abs(without.runs.value - 0.9**10) < 0.19
    again = measured(Journal(folder / "b.sqlite"), 2)
    assert abs(again.steps[0].first.value - 0.9) < 0.04
    assert again.first.value < 0.55 < 0.95 < again.runs.value
    assert abs(again.product("last") - 0.99) < 0.03
    assert again.steps[0].attempts > again.steps[0].first.of


def test_steps_multiply_each_as_often_as_it_is_called() -> None:
    steps = (
        StepRate("ask", Rate(9, 10), Rate(10, 10), 11, 2.0), StepRate("answer", Rate(1, 2), Rate(4, 5), 14, 1.0),
    )  # fmt: skip
    found = Report(steps, Rate(0, 5), Rate(4, 5), 0, 0)
    assert found.product("first") == pytest.approx(0.9**2 * 0.5)
    assert found.product("last") == pytest.approx(0.8)


def test_an_attempt_that_was_retried_is_counted_with_its_calls(journal: Journal) -> None:
    ended = asyncio.run(run(ten_steps(2), journal, {}, {"provider": Scripted(["wrong", "right"] * STEPS)}))
    found = report(journal, [journal.run(ended.run)])
    (one,) = found.steps
    assert (one.first, one.last, one.attempts) == (Rate(0, 10), Rate(10, 10), 20)
    assert (found.product("first"), found.product("last")) == (0, 1)
    assert sum(row.calls or 0 for row in journal.steps(ended.run)) == 20


def test_attempts_are_bounded(journal: Journal) -> None:
    provider = Scripted(["wrong"] * 50)
    ended = asyncio.run(run(ten_steps(2), journal, {}, {"provider": provider}))
    assert (ended.outcome, ended.path, len(provider.requests)) == ("failed", "one", 3)
    assert "right: it is wrong" in ended.error


@pytest.mark.parametrize(
    ("passed", "of", "low", "high"), [(9, 10, 0.596, 0.982), (0, 20, 0.0, 0.161), (0, 0, 0.0, 1.0)]
)
def test_intervals_are_wilsons(passed: int, of: int, low: float, high: float) -> None:
    """9 of 10 gives 0.596 to 0.982 in Brown, Cai and DasGupta's comparison (Statistical Science 16, 2001) and everywhere."""
    found = Rate(passed, of).interval
    assert found == pytest.approx((low, high), abs=0.001)
    assert 0 <= found[0] <= found[1] <= 1


@step
async def split(text: str) -> list[str]:
    return text.split("。")


@step
async def shorten(text: str) -> str:
    return text[:-1]


@step
async def count(n: int) -> int:
    return n + 1


@step(effect="write")
async def keep(texts: list[str]) -> bool:
    return True


@step
async def praise(kept: bool) -> str:
    return "well done, all of it"


@step
async def shout(text: str) -> str:
    return f"{text}!"


@flow
async def wide(text: str) -> str:
    parts = await split(text)
    short = await gather(*(shorten(part) for part in parts))
    n = await count(len(short))
    kept = await keep(short)
    return await shout(f"{await praise(kept)} ({n})")


TEXT = "第一句话很短。the second is longer。第三句又不一样"


def test_the_graph_says_who_took_whose_output(journal: Journal) -> None:
    ended = asyncio.run(run(wide, journal, {"text": TEXT}))
    drawn = graph(journal.steps(ended.run))
    short = ("shorten", "shorten#2", "shorten#3")
    assert set(drawn.edges) == {
        *(Edge("split", path, "value") for path in short),
        *(Edge(path, "count", "order") for path in short),
        *(Edge(path, "keep", "value") for path in short),
        Edge("keep", "praise", "order"),
        Edge("praise", "shout", "value"),
    }
    assert list(as_text(drawn))[-1].split() == ["shout", "done", "takes", "praise"]
    drawn_lines = list(as_mermaid(drawn))
    assert drawn_lines[0] == "flowchart TD"
    assert '    s5[["keep"]]' in drawn_lines
    assert "    s5 -.-> s6" in drawn_lines
    assert "    s6 --> s7" in drawn_lines


@step
async def outer(texts: list[str]) -> list[str]:
    return await gather(*(shorten(text) for text in texts))


@flow
async def nested(text: str) -> int:
    parts = await split(text)
    (short,) = await gather(outer(parts))
    return await count(len(short))


def test_steps_within_steps_are_drawn_as_such(journal: Journal) -> None:
    """Mermaid's own parser (12.3.0) read all that is drawn in these tests, by hand."""
    ended = asyncio.run(run(nested, journal, {"text": "第一句话很短。b"}))
    drawn = graph(journal.steps(ended.run))
    assert drawn.around == {"split": "", "outer": "", "outer/shorten": "outer", "outer/shorten#2": "outer", "count": ""}
    assert {(edge.source, edge.to) for edge in drawn.edges if edge.kind == "order"} == {("outer", "count")}
    assert list(as_mermaid(drawn))[-2:] == ["    s1 -. inside .- s2", "    s1 -. inside .- s3"]


CASES = """{"inputs": {"text": "一二三四。b"}, "expect": {"shout": {"check": "contains", "target": "well"}, "split": {"check": "contains", "target": "x"}}}
{"inputs": {"text": "b"}}
"""


def test_cases_are_judged_and_counted(journal: Journal, folder: Path) -> None:
    (folder / "c.jsonl").write_text(CASES, encoding="utf-8")
    cases = read_cases(folder / "c.jsonl", wide)
    said = []
    for case in cases:
        ended = asyncio.run(run(wide, journal, case.inputs))
        said += list(judge(journal, ended.run, case))
    assert len(said) == 1
    assert said[0].startswith("split is not as expected")
    rates = {one.name: one.last for one in report(journal, journal.runs()).steps}
    assert (rates["split"], rates["shout"]) == (Rate(1, 2), Rate(2, 2))


def test_a_case_judges_every_call_of_a_step_or_the_one_that_it_names(journal: Journal, folder: Path) -> None:
    expect = {"shorten": {"check": "contains", "target": "二"}, "shorten#3": {"check": "exact", "target": "三"}}
    (folder / "c.jsonl").write_text(
        json.dumps({"inputs": {"text": "一二三。二二x。三三"}, "expect": expect}), encoding="utf-8"
    )
    (case,) = read_cases(folder / "c.jsonl", wide)
    ended = asyncio.run(run(wide, journal, case.inputs))
    assert [said.split()[0] for said in judge(journal, ended.run, case)] == ["shorten#3"]
    (rate,) = (one.last for one in report(journal, journal.runs()).steps if one.name == "shorten")
    assert rate == Rate(2, 3)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ('{"inputs": {"txt": ""}}', "inputs.txt"), ('{"input": {}}', "inputs"), ('{"inputs": {"text": "a"}, "expect": {"s": {"check": "exakt"}}}', "exact"),
        ('{"inputs": {"text": "a"}, "expected": {}}', "expected"), ('{"inputs": {"text": 7}}', "inputs.text"),
    ],
)  # fmt: skip
def test_bad_cases_are_named_before_anything_is_run(folder: Path, row: str, why: str) -> None:
    (folder / "c.jsonl").write_text(row, encoding="utf-8")
    with pytest.raises(DataError, match=rf"c\.jsonl:1: .*{why}"):
        read_cases(folder / "c.jsonl", wide)
