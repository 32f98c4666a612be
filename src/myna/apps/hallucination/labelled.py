"""Questions with known answers, asked: what a threshold is fitted on.

A question is a JSON line {"question": "...", "answers": ["..."], "context": "..."}, the context if there is one; what comes of it is the
same line with "answer", "right", "confidence" (by signal) and "outcomes".
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import orjson

from myna.apps.hallucination.samples import SIGNALS, question, sample
from myna.checks.same import right
from myna.provider import Provider
from myna.records import DataError, Json
from myna.records.fields import Fields
from myna.records.jsonl import read_rows

LONGEST = 16 << 20  # bytes of a row
ROW = b'{"question":'  # how one begins


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question with the answers that are right; once it was asked, what was said, whether that is right, and how sure it was by each
    signal (None: unknown)."""

    question: str
    answers: tuple[str, ...]
    context: str | None = None
    answer: str | None = None
    right: bool | None = None
    confidence: dict[str, float | None] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: object, path: str = "") -> Self:
        f = Fields(value, path)
        asked = f.take("question", str)
        answers = f.take("answers", list)
        if not answers or not all(isinstance(one, str) for one in answers):
            raise DataError(f"{f.at('answers')}: expected a list of texts, and at least one")
        confidence = Fields(f.take("confidence", dict, default={}), f.at("confidence"))
        known = {name: confidence.take(name, int, float, default=None) for name in SIGNALS}
        context, answer = f.take("context", str, default=None), f.take("answer", str, default=None)
        label, outcomes = f.take("right", bool, default=None), f.take("outcomes", dict, default={})
        return cls(asked, tuple(answers), context, answer, label, known if label is not None else {}, outcomes)

    def to_json(self) -> Json:
        return {name: value for name, value in asdict(self).items() if value is not None}


def read(path: str | Path) -> Iterator[Labelled]:
    """The questions of a file. Raises DataError, naming file and line."""
    for line, row in read_rows(path):
        try:
            yield Labelled.from_json(row)
        except DataError as e:
            raise DataError(f"{path}:{line}: {e}") from None


def begun(path: Path) -> list[Labelled]:
    """The rows of a file that is being written. What was killed in the middle of a row left half of it at the end, which is cut away, so
    that the next can follow. Raises DataError."""
    if not path.exists():
        return []
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - LONGEST))
        _, _, tail = file.read().rpartition(b"\n")
        if tail.startswith(ROW) or ROW.startswith(tail):  # one of ours, and no other text
            try:
                orjson.loads(tail)
                file.write(b"\n")
            except orjson.JSONDecodeError:
                file.truncate(end - len(tail))
    return [*read(path)]


async def ask(provider: Provider, one: Labelled, n: int = 5) -> Labelled:
    """The question asked, with `samples.calls_at_most(n)` calls at most. No answer is a wrong one. Raises what `sample` raises."""
    found = await sample(provider, question(one.question, one.context), n)
    known = {signal: found.confidence(signal) for signal in SIGNALS}
    good = right(found.answer or "", one.answers)
    return Labelled(one.question, one.answers, one.context, found.answer, good, known, dict(found.outcomes))
