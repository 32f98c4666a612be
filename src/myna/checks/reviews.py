"""People as a check: what they are asked waits in a SQLite file until somebody answers, on the command line or in a program.

    reviews = Reviews("reviews.sqlite")
    check = human(reviews.ask)                   # Unjudged until somebody has answered; then their verdict

The same question is asked once: whoever comes back with the same answer to judge finds what was said of it.
"""

import asyncio
import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from myna.checks.check import AsyncCheck, Span, Verdict
from myna.records import Candidate, Conversation, MynaError, RequestError, Unjudged
from myna.records.sqlite_file import Layout, SqliteFile

Said = Literal["approve", "reject", "edit"]
SAID: tuple[Said, ...] = ("approve", "reject", "edit")
EVERY = 0.5  # seconds between two looks at whether somebody has answered
SCHEMA = """
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, asked REAL NOT NULL, question TEXT NOT NULL, conversation TEXT NOT NULL,
    candidate TEXT NOT NULL, why TEXT NOT NULL, span INTEGER, answered REAL, said TEXT, text TEXT NOT NULL DEFAULT ''
)
"""


class ReviewError(MynaError):
    """The file of reviews cannot be read or written."""


LAYOUT = Layout("a", "file of reviews", 1, SCHEMA, frozenset({"reviews"}), "--reviews", ReviewError)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person is asked: may this answer stand? `why` it is asked; `span` is where it happened in the trace."""

    question: str
    conversation: Conversation
    candidate: Candidate
    why: str = ""
    span: int | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """approve: it may stand; reject: it may not, for the reason `text`; edit: it should have been `text`."""

    said: Said
    text: str = ""


@dataclass(frozen=True, slots=True)
class Review:
    """A question in the file, and what was answered, if anybody has."""

    id: int
    asked: float
    question: Asked
    answered: Answered | None


Ask = Callable[[Asked], Answered | Awaitable[Answered]]


async def answer_of(ask: Ask, asked: Asked) -> Answered:
    """What a person says, by a plain function or one that waits. Raises Unjudged where nobody does."""
    found = await asyncio.to_thread(ask, asked)
    return await found if inspect.isawaitable(found) else found


def human(ask: Ask, /, *, question: str = "May this answer stand?") -> AsyncCheck:
    """A person's verdict. An edit says that the answer was not good as it is."""

    async def check(conversation: Conversation, candidate: Candidate) -> Verdict:
        found = await answer_of(ask, Asked(question, conversation, candidate))
        whole = (Span(0, len(candidate.text), "edited"),) if found.said == "edit" else ()
        return Verdict.of(found.said == "approve", found.text[:500] or found.said, whole)

    return check


class Reviews(SqliteFile):
    """The queue. Any number of processes may ask and answer. Raises ReviewError where the file is none of ours.

    seconds   how long `ask` waits for an answer; then it raises Unjudged, and the question stays
    """

    def __init__(self, path: Path | str, seconds: float = 0.0):
        super().__init__(path, LAYOUT)
        self.seconds = seconds

    async def ask(self, asked: Asked) -> Answered:
        """Put it into the queue, unless it is there, and wait for the answer."""
        id, until = await asyncio.to_thread(self.put, asked), time.monotonic() + self.seconds
        while (found := (await asyncio.to_thread(self.review, id)).answered) is None:
            if time.monotonic() >= until:
                raise Unjudged(f"review {id} waits for a person: myna check review {id}")
            await asyncio.sleep(min(EVERY, max(until - time.monotonic(), 0.01)))
        return found

    def put(self, asked: Asked) -> int:
        """The number of the question, which is the old one where it was asked already."""
        talk, said = (orjson.dumps(one.to_json()).decode() for one in (asked.conversation, _told(asked.candidate)))
        hash = hashlib.sha256(orjson.dumps([asked.question, talk, said])).hexdigest()
        row = (hash, time.time(), asked.question, talk, said, asked.why, asked.span)
        with self.write() as db:
            columns = "hash, asked, question, conversation, candidate, why, span"
            db.execute(f"INSERT OR IGNORE INTO reviews ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            (id,) = db.execute("SELECT id FROM reviews WHERE hash = ?", (hash,)).fetchone()
        return int(id)

    def answer(self, id: int, answered: Answered) -> Review:
        """A person's word. Raises RequestError where there is no such question, or it is answered already."""
        if answered.said not in SAID or (answered.said == "edit") > bool(answered.text):
            raise RequestError(
                "say approve, reject or edit; an edit has the text as it should have been.", param="said"
            )
        with self.write() as db:
            row = (time.time(), answered.said, answered.text, id)
            done = db.execute("UPDATE reviews SET answered = ?, said = ?, text = ? WHERE id = ? AND said IS NULL", row)
            changed = done.rowcount
        review = self.review(id)
        if not changed:
            raise RequestError(
                f"review {id} is answered already: {review.answered and review.answered.said}.", param="id"
            )
        return review

    def review(self, id: int) -> Review:
        found = self._read("WHERE id = ?", id)
        if not found:
            raise RequestError(f"there is no review {id} in {self.path}.", param="id")
        return found[0]

    def waiting(self, limit: int = 100) -> list[Review]:
        """Those that nobody has answered, the oldest first."""
        return self._read("WHERE said IS NULL ORDER BY id LIMIT ?", limit)

    def _read(self, where: str, *values: object) -> list[Review]:
        columns = "id, asked, question, conversation, candidate, why, span, said, text"
        with self.read() as db:
            rows = db.execute(f"SELECT {columns} FROM reviews {where}", values).fetchall()
        return [_review(row) for row in rows]


def _told(candidate: Candidate) -> Candidate:
    """What a person sees: the words, without the tokens they were sampled as."""
    return Candidate(candidate.messages, finish_reason=candidate.finish_reason)


def _review(row: tuple[Any, ...]) -> Review:
    id, at, question, talk, candidate, why, span, said, text = row
    asked = Asked(
        question, Conversation.from_json(orjson.loads(talk)), Candidate.from_json(orjson.loads(candidate)), why, span
    )
    return Review(id, at, asked, Answered(said, text) if said else None)
