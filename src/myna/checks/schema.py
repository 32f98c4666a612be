"""An answer that is JSON, as a JSON Schema says."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from myna.checks.check import Check, Span, Verdict
from myna.records import Candidate, Conversation, DataError

if TYPE_CHECKING:
    from myna.forms.schema import Schema

LARGEST = 4 << 20  # characters of an answer


@dataclass(frozen=True, slots=True)
class OfSchema:
    """See `schema`."""

    source: str

    def __call__(self, conversation: Conversation, candidate: Candidate) -> Verdict:
        _, problem, place = parsed(candidate.text, self.source)
        spans = () if place is None else (Span(place, len(candidate.text), "not JSON"),)
        return Verdict.of(problem is None, problem or "", spans)

    def mend(self, text: str) -> str:
        """Without the fence of Markdown around it."""
        start, end = _bare(text)
        return text[start:end]


def schema(*, schema: Mapping[str, Any]) -> Check:
    """The answer is JSON that the schema allows; a fence of Markdown may stand around it. Raises DataError for what is no schema."""
    return of_schema(schema)


def of_schema(schema: Mapping[str, Any], path: str = "schema") -> OfSchema:
    from myna.forms.schema import SchemaError  # numpy and a tokenizer: not for everybody who asks for a check

    source = orjson.dumps(schema).decode()
    try:
        _schema(source)
    except SchemaError as e:
        raise DataError(f"{path}: is no JSON Schema: {e}") from None
    return OfSchema(source)


def parsed(text: str, source: str) -> tuple[Any, str | None, int | None]:
    """The JSON of an answer, what is wrong with it, and from which character on it is no JSON."""
    start, end = _bare(text)
    if end - start > LARGEST:
        return None, f"{end - start:,} characters of JSON, at most {LARGEST:,}", None
    try:
        value = orjson.loads(text[start:end])
    except orjson.JSONDecodeError as e:
        return None, f"it is not JSON: {e}", min(start + e.pos, len(text))
    return value, _schema(source).check(value), None


def _bare(text: str) -> tuple[int, int]:
    """Where the answer is, without blanks and without a fence around it."""
    start = len(text) - len(text.lstrip())
    end = max(len(text.rstrip()), start)
    if (
        text[start:end].startswith("```")
        and text[start:end].endswith("```")
        and (line := text.find("\n", start, end)) >= 0
    ):
        return line + 1, max(end - 3, line + 1)
    return start, end


@lru_cache(64)
def _schema(source: str) -> "Schema":
    from myna.forms.schema import Schema

    return Schema(source)
