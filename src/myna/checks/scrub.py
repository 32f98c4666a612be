"""A conversation without personal data, so that it can be learned from: whatever is found (pii.py) becomes a placeholder.

    row = scrubbed(conversation)                  # the same value is the same placeholder throughout the row

Looked at is every text that a model would see: messages, candidates, reasoning, the arguments of tool calls, the descriptions of
tools, the target. Names and addresses are not found by any list; see pii.py.
"""

import json
from typing import Any

from myna.checks.pii import mask
from myna.records import Conversation

OURS = {"id", "tool_call_id", "role", "type", "finish_reason", "meta"}  # no words of anybody's


def scrubbed(conversation: Conversation) -> tuple[Conversation, int]:
    """The conversation, and how many different values were masked in it. A message that was changed loses its tokens: they are the
    old text."""
    values: dict[str, str] = {}
    row = _walk(conversation.to_json(), values)
    return (Conversation.from_json(row) if values else conversation), len(values)


def _walk(value: Any, values: dict[str, str]) -> Any:
    match value:
        case str():
            return _text(value, values)
        case list():
            return [_walk(one, values) for one in value]
        case dict():
            found = {name: one if name in OURS else _field(name, one, values) for name, one in value.items()}
            if "tokens" in found and found != value:
                del found["tokens"]
            return found
        case bool() | None:
            return value
        case int() | float():
            text = str(value)
            hidden = _text(text, values)
            return value if hidden == text else hidden
    return value


def _field(name: str, value: Any, values: dict[str, str]) -> Any:
    if name == "tokens":
        return value
    if name == "arguments" and isinstance(value, str):  # of a tool call: JSON, and JSON it stays
        try:
            inside = json.loads(value)
        except (ValueError, RecursionError):
            return _text(value, values)
        clean = _walk(inside, values)
        return value if clean == inside else json.dumps(clean, ensure_ascii=False)
    return _walk(value, values)


def _text(text: str, values: dict[str, str]) -> str:
    if text.startswith("data:image/"):
        return text
    masked = mask(text, values)
    values.update(masked.values)
    return masked.text
