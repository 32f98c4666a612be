"""What an answer has to rest on, as a check finds it: named inputs of the prompt, the conversation's sources, or what it was told."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from myna.records import Conversation, DataError


def evidence_of(conversation: Conversation, inputs: Sequence[str] = ()) -> str:
    """The text of the named inputs (meta.inputs); else of meta.sources; else of all turns that were not the model's own.

    Raises DataError for an input that is not there.
    """
    if inputs:
        given = conversation.meta.get("inputs")
        given = given if isinstance(given, dict) else {}
        if missing := [name for name in inputs if given.get(name) is None]:
            raise DataError(f"{missing[0]}: there is no such input to compare an answer with")
        return "\n".join(_text(given[name]) for name in inputs)
    if found := sources_of(conversation):
        return "\n".join(found.values())
    return "\n".join(message.text for message in conversation.messages if message.role in ("user", "tool"))


def sources_of(conversation: Conversation) -> Mapping[str, str]:
    """meta.sources: a list of texts, numbered from 1, or texts by their names; empty where there are none."""
    found: Any = conversation.meta.get("sources") or {}
    if isinstance(found, list):
        found = {str(number): text for number, text in enumerate(found, start=1)}
    if not isinstance(found, dict):
        raise DataError("meta.sources: a list of texts, or texts by their names")
    return {str(name): _text(text) for name, text in found.items()}


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
