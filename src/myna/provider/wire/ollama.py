"""The part of Ollama's API that its clients need: chat and generate as conversations or documents.

Source: https://github.com/ollama/ollama/blob/main/docs/api.md (2026), and the types of the ollama package.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict

from myna.provider.wire.body import check, check_sampling, read_body, read_stop, shown, unknown, unsupported
from myna.provider.wire.request import Ask
from myna.records import Conversation, Document, Form, Image, Json, Message, RequestError, Sampling, Text, ToolCall

REFUSED: dict[str, tuple[Any, ...]] = {"template": ("",), "context": ([],), "width": (), "height": (), "steps": ()}
# Options that change the answer and that we cannot honour, with the values that ask for nothing.
REFUSED_OPTIONS: dict[str, tuple[Any, ...]] = {
    "repeat_last_n": (-1,),  # our repetition penalty looks at all of prompt and answer, as -1 does
    "tfs_z": (1,),
    "typical_p": (1,),
    "mirostat": (0,),
    "penalize_newline": (True,),
}
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})(ns|us|µs|ms|s|m|h)")
OPTION_NAMES = {
    "max_tokens": "options.num_predict",
    "repetition_penalty": "options.repeat_penalty",
    **{
        name: f"options.{name}"
        for name in ("temperature", "top_k", "top_p", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty")
    },
    "logprobs": "top_logprobs",
    "response_format": "format",
}


class OllamaOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    stop: str | list[str] | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class OllamaShared(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    model: str
    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    options: OllamaOptions | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    keep_alive: int | float | str | None = None


class OllamaTool(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    type: Literal["function"] | None = None
    function: dict[str, Any]


class OllamaChatBody(OllamaShared):
    """POST /api/chat."""

    messages: list[dict[str, Any]] | None = None
    tools: list[OllamaTool] | None = None


class OllamaGenerateBody(OllamaShared):
    """POST /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    images: list[str] | None = None
    raw: bool | None = None


class OllamaShowBody(BaseModel):
    """POST /api/show. Older clients say `name`."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = None
    name: str | None = None


def read_ollama_chat(raw: bytes) -> Ask:
    """Raises RequestError whose `param` is the dotted path of the field at fault."""
    json, body, ignored = read_body(raw, OllamaChatBody, REFUSED)
    reader = _Reader()
    messages = reader.read(body.messages or [])
    tools = tuple({"type": "function", "function": tool.function} for tool in body.tools or ())
    prompts = (Conversation(messages, tools=tools),) if messages else ()
    return _ask(json, body, prompts, (*ignored, *reader.ignored))


def read_ollama_generate(raw: bytes) -> Ask:
    """Raises RequestError whose `param` is the dotted path of the field at fault."""
    json, body, ignored = read_body(raw, OllamaGenerateBody, REFUSED)
    if not body.prompt and not body.suffix:
        return _ask(json, body, (), ignored)
    if body.suffix or body.raw:
        if body.system or body.images:
            raise unsupported("system" if body.system else "images", "...", "beside raw or suffix there is no template")
        return _ask(json, body, (Document(body.prompt or "", suffix=body.suffix or None),), ignored)
    turns = [Message("system", body.system)] if body.system else []
    turns.append(Message("user", _with_images(body.prompt or "", body.images)))
    return _ask(json, body, (Conversation(tuple(turns)),), ignored)


def read_ollama_show(raw: bytes) -> str:
    """The model's name."""
    _, body, _ = read_body(raw, OllamaShowBody, {})
    if not (name := body.model or body.name):
        raise RequestError("model is missing.", param="model", code="missing_required_parameter")
    return plain_name(name)


def plain_name(model: str) -> str:
    """Ollama's clients add a tag to a name without one."""
    return model.removesuffix(":latest")


def shows_thinking(sent: Json) -> bool:
    return sent.get("think") is not False


def _ask(json: Json, body: OllamaShared, prompts: tuple[Conversation | Document, ...], ignored: tuple[str, ...]) -> Ask:
    """No prompts: the client only asks for the model to be loaded."""
    if isinstance(body.think, str):
        raise unsupported("think", body.think, "true or false is; how long it reasons is the model's")
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs to be true.", param="top_logprobs")
    sampling = _read_options(body)
    ignored = tuple(path for path in ignored if path.removeprefix("options.") not in REFUSED_OPTIONS)
    stream = body.stream is not False and bool(prompts)
    keep = read_keep_alive(body.keep_alive)
    name = plain_name(body.model)
    return Ask(
        prompts,
        sampling,
        name,
        stream,
        include_usage=True,
        ignored=ignored,
        sent=json,
        keep_alive=keep,
        names=OPTION_NAMES,
    )


