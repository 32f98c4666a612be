"""Moderations on the wire: texts in, a verdict on each out. What is looked for is a check's, not ours."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from myna.provider.wire.body import read_body, unsupported
from myna.records import Json, RequestError

MAX_INPUTS = 1024
# OpenAI's categories, which its client expects in every verdict.
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found in one text: a score from 0 to 1 for each category it looks for, and those it objects to."""

    scores: Mapping[str, float]
    flagged: frozenset[str] = frozenset()


class ModerationBody(BaseModel):
    """POST /v1/moderations."""

    model_config = ConfigDict(strict=True, extra="allow")
    input: str | list[str] | list[dict[str, Any]]
    model: str | None = None


def read_moderation(raw: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(texts, ignored fields). A list of parts is one text. Raises RequestError naming the field."""
    _, body, ignored = read_body(raw, ModerationBody, {})
    if isinstance(body.input, str):
        return (body.input,), ignored
    if not 0 < len(body.input) <= MAX_INPUTS:
        raise RequestError(f"input has {len(body.input)} entries; it may have 1 to {MAX_INPUTS}.", param="input")
    parts = [part for part in body.input if isinstance(part, dict)]
    if not parts:
        return tuple(text for text in body.input if isinstance(text, str)), ignored
    for i, part in enumerate(parts):
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise unsupported(f"input.{i}", part, "only text is looked at")
    return ("".join(part["text"] for part in parts),), ignored


def write_moderation(verdicts: list[Verdict], model: str) -> Json:
    return {"id": f"modr-{uuid.uuid4().hex}", "model": model, "results": [_write(verdict) for verdict in verdicts]}


def _write(verdict: Verdict) -> Json:
    """A category that the check does not look for has score 0 and applies to no input, so nobody takes it for clean."""
    names = list(dict.fromkeys((*CATEGORIES, *verdict.scores)))
    return {
        "flagged": bool(verdict.flagged),
        "categories": {name: name in verdict.flagged for name in names},
        "category_scores": {name: float(verdict.scores.get(name, 0.0)) for name in names},
        "category_applied_input_types": {name: ["text"] if name in verdict.scores else [] for name in names},
    }
