"""Writes happen at most once: where nobody knows, a probe or a person is asked."""

import asyncio
from typing import Any, Literal

import pytest

from myna.apps.flow import (
    FlowError,
    Happened,
    Journal,
    JournalError,
    NotDone,
    answer,
    flow,
    gather,
    here,
    open_questions,
    resume,
    run,
    step,
)
from myna.apps.flow.lock import locked
from myna.records import RequestError

sent: list[str] = []
keys: list[str] = []
fate: dict[str, Any] = {}  # what befalls a write, by its text


@pytest.fixture(autouse=True)
def _nothing_sent() -> None:
    sent.clear()
    keys.clear()
    fate.clear()


@step(effect="write", timeout=0.2)
async def send(text: str) -> int:
    keys.append(here().key)
    if isinstance(before := fate.get(f"before {text}"), Exception):
        raise before
    sent.append(text)
    if isinstance(after := fate.get(text), Exception):
        raise after
    await asyncio.sleep(after or 0)
    return len(text)


async def is_sent(text: str) -> Happened | Literal[False] | None:
    if isinstance(fate.get("probe"), Exception):
        raise fate["probe"]
    if "probe" in fate:
        return fate["probe"]  # type: ignore[no-any-return]
    return Happened(len(text)) if text in sent else False


@step(effect="write", probe=is_sent, retry=1)
async def probed(text: str) -> int:
    keys.append(here().key)
    if isinstance(before := fate.pop(f"before {text}", None), Exception):
        raise before
    sent.append(text)
    if isinstance(after := fate.pop(text, None), Exception):
        raise after
    return len(text)


@flow
async def mail(text: str) -> int:
    return await send(text)


@flow
async def probed_mail(text: str) -> int:
    return await probed(text)


@pytest.mark.parametrize("text", ["hello", "你好"])
@pytest.mark.parametrize("why", [ValueError("the line broke"), 10.0])
def test_a_write_that_may_have_happened_is_asked_about_and_not_repeated(
    journal: Journal, text: str, why: object
) -> None:
    fate[text] = why
    for outcome in ("unknown", "unknown"):
        ended = asyncio.run(run(mail, journal, {"text": text}) if not sent else resume(mail, journal, 1))
        assert (ended.outcome, ended.path, sent) == (outcome, "send", [text])
    assert ("the line broke" if isinstance(why, ValueError) else "more than 0.2 seconds") in ended.error
    answer(journal, 1, "send", True, b"5")
    assert (asyncio.run(resume(mail, journal, 1)).value, sent) == (5, [text])


def test_a_write_that_did_not_happen_is_made_when_a_person_says_so(journal: Journal) -> None:
    fate["before a"] = ValueError("refused")
    assert asyncio.run(run(mail, journal, {"text": "a"})).outcome == "unknown"
    assert [row.path for row in open_questions(journal, 1)] == ["send"]
    answer(journal, 1, "send", False)
    fate.clear()
    assert (asyncio.run(resume(mail, journal, 1)).value, sent) == (1, ["a"])
    assert len(set(keys)) == 1, "an idempotency key is the same in all attempts"


def test_only_what_is_asked_can_be_answered(journal: Journal) -> None:
    fate["a"] = ValueError()
    asyncio.run(run(mail, journal, {"text": "a"}))
    with pytest.raises(RequestError, match="asks about send"):
        answer(journal, 1, "sent", True)
    answer(journal, 1, "send", True, b"1")
    with pytest.raises(RequestError, match="asks about nothing"):
        answer(journal, 1, "send", False)
    with pytest.raises(RequestError, match="no run 2"):
        answer(journal, 2, "send", False)


def test_an_answer_that_is_no_output_is_told_when_it_is_used(journal: Journal) -> None:
    fate["a"] = ValueError()
    asyncio.run(run(mail, journal, {"text": "a"}))
    answer(journal, 1, "send", True)  # null, and the step gives a number
    ended = asyncio.run(resume(mail, journal, 1))
    assert (ended.outcome, sent) == ("unknown", ["a"])
    assert "gives int, and null is none" in ended.error
    with pytest.raises(RequestError, match="gives int"):
        answer(journal, 1, "send", True, b'"text"', flow=mail)
    answer(journal, 1, "send", True, b"1")
    assert asyncio.run(resume(mail, journal, 1)).value == 1


