"""OpenAI's Responses API: a request as a conversation, an answer as output items and the events that build them.

Stateless: nothing is stored, so a request that asks to store, or to go on from something stored, is refused.
Source: https://platform.openai.com/docs/api-reference/responses (2026), and the types of the openai package.
"""

from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from myna.provider.wire.body import SamplingBody, check, check_sampling, read_body, read_stop, strange, unsupported
from myna.provider.wire.calls import Calls
from myna.provider.wire.request import Ask
from myna.provider.wire.tools import allow
from myna.records import (
    Conversation,
    Form,
    Image,
    Json,
    Message,
    RequestError,
    Sampling,
    Text,
    ToolCall,
    ToolChoice,
)

LOGPROBS = "message.output_text.logprobs"
# Reasoning comes back in plain sight, so there is nothing to encrypt; the others belong to tools that are refused.
INCLUDABLE = {
    LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "message.input_image.image_url",
}
REFUSED: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "previous_response_id": (),
    "conversation": (),
    "background": (False,),
    "prompt": (),
    "truncation": ("disabled",),
    "context_management": ([],),
    "moderation": (),
    "n": (1,),
}
# Fields we know that change nothing here: limits on tools that are refused, names for accounting, labels.
HARMLESS = {"max_tool_calls", "metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
# What items have: what is read of them, and what they come back with when an answer's are sent again.
ITEMS = {
    "type",
    "role",
    "content",
    "call_id",
    "name",
    "arguments",
    "output",
    "id",
    "status",
    "phase",
    "summary",
    "encrypted_content",
}
PARTS = {"type", "text", "refusal", "image_url", "annotations", "logprobs"}


NAMES = {
    "max_tokens": "max_output_tokens",
    "logprobs": "top_logprobs",
    "messages": "input",
}


class ResponsesTool(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesFormat(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponsesText(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    format: ResponsesFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponsesReasoning(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    effort: str | None = None
    summary: str | None = None


class ResponsesBody(SamplingBody):
    """POST /v1/responses. Beyond OpenAI's fields: top_k, min_p, the penalties, seed, stop, ignore_eos."""

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    stop: str | list[str] | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    tools: list[ResponsesTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: ResponsesText | None = None
    reasoning: ResponsesReasoning | None = None
    metadata: dict[str, str] | None = None


def read_responses(raw: bytes) -> Ask:
    """Raises RequestError whose `param` is the dotted path of the field at fault."""
    json, body, ignored = read_body(raw, ResponsesBody, REFUSED)
    include = set(body.include or ())
    if unknown := sorted(include - INCLUDABLE):
        raise unsupported("include", unknown[0], f"what can be included: {', '.join(sorted(INCLUDABLE))}")
    if body.top_logprobs is not None and LOGPROBS not in include:
        raise RequestError(f"top_logprobs needs include to have {LOGPROBS!r}.", param="top_logprobs")
    if body.reasoning and body.reasoning.effort is not None:
        raise unsupported("reasoning.effort", body.reasoning.effort, "the model decides how long it reasons")
    if body.reasoning and body.reasoning.summary not in (None, "auto"):
        raise unsupported("reasoning.summary", body.reasoning.summary, "reasoning comes whole, not summarized")
    choice, tools = _read_tools(body)
    sampling = Sampling(
        **body.sampling(),
        stop=read_stop(body.stop),
        max_tokens=body.max_output_tokens,
        logprobs=(body.top_logprobs or 0) if LOGPROBS in include else None,
        form=_read_form(body.text),
        tool_choice=choice,
    )
    check_sampling(sampling, NAMES)
    turns = _Turns(body.instructions)
    messages = turns.read(body.input)
    ask = Conversation(messages, tools=tools)
    left = (*(name for name in ignored if name not in HARMLESS), *turns.ignored)
    names = NAMES | {f"tools.{i}.function.parameters": f"tools.{i}.parameters" for i in range(len(tools))}
    return Ask(
        (ask,), sampling, body.model, bool(body.stream), include_usage=True, ignored=left, sent=json, names=names
    )


def _read_tools(body: ResponsesBody) -> tuple[ToolChoice | None, tuple[Json, ...]]:
    tools = [_read_tool(tool, f"tools.{i}") for i, tool in enumerate(body.tools or ())]
    parallel = body.parallel_tool_calls is not False
    if body.tool_choice is None and parallel:
        return None, tuple(tools)
    choice = ToolChoice(parallel=parallel)
    if isinstance(body.tool_choice, dict):
        choice, tools = _read_choice(body.tool_choice, tools, parallel)
    elif body.tool_choice is not None:
        choice = ToolChoice(body.tool_choice, parallel=parallel)
    choice.check(frozenset(tool["function"]["name"] for tool in tools))
    return choice, () if choice.mode == "none" else tuple(tools)


def _read_tool(tool: ResponsesTool, path: str) -> Json:
    """A tool as chat has it."""
    if tool.type != "function":
        raise unsupported(f"{path}.type", tool.type, "this server calls functions of yours and has no tools of its own")
    if not tool.name:
        raise RequestError(f"{path}.name is missing.", param=f"{path}.name", code="missing_required_parameter")
    given = {"description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    function = {"name": tool.name} | {name: value for name, value in given.items() if value is not None}
    return {"type": "function", "function": function}


def _read_choice(choice: Json, tools: list[Json], parallel: bool) -> tuple[ToolChoice, list[Json]]:
    """A tool_choice that is an object: one function, or a mode among some of the tools."""
    match choice.get("type"), choice.get("name"):
        case "function", str(name):
            return ToolChoice("named", name, parallel), tools
        case "allowed_tools", _:
            asked, allowed = allow(choice, tools, parallel, "tool_choice")
            return asked, [*allowed]
    raise unsupported("tool_choice", choice, "'auto', 'none', 'required', a function, or allowed_tools")


def _read_form(text: ResponsesText | None) -> Form | None:
    if text is None:
        return None
    if text.verbosity not in (None, "medium"):
        raise unsupported("text.verbosity", text.verbosity, "say it in the instructions")
    asked = text.format
    if asked is not None and asked.type == "json_schema":
        if asked.json_schema is None:
            path = "text.format.schema"
            raise RequestError(f"{path} is missing.", param=path, code="missing_required_parameter")
        source = orjson.dumps(asked.json_schema).decode()
        return Form("schema", source, strict=bool(asked.strict), param="text.format.schema")
    return Form("json", param="text.format") if asked is not None and asked.type == "json_object" else None


class _Turns:
    """Input items to messages. What one answer said, its reasoning, text and calls, is several items and one turn."""

    def __init__(self, instructions: str | None):
        self._done = [Message("system", instructions)] if instructions else []
        self._calls = Calls()
        self._reasoning, self._text = "", ""
        self._made: list[ToolCall] = []
        self.ignored: list[str] = []

    def read(self, items: str | list[Json]) -> tuple[Message, ...]:
        if isinstance(items, str):
            return (*self._done, Message("user", items))
        if not items:
            raise RequestError("input is empty; send at least one item.", param="input")
        for i, item in enumerate(items):
            self._read(item, f"input.{i}")
            self._note(item, f"input.{i}")
        self._close()
        return tuple(self._done)

    def _read(self, item: Json, path: str) -> None:
        match item.get("type", "message" if "role" in item else None):
            case "message":
                self._message(check(item, _MessageItem, path), path)
            case "function_call":
                call = check(item, _CallItem, path)
                self._calls.made(call.call_id, call.name, f"{path}.call_id")
                self._made.append(ToolCall(call.call_id, call.name, call.arguments))
            case "function_call_output":
                self._close()
                result = check(item, _OutputItem, path)
                name = self._calls.answered(result.call_id, f"{path}.call_id")
                content = _read_content(result.output, f"{path}.output")
                self._done.append(Message("tool", content, tool_call_id=result.call_id, name=name))
            case "reasoning":
                if self._text or self._made:
                    self._close()
                parts = check(item, _ReasoningItem, path).content or []
                self._reasoning += "".join(str(part.get("text", "")) for part in parts)
            case other:
                note = "an item is a message, function_call, function_call_output or reasoning; nothing is stored here"
                raise unsupported(f"{path}.type", other, note)

    def _note(self, item: Json, path: str) -> None:
        self.ignored += strange(item, ITEMS, path)
        for name in ("content", "output"):
            if isinstance(parts := item.get(name), list):
                self.ignored += (
                    at for i, part in enumerate(parts) for at in strange(part, PARTS, f"{path}.{name}.{i}")
                )

    def _message(self, item: "_MessageItem", path: str) -> None:
        content = _read_content(item.content, f"{path}.content")
        if item.role != "assistant":
            self._close()
            self._done.append(Message(item.role, content))
            return
        if self._text and not self._made:
            self._close()
        self._text += Message("assistant", content).text

    def _close(self) -> None:
        if self._reasoning or self._text or self._made:
            turn = Message("assistant", self._text, self._reasoning or None, tuple(self._made))
            self._done.append(turn)
        self._reasoning, self._text, self._made = "", "", []


class _MessageItem(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]


class _CallItem(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    call_id: str
    name: str
    arguments: str


class _OutputItem(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    call_id: str
    output: str | list[dict[str, Any]]


class _ReasoningItem(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    content: list[dict[str, Any]] | None = None


def _read_content(content: str | list[Json], path: str) -> str | tuple[Text | Image, ...]:
    if isinstance(content, str):
        return content
    return tuple(_read_part(part, f"{path}.{i}") for i, part in enumerate(content))


def _read_part(part: Json, path: str) -> Text | Image:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            return Text(text)
        case {"type": "refusal", "refusal": str(text)}:
            return Text(text)
        case {"type": "input_image", "image_url": str(url)}:
            return Image(url)
    raise unsupported(path, part, "a part is input_text, input_image with an image_url, output_text or refusal")