def read_keep_alive(value: float | str | None) -> float | None:
    """Seconds that a model stays in memory after the request: a number of them, or Go's text ("5m", "1h30m"). Infinite where
    it is negative; None leaves it to the server."""
    if isinstance(value, str):
        seconds = sum(float(number) * SECONDS[unit] for number, unit in _DURATION.findall(value))
        if value.strip("+-") != "0" and not re.fullmatch(f"[+-]?(?:{_DURATION.pattern})+", value):
            message = f'keep_alive: expected seconds, or a duration such as "5m" or "1h30m"; found {shown(value)}.'
            raise RequestError(message, param="keep_alive")
        value = -seconds if value.startswith("-") else seconds
    return math.inf if value is not None and value < 0 else value


def _read_options(body: OllamaShared) -> Sampling:
    options = body.options or OllamaOptions()
    extra = {name: value for name, value in (options.model_extra or {}).items() if value is not None}
    for name, value in extra.items():
        if name in REFUSED_OPTIONS and not any(value == harmless for harmless in REFUSED_OPTIONS[name]):
            raise unsupported(f"options.{name}", value)
    names = ("temperature", "top_k", "top_p", "min_p", "seed", "presence_penalty", "frequency_penalty")
    limit = options.num_predict
    sampling = Sampling(
        **{name: getattr(options, name) for name in names},
        repetition_penalty=options.repeat_penalty,
        stop=read_stop(options.stop, "options.stop"),
        max_tokens=None if limit in (-1, -2) else limit,  # without end, and until the context is full
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        form=_read_format(body.format),
    )
    return check_sampling(sampling, OPTION_NAMES)


def _read_format(format: str | Json | None) -> Form | None:
    if format in (None, ""):
        return None
    if isinstance(format, dict):
        return Form("schema", orjson.dumps(format).decode(), strict=False, param="format")
    if format != "json":
        raise unsupported("format", format, "'json' or a JSON Schema")
    return Form("json", param="format")


def _with_images(text: str, images: list[str] | None) -> str | tuple[Text | Image, ...]:
    return (Text(text), *(Image(f"data:image/*;base64,{image}") for image in images)) if images else text


class _Call(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    name: str
    arguments: dict[str, Any] | None = None


class _ToolCall(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    function: _Call
    id: str | None = None


class _Turn(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


@dataclass(slots=True)
class _Reader:
    """Messages, whose calls have no ids in Ollama's API: a result belongs to the oldest unanswered call of its tool."""

    open: dict[str, str] = field(default_factory=dict)  # id -> tool, of calls not yet answered
    ignored: list[str] = field(default_factory=list)

    def read(self, rows: list[Json]) -> tuple[Message, ...]:
        turns = [check(row, _Turn, f"messages.{i}") for i, row in enumerate(rows)]
        return tuple(self._read(turn, i) for i, turn in enumerate(turns))

    def _read(self, turn: _Turn, i: int) -> Message:
        self.ignored += unknown(turn, f"messages.{i}")
        content = _with_images(turn.content or "", turn.images)
        if turn.role == "tool":
            id = self._answered(turn, f"messages.{i}")
            return Message("tool", content, tool_call_id=id, name=self.open.pop(id))
        made = []
        for k, call in enumerate(turn.tool_calls or ()):
            id = call.id or f"call_{i}_{k}"
            self.open[id] = call.function.name
            made.append(ToolCall(id, call.function.name, orjson.dumps(call.function.arguments or {}).decode()))
        return Message(turn.role, content, turn.thinking or None, tuple(made))

    def _answered(self, turn: _Turn, path: str) -> str:
        if turn.tool_call_id is not None:
            found = turn.tool_call_id if turn.tool_call_id in self.open else None
        else:
            found = next((id for id, tool in self.open.items() if turn.tool_name in (None, tool)), None)
        if found is None:
            raise RequestError(f"{path}: no earlier turn made a call that this answers.", param=path)
        return found
