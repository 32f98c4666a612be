"""What the tests of checks share."""

from typing import Any

from myna.checks import AnyCheck, Verdict, blocking, named
from myna.records import Candidate, Conversation, Message


def said(text: str, finish_reason: str = "stop") -> Candidate:
    return Candidate((Message("assistant", text),), finish_reason=finish_reason)


def judged(spec: object | AnyCheck, text: str, talk: Conversation | None = None, **given: Any) -> Verdict:
    check = spec if callable(spec) else named(spec, **given)
    return blocking(check)(talk or Conversation.ask("?"), said(text))


def marked(verdict: Verdict, text: str) -> list[tuple[str, str]]:
    return [(text[span.start : span.end], span.label) for span in verdict.spans]
