"""A conversation as a chat template is given it: rows of strings that know their author (traced.py)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from myna.chat.dialects import Dialect, Own
from myna.chat.tools import shown
from myna.chat.traced import MARKUP, TEXT, Origin, Traced
from myna.chat.values import decode
from myna.records import Conversation, Image, Json, Message, RequestError, ToolCall


class _Arguments(dict[str, Any]):
    """A tool call's arguments: an object; where a template takes them for a text, the JSON that was written."""

    def __init__(self, members: dict[str, Any], text: Traced):
        super().__init__(members)
        self.text, self.origin = text, text.parts[0][1] if text.parts else TEXT  # `tojson` of them keeps their origin

    def __str__(self) -> str:
        return str(self.text)

    def __add__(self, other: str) -> Traced:
        return self.text + other

    def __radd__(self, other: str) -> Traced:
        return Traced("").join([other, self.text])


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
        for j, call in enumerate(message.tool_calls):
            for name in ("id", "name", "arguments"):
                _check_unicode(
                    getattr(call, name), f"messages.{i}.tool_calls.{j}.{'' if name == 'id' else 'function.'}{name}"
                )


def _check_unicode(text: str | None, where: str) -> None:
    try:
        (text or "").encode()
    except UnicodeEncodeError as e:
        raise RequestError(f"{where} is not valid Unicode at character {e.start}", param=where) from None


def rows_of(
    conversation: Conversation, dialect: Dialect, *, developer: bool, none: bool = False
) -> list[dict[str, Any]]:
    """The messages as a template that knows tools expects them.

    developer    the template knows the role; else it is the system's
    none         the template wants None as the content of a message that only calls; else it is an empty text
    """
    ids = _prompt_ids(conversation, dialect)
    rows = [_row(m, Origin(m.role, i), developer) for i, m in enumerate(conversation.messages)]
    for i, (message, row) in enumerate(zip(conversation.messages, rows, strict=True)):
        origin = Origin(message.role, i)
        if message.tool_call_id is not None:
            row["tool_call_id"] = Traced(ids.get(message.tool_call_id, message.tool_call_id), origin)
        if message.tool_calls:
            row["content"] = row["content"] if row["content"] or not none else None
            row["tool_calls"] = [_tool_call(replace(call, id=ids[call.id]), origin) for call in message.tool_calls]
    return rows


def plain_rows(
    conversation: Conversation, dialect: Dialect, *, developer: bool, none: bool, system: bool, calls: bool
) -> list[dict[str, Any]]:
    """The messages for a template that takes no tools: we say which there are, and how to call one.

    system    the template takes a system turn; else what is said goes before the user's first words
    calls     the template writes calls and their results by itself; else calls are the assistant's words, and results a user's
    """
    if calls:
        rows = rows_of(conversation, dialect, developer=developer, none=none)
    else:
        rows = _without_calls(conversation, dialect, developer)
    if not conversation.tools:
        return rows
    told = Traced(_told(conversation.tools, dialect))
    roles = [str(row["role"]) for row in rows]
    if system and roles[:1] != ["system"]:
        return [{"role": Traced("system", MARKUP), "content": told}, *rows]
    at = 0 if system else next((i for i, role in enumerate(roles) if role == "user"), 0)
    parts = (rows[at]["content"], told) if system else (told, rows[at]["content"])
    rows[at]["content"] = Traced("\n\n").join(part for part in parts if part)
    return rows


def _told(tools: Sequence[Json], dialect: Dialect) -> str:
    """What a model is told that was never taught tools. Our words; docs/api.md shows them."""
    functions = "\n".join(json.dumps(shown(tool).get("function", tool), ensure_ascii=False) for tool in tools)
    example = "".join(dialect.write([ToolCall("", "NAME", '{"PARAMETER": "VALUE"}')]))
    return (
        f"You can call these functions:\n{functions}\n\n"
        f"To call a function, answer with its name and arguments in exactly this form, once for each call:\n{example}\n"
        "The results come with the next message. Call a function only if it helps to answer; else answer in words."
    )


def _without_calls(conversation: Conversation, dialect: Dialect, developer: bool) -> list[dict[str, Any]]:
    names = {call.id: call.name for message in conversation.messages for call in message.tool_calls}
    rows: list[dict[str, Any]] = []
    after_result = False
    for i, message in enumerate(conversation.messages):
        origin = Origin(message.role, i)
        row = _row(message, origin, developer)
        if message.tool_calls:
            pieces = [Traced(p, origin if isinstance(p, Own) else MARKUP) for p in dialect.write(message.tool_calls)]
            row["content"] = Traced("\n" if message.text else "").join(
                [*([row["content"]] if message.text else []), Traced("").join(pieces)]
            )
        if message.role == "tool":
            name = names.get(message.tool_call_id or "", message.name or "the call")
            row = {
                "role": Traced("user", MARKUP),
                "content": Traced(f"Result of {name}:\n") + Traced(message.text, origin),
            }
        if after_result and row["role"] == "user":  # turns alternate
            rows[-1]["content"] = Traced("\n\n").join([rows[-1]["content"], row["content"]])
        else:
            rows.append(row)
        after_result = message.role == "tool"
    return rows


def _row(message: Message, origin: Origin, developer: bool) -> dict[str, Any]:
    """A message without its calls. The role is one of five words, so it may be part of markup ('<|' + role + '|>'); everything
    else is the message's own."""
    role = "system" if message.role == "developer" and not developer else message.role
    row: dict[str, Any] = {"role": Traced(role, MARKUP), "content": Traced(message.text, origin)}
    for name in ("reasoning_content", "name"):
        if (value := getattr(message, name)) is not None:
            row[name] = Traced(value, origin)
    return row


def _prompt_ids(conversation: Conversation, dialect: Dialect) -> dict[str, str]:
    """The client's id of each call -> its id in the prompt, where a model was taught ids of a form."""
    calls = [call for message in conversation.messages for call in message.tool_calls]
    return {call.id: dialect.prompt_id(call.id, call.name, i) for i, call in enumerate(calls)}


def _tool_call(call: ToolCall, origin: Origin) -> dict[str, Any]:
    """Templates take the arguments as an object; what is no JSON object stays the text the model wrote."""
    parsed = decode(call.arguments)
    arguments: Any = Traced(call.arguments, origin)
    if isinstance(parsed, dict):
        arguments = _Arguments({key: _owned(value, origin) for key, value in parsed.items()}, arguments)
    function = {"name": Traced(call.name, origin), "arguments": arguments}
    return {"id": Traced(call.id, origin), "type": "function", "function": function}


def _owned(value: Any, origin: Origin) -> Any:
    return Traced(value, origin) if isinstance(value, str) else value
