import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.apps.hallucination.verification import calls_at_most, listed, verify
from myna.provider import Scripted
from myna.records import Conversation
from myna.trace import Trace


def said(provider: Scripted, call: int) -> str:
    what = provider.requests[call].what
    assert isinstance(what, Conversation)
    return "\n".join(message.text for message in what.messages)


def test_a_draft_that_its_questions_show_wrong_is_corrected() -> None:
    script = [
        "Sydney",
        "1. Is Sydney the capital of Australia?\n2. What is the capital of Australia?",
        "No",
        "Canberra",
        "Canberra",
    ]
    provider = Scripted(script)
    found = asyncio.run(verify(provider, "What is the capital of Australia?"))
    assert (found.draft, found.answer, found.outcome, found.calls) == ("Sydney", "Canberra", "changed", 5)
    assert found.checks == (
        ("Is Sydney the capital of Australia?", "No"),
        ("What is the capital of Australia?", "Canberra"),
    )


def test_questions_are_answered_without_the_draft_and_from_the_text() -> None:
    provider = Scripted(["草稿甲乙", "首都是哪里？", "堪培拉", "堪培拉"])
    asyncio.run(verify(provider, "澳大利亚的首都？", "首都为堪培拉。"))
    assert "草稿甲乙" not in said(provider, 2)
    assert "首都为堪培拉。" in said(provider, 2)
    assert "草稿甲乙" in said(provider, 3)


@given(
    st.lists(
        st.sampled_from(["", "x", "Is it?", "1. Is it?\n2. 是吗？\n3. Why?\n4. Who?", "?" * 50, "{}"]),
        min_size=8,
        max_size=8,
    )
)
def test_calls_never_pass_what_was_declared(script: list[str]) -> None:
    provider = Scripted(script)
    found = asyncio.run(verify(provider, "谁？", questions=2))
    assert len(provider.requests) == found.calls <= calls_at_most(2)
    assert len(found.checks) <= 2


@pytest.mark.parametrize(
    ("script", "answer", "outcome"),
    [
        ([""], "", "empty"),
        (["a", ""], "a", "unplanned"),
        (["a", "I will not."], "a", "unplanned"),
        (["a", "Why?", "", ""], "a", "unrevised"),
        (["Paris", "Why?", "So.", "paris."], "paris.", "kept"),
    ],
)
def test_each_way_to_fail_is_an_outcome(script: list[str], answer: str, outcome: str) -> None:
    found = asyncio.run(verify(Scripted(script), "q?"))
    assert (found.answer, found.outcome) == (answer, outcome)


@pytest.mark.parametrize(
    "said",
    [
        "1. Who was it?\n2) 是谁？\n",
        "- Who was it?\n- 是谁？",
        "Q1: Who was it?\n**Q2: 是谁？**",
        "（1）Who was it?\n（2）是谁？\n（2）是谁？",
    ],
)
def test_questions_are_read_with_and_without_numbers(said: str) -> None:
    assert listed(said, 3) == ["Who was it?", "是谁？"]


def test_every_step_is_in_the_trace(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "t.sqlite")
    with trace.span("run", "x"):
        asyncio.run(verify(Scripted(["a", "Why?", "So.", "b"]), "q?"))
    names = trace.store.rows("SELECT name FROM spans WHERE kind = 'step' ORDER BY id")
    assert names == [("draft",), ("plan",), ("check",), ("revise",)]
