"""A conversation as a chat template is given it: rows of strings that know their author (traced.py)."""

import json
from typing import Any

from myna.chat.traced import MARKUP, TEXT, Origin, Traced
from myna.records import Conversation, Image, Message, RequestError, ToolCall


class _Arguments(dict[str, Any]):
    """A tool call's arguments; `tojson` of them keeps their origin."""

    origin: Origin = TEXT


def check(conversation: Conversation) -> None:
    if not conversation.messages:
        raise RequestError("messages is empty; there is nothing to answer", param="messages")
    for i, message in enumerate(conversation.messages):
        for j, part in enumerate(message.content if isinstance(message.content, tuple) else ()):
            if isinstance(part, Image):
                where = f"messages.{i}.content.{j}"
                raise RequestError(f"{where} is an image, and this model reads text alone", param=where)
        for name in ("text", "reasoning_content", "name", "tool_call_id"):
            _check_unicode(getattr(message, name), f"messages.{i}.{'content' if name == 'text' else name}")


def _check_unicode(text: str | None, where: str) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError as e:
        raise RequestError(f"{where} is not valid Unicode at character {e.start}", param=where) from None


def row_of(message: Message, i: int, speaks_developer: bool) -> dict[str, Any]:
    """The message as templates expect it. The role is one of five words, so it may be part of markup ('<|' + role + '|>');
    everything else is the message's own."""
    origin = Origin(message.role, i)
    role = "system" if message.role == "developer" and not speaks_developer else message.role
    row: dict[str, Any] = {"role": Traced(role, MARKUP), "content": Traced(message.text, origin)}
    for name in ("reasoning_content", "name", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            row[name] = Traced(value, origin)
    if message.tool_calls:
        row["tool_calls"] = [_tool_call(call, origin) for call in message.tool_calls]
    return row


def _tool_call(call: ToolCall, origin: Origin) -> dict[str, Any]:
    """Templates take the arguments as an object; what is no JSON object stays the text the model wrote."""
    try:
        parsed = json.loads(call.arguments)
    except ValueError:
        parsed = None
    arguments: Any = Traced(call.arguments, origin)
    if isinstance(parsed, dict):
        arguments = _Arguments({key: _owned(value, origin) for key, value in parsed.items()})
        arguments.origin = origin
    function = {"name": Traced(call.name, origin), "arguments": arguments}
    return {"id": Traced(call.id, origin), "type": "function", "function": function}


def _owned(value: Any, origin: Origin) -> Any:
    return Traced(value, origin) if isinstance(value, str) else value
