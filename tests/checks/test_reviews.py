"""People as a check: a question waits until it is answered, once, by any process."""

import asyncio
from pathlib import Path

import pytest
from said import judged, marked, said

from myna.checks import verdict
from myna.checks.reviews import Answered, Asked, Reviews, human
from myna.records import Conversation, MynaError, RequestError, Unjudged

TALK = Conversation.ask("天气?")


def question(text: str) -> Asked:
    return Asked("May this answer stand?", TALK, said(text), "length: long")


def test_a_function_may_be_the_person() -> None:
    assert judged("human", "晴", ask=lambda asked: Answered("approve")).ok
    found = judged("human", "晴", ask=lambda asked: Answered("edit", "晴天"))
    assert (found.ok, marked(found, "晴")) == (False, [("晴", "edited")])
    assert judged("human", "晴", ask=lambda asked: Answered("reject", "错了")).reason == "错了"


def test_a_question_waits_is_asked_once_and_answered_once(tmp_path: Path) -> None:
    reviews, other = Reviews(tmp_path / "r.sqlite"), Reviews(tmp_path / "r.sqlite")
    check = human(reviews.ask)
    for _ in range(2):
        with pytest.raises(Unjudged, match="review 1 waits for a person: myna check review 1"):
            asyncio.run(verdict(check, TALK, said("晴")))
    (waiting,) = other.waiting()
    assert (waiting.id, waiting.question.candidate.text, waiting.question.conversation) == (1, "晴", TALK)
    other.answer(1, Answered("approve"))
    assert asyncio.run(verdict(check, TALK, said("晴"))).ok
    assert other.waiting() == []
    with pytest.raises(RequestError, match="answered already: approve"):
        reviews.answer(1, Answered("reject"))
    assert reviews.review(1).answered == Answered("approve")
    with pytest.raises(Unjudged, match="review 2"):
        asyncio.run(verdict(check, TALK, said("阴")))


def test_whoever_waits_hears_the_answer(tmp_path: Path) -> None:
    reviews, other = Reviews(tmp_path / "r.sqlite", seconds=60), Reviews(tmp_path / "r.sqlite")

    async def both() -> Answered:
        waiting = asyncio.create_task(reviews.ask(question("长")))
        while not other.waiting():
            await asyncio.sleep(0.01)
        other.answer(1, Answered("edit", "短"))
        return await waiting

    assert asyncio.run(both()) == Answered("edit", "短")


def test_what_cannot_be_answered_is_said(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path / "r.sqlite")
    id = reviews.put(question("x"))
    for said_, error in ((Answered("edit"), "an edit has the text"), (Answered("yes"), "say approve")):  # type: ignore[arg-type]
        with pytest.raises(RequestError, match=error):
            reviews.answer(id, said_)
    with pytest.raises(RequestError, match="no review 9"):
        reviews.answer(9, Answered("approve"))
    (tmp_path / "no.sqlite").write_bytes(b"not a database at all, and long enough to be one" * 100)
    with pytest.raises(MynaError, match="file of reviews"):
        Reviews(tmp_path / "no.sqlite")