def test_a_step_that_knows_that_nothing_happened_says_so_and_is_tried_again(journal: Journal) -> None:
    fate["before a"] = NotDone("the host cannot be reached")
    ended = asyncio.run(run(mail, journal, {"text": "a"}))
    assert ended.outcome == "failed"
    assert "cannot be reached" in ended.error
    fate.clear()
    assert (asyncio.run(resume(mail, journal, 1)).outcome, sent) == ("done", ["a"])
    fate["before b"] = NotDone("")
    assert asyncio.run(run(probed_mail, journal, {"text": "b"})).outcome == "done"
    assert sent == ["a", "b"]


def test_a_probe_decides(journal: Journal) -> None:
    fate["a"] = ValueError("after it was sent")
    assert asyncio.run(run(probed_mail, journal, {"text": "a"})).value == 1
    fate["before b"] = ValueError("before it was")
    assert asyncio.run(run(probed_mail, journal, {"text": "b"})).value == 1
    assert sent == ["a", "b"]
    assert [(row.path, row.attempt, row.state) for row in journal.steps(2)] == [
        ("probed", 1, "failed"),
        ("probed", 2, "done"),
    ]


@pytest.mark.parametrize("said", [None, True, 5, ValueError("the probe fails"), Happened("five")])
def test_a_probe_that_does_not_know_leaves_it_to_a_person(journal: Journal, said: object) -> None:
    fate.update(a=ValueError("?"), probe=said)
    ended = asyncio.run(run(probed_mail, journal, {"text": "a"}))
    assert (ended.outcome, sent) == ("unknown", ["a"])


def test_a_flow_that_catches_exceptions_does_not_walk_past_a_question(journal: Journal) -> None:
    @flow
    async def careless(text: str) -> str:
        for _ in range(2):
            try:
                await gather(send(text), send(text + "!"))
            except Exception:
                continue
        return "sent"

    fate["a"] = ValueError()
    ended = asyncio.run(run(careless, journal, {"text": "a"}))
    assert (ended.outcome, ended.path, sorted(sent)) == ("unknown", "send", ["a", "a!"])
    with pytest.raises(FlowError, match="nobody knows"):
        asyncio.run(careless("a"))


def test_a_write_is_not_repeated_for_other_inputs_without_a_word(journal: Journal) -> None:
    @flow
    async def dated() -> int:
        await send(fate["day"])
        raise ValueError("later")

    fate["day"] = "monday"
    asyncio.run(run(dated, journal, {}))
    fate["day"] = "二"
    ended = asyncio.run(resume(dated, journal, 1))
    assert (ended.outcome, sent) == ("changed", ["monday"])
    assert "text was 'monday', is '二'" in ended.error
    assert asyncio.run(resume(dated, journal, 1, changed="keep")).outcome == "failed"
    assert asyncio.run(resume(dated, journal, 1, changed="rerun")).outcome == "unknown"
    assert sent == ["monday"]
    answer(journal, 1, "send", True)  # it is good as it was
    assert asyncio.run(resume(dated, journal, 1)).outcome == "failed"
    assert sent == ["monday"]


def test_one_process_at_a_time_runs_a_run(journal: Journal) -> None:
    fate["a"] = ValueError()
    asyncio.run(run(mail, journal, {"text": "a"}))
    with locked(journal.path, 1):
        with pytest.raises(JournalError, match="another process"):
            asyncio.run(resume(mail, journal, 1))
        with pytest.raises(JournalError, match="another process"):
            answer(journal, 1, "send", True)
    assert asyncio.run(resume(mail, journal, 1)).outcome == "unknown"
    assert [path.name for path in journal.path.parent.iterdir() if "lock" in path.name] == []


def test_what_cannot_be_undone_is_not_checked_and_what_is_repeatable_not_probed() -> None:
    async def nothing(text: str) -> None: ...

    with pytest.raises(FlowError, match="cannot undo"):
        step(effect="write", checks={"x": lambda c, a: None})(nothing)  # type: ignore[arg-type,return-value]
    with pytest.raises(FlowError, match="made again"):
        step(probe=is_sent)(nothing)
    with pytest.raises(FlowError, match="retry"):
        step(retry=-1)(nothing)
