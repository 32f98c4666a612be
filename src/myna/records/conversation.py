"""What flows: a conversation. A request, a trace, an eval case and a training row are this one record.

On disk it is one JSON object a line, OpenAI-style messages:
`{"id", "messages": [...], "tools"?, "target"?, "candidates"?, "meta"?}`. Keys we do not know are kept in `meta`.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from myna.records.errors import DataError
from myna.records.fields import Fields, kind_of

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    """A part of a message: text."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A part of a message: an image, by URL or data URL. Carried and kept; no model of ours sees images yet."""

    url: str


Part = Text | Image


@dataclass(frozen=True, slots=True)
class Tokens:
    """Evidence of what was sampled: token ids and, where known, their log-probabilities (natural log, one per id)."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None

    @classmethod
    def from_json(cls, value: object, path: str = "tokens") -> "Tokens":
        f = Fields(value, path)
        ids, logprobs = f.take_list("ids", _read_id), f.take_list("logprobs", _read_number)
        if logprobs and len(logprobs) != len(ids):
            raise DataError(f"{path}.logprobs: {len(logprobs)} values for {len(ids)} ids")
        return cls(ids, logprobs or None)

    def to_json(self) -> Json:
        return {"ids": list(self.ids)} | ({"logprobs": list(self.logprobs)} if self.logprobs is not None else {})


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asked for. `arguments` is JSON text exactly as the model wrote it, so it may be malformed."""

    id: str
    name: str
    arguments: str

    @classmethod
    def from_json(cls, value: object, path: str = "tool_call") -> "ToolCall":
        f = Fields(value, path)
        function = Fields(f.take("function", dict), f.at("function"))
        arguments = function.take("arguments", str, dict, default="{}")
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return cls(f.take("id", str, default=""), function.take("name", str), arguments)

    def to_json(self) -> Json:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` says whether to train on it (0 or 1; None leaves it to the method: assistant turns are)."""

    role: Role
    content: str | tuple[Part, ...] = ""
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    weight: int | None = None
    tokens: Tokens | None = None
    meta: Json = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @classmethod
    def from_json(cls, value: object, path: str = "message") -> "Message":
        f = Fields(value, path)
        role = f.take("role", str)
        if role not in ROLES:
            raise DataError(f"{f.at('role')}: {role!r} is not one of {', '.join(ROLES)}")
        content = f.take("content", str, list, default="")
        if isinstance(content, list):
            content = tuple(_read_part(part, f"{f.at('content')}.{i}") for i, part in enumerate(content))
        tokens = f.take("tokens", dict, default=None)
        message = cls(
            role=role,
            content=content,
            # vLLM renamed the field to `reasoning`; both spellings are in the wild.
            reasoning_content=f.take("reasoning_content", str, default=None) or f.take("reasoning", str, default=None),
            tool_calls=f.take_list("tool_calls", ToolCall.from_json),
            tool_call_id=f.take("tool_call_id", str, default=None),
            name=f.take("name", str, default=None),
            weight=f.take("weight", int, default=None),
            tokens=None if tokens is None else Tokens.from_json(tokens, f.at("tokens")),
            meta=f.rest(),
        )
        if message.weight not in (None, 0, 1):
            raise DataError(f"{f.at('weight')}: {message.weight} is neither 0 nor 1")
        if role == "tool" and message.tool_call_id is None:
            raise DataError(f"{f.at('tool_call_id')}: missing; a tool result names the call it answers")
        return message

    def to_json(self) -> Json:
        content = self.content if isinstance(self.content, str) else [_write_part(part) for part in self.content]
        row: Json = {"role": self.role, "content": content}
        if self.tool_calls:
            row["tool_calls"] = [call.to_json() for call in self.tool_calls]
        if self.tokens is not None:
            row["tokens"] = self.tokens.to_json()
        optional = ("reasoning_content", "tool_call_id", "name", "weight")
        row |= {name: getattr(self, name) for name in optional if getattr(self, name) is not None}
        return row | ({"meta": self.meta} if self.meta else {})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible continuation: an eval sample, a GRPO group member, a side of a DPO pair, one of n answers."""

    messages: tuple[Message, ...]
    score: float | None = None
    tokens: Tokens | None = None
    finish_reason: str | None = None
    meta: Json = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of the last message."""
        return self.messages[-1].text if self.messages else ""

    @classmethod
    def from_json(cls, value: object, path: str = "candidate") -> "Candidate":
        f = Fields(value, path)
        tokens = f.take("tokens", dict, default=None)
        return cls(
            messages=f.take_list("messages", Message.from_json),
            score=f.take("score", int, float, default=None),
            tokens=None if tokens is None else Tokens.from_json(tokens, f.at("tokens")),
            finish_reason=f.take("finish_reason", str, default=None),
            meta=f.rest(),
        )

    def to_json(self) -> Json:
        row: Json = {"messages": [message.to_json() for message in self.messages]}
        if self.tokens is not None:
            row["tokens"] = self.tokens.to_json()
        row |= {name: getattr(self, name) for name in ("score", "finish_reason") if getattr(self, name) is not None}
        return row | ({"meta": self.meta} if self.meta else {})


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, and what belongs to them. `target` is whatever the task compares an answer with. `continues`: the last message
    is an answer that is begun, and the model goes on with it."""

    messages: tuple[Message, ...]
    id: str = ""
    tools: tuple[Json, ...] = ()
    target: Any = None
    candidates: tuple[Candidate, ...] = ()
    meta: Json = field(default_factory=dict)
    continues: bool = False

    @classmethod
    def of(cls, *turns: tuple[Role, str], **fields: Any) -> "Conversation":
        """`Conversation.of(("system", "Be brief."), ("user", "Hi"))`."""
        return cls(tuple(Message(role, text) for role, text in turns), **fields)

    @classmethod
    def ask(cls, question: str, **fields: Any) -> "Conversation":
        """One user turn."""
        return cls.of(("user", question), **fields)

    def __add__(self, message: Message) -> "Conversation":
        return replace(self, messages=(*self.messages, message))

    @classmethod
    def from_json(cls, value: object, path: str = "") -> "Conversation":
        """Raises DataError naming the field, "messages.3.role: ..."."""
        f = Fields(value, path)
        return cls(
            messages=f.take_list("messages", Message.from_json, required=True),
            id=f.take("id", str, default=""),
            tools=f.take_list("tools", _read_object),
            target=f.take("target", str, int, float, bool, list, dict, default=None),
            candidates=f.take_list("candidates", Candidate.from_json),
            continues=f.take("continues", bool, default=False),
            meta=f.rest(),
        )

    def to_json(self) -> Json:
        row: Json = {"id": self.id} if self.id else {}
        row["messages"] = [message.to_json() for message in self.messages]
        if self.tools:
            row["tools"] = list(self.tools)
        if self.target is not None:
            row["target"] = self.target
        if self.candidates:
            row["candidates"] = [candidate.to_json() for candidate in self.candidates]
        if self.continues:
            row["continues"] = True
        return row | ({"meta": self.meta} if self.meta else {})


def _read_part(value: object, path: str) -> Part:
    f = Fields(value, path)
    match f.take("type", str):
        case "text":
            return Text(f.take("text", str))
        case "image_url":
            return Image(Fields(f.take("image_url", dict), f.at("image_url")).take("url", str))
        case other:
            raise DataError(f"{f.at('type')}: {other!r} is not supported; a part is 'text' or 'image_url'")


def _write_part(part: Part) -> Json:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": part.url}}


def _read_object(value: object, path: str) -> Json:
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected an object, found {kind_of(value)}")
    return value


def _read_id(value: object, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise DataError(f"{path}: expected a token id, found {value!r}")
    return value


def _read_number(value: object, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise DataError(f"{path}: expected a number, found {kind_of(value)}")
    return float(value)
