"""Anthropic's Messages API: a request as a conversation.

Source: https://docs.claude.com/en/api/messages (2026), and the types of the anthropic package.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from myna.provider.wire.body import check, check_sampling, read_body, read_stop, strange, unsupported
from myna.provider.wire.calls import Calls
from myna.provider.wire.request import Ask, going_on
from myna.records import Conversation, Form, Image, Json, Message, RequestError, Sampling, Text, ToolCall, ToolChoice

REFUSED: dict[str, tuple[Any, ...]] = {
    "container": (),
    "mcp_servers": ([],),
    "context_management": ({},),
    "output_format": (),
    "diagnostics": (),
}
# Fields we know that change nothing here, wherever they stand: every prompt is cached, there is one tier, nobody is billed.
HARMLESS = {
    "cache_control", "metadata", "service_tier", "inference_geo", "speed", "user_profile_id", "workspace_id", "signature",
}  # fmt: skip
BLOCKS = {"type", "text", "thinking", "source", "tool_use_id", "content", "is_error", "id", "name", "input"}


NAMES = {"stop": "stop_sequences"}


class MessagesTool(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class MessagesToolChoice(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessagesThinking(BaseModel):
    """What a model reasons is shown in blocks of its own unless `type` is disabled or `display` is omitted."""

    model_config = ConfigDict(strict=True, extra="allow")
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class MessagesFormat(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class MessagesOutput(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    effort: str | None = None
    format: MessagesFormat | None = None


class MessagesTurn(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class CountBody(BaseModel):
    """POST /v1/messages/count_tokens: what makes up a prompt."""

    model_config = ConfigDict(strict=True, extra="allow")
    messages: list[MessagesTurn]
    model: str | None = None
    system: str | list[dict[str, Any]] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: MessagesToolChoice | None = None
    thinking: MessagesThinking | None = None
    output_config: MessagesOutput | None = None


class MessagesBody(CountBody):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1)]
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None


def read_messages(raw: bytes) -> Ask:
    """Raises RequestError whose `param` is the dotted path of the field at fault."""
    json, body, ignored = read_body(raw, MessagesBody, REFUSED)
    conversation, choice, ignored = _read_prompt(body, ignored)
    sampling = Sampling(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=read_stop(body.stop_sequences, "stop_sequences"),
        max_tokens=body.max_tokens,
        form=_read_form(body.output_config),
        tool_choice=choice,
    )
    check_sampling(sampling, NAMES)
    conversation = _going_on(body, conversation, sampling)
    if body.thinking and body.thinking.budget_tokens is not None:
        ignored = (*ignored, "thinking.budget_tokens")  # the model decides; Anthropic too calls it a target
    return Ask(
        (conversation,),
        sampling,
        body.model,
        bool(body.stream),
        include_usage=True,
        ignored=ignored,
        sent=json,
        names=NAMES
        | {f"tools.{i}.function.parameters": f"tools.{i}.input_schema" for i in range(len(body.tools or ()))},
    )


def read_count(raw: bytes) -> Ask:
    """A prompt to be counted. Raises RequestError as `read_messages` does."""
    json, body, ignored = read_body(raw, CountBody, REFUSED)
    conversation, choice, ignored = _read_prompt(body, ignored)
    sampling = Sampling(tool_choice=choice)
    return Ask((_going_on(body, conversation, sampling),), sampling, body.model, ignored=ignored, sent=json)


def shows_thinking(sent: Json) -> bool:
    """Whether the reasoning of an answer to this body is to be shown."""
    thinking = sent.get("thinking") or {}
    return thinking.get("type") != "disabled" and thinking.get("display") != "omitted"


def _read_prompt(body: CountBody, ignored: tuple[str, ...]) -> tuple[Conversation, ToolChoice | None, tuple[str, ...]]:
    if not body.messages:
        raise RequestError("messages is empty; send at least one.", param="messages")
    reader = _Reader()
    if body.system is not None:
        content = body.system if isinstance(body.system, str) else _texts(body.system, "system")
        reader.done.append(Message("system", content))
    for i, turn in enumerate(body.messages):
        reader.read(turn, f"messages.{i}.content")
    choice, tools = _read_tools(body)
    ignored = (*ignored, *reader.ignored)
    left = tuple(path for path in ignored if path.rpartition(".")[2] not in HARMLESS)
    return Conversation(tuple(reader.done), tools=tools), choice, left


def _going_on(body: CountBody, conversation: Conversation, sampling: Sampling) -> Conversation:
    """A last turn of the assistant is an answer that is begun."""
    if body.messages[-1].role != "assistant":
        return conversation
    return going_on(conversation, sampling, f"messages.{len(body.messages) - 1}")


def _read_tools(body: CountBody) -> tuple[ToolChoice | None, tuple[Json, ...]]:
    tools = tuple(_read_tool(tool, f"tools.{i}") for i, tool in enumerate(body.tools or ()))
    asked = body.tool_choice
    if asked is None:
        return None, tools
    if asked.type == "none":
        return ToolChoice("none"), ()
    if asked.type == "tool" and not asked.name:
        path = "tool_choice.name"
        raise RequestError(f"{path} is missing.", param=path, code="missing_required_parameter")
    modes: dict[str, Literal["auto", "required", "named"]] = {"auto": "auto", "any": "required", "tool": "named"}
    choice = ToolChoice(modes[asked.type], asked.name or "", parallel=not asked.disable_parallel_tool_use)
    return choice.check(frozenset(tool["function"]["name"] for tool in tools)), tools


def _read_tool(tool: MessagesTool, path: str) -> Json:
    """A tool as chat has it."""
    if tool.type not in (None, "custom"):
        raise unsupported(f"{path}.type", tool.type, "this server calls tools of yours and has none of its own")
    if tool.input_schema is None:
        path = f"{path}.input_schema"
        raise RequestError(f"{path} is missing.", param=path, code="missing_required_parameter")
    given = {"description": tool.description, "strict": tool.strict}
    function = {"name": tool.name, "parameters": tool.input_schema}
    return {"type": "function", "function": function | {k: v for k, v in given.items() if v is not None}}


def _read_form(output: MessagesOutput | None) -> Form | None:
    if output is None:
        return None
    if output.effort not in (None, "high"):  # high is Anthropic's default
        raise unsupported("output_config.effort", output.effort, "the model decides how long it reasons")
    if output.format is None:
        return None
    return Form("schema", orjson.dumps(output.format.json_schema).decode(), param="output_config.format.schema")


class _ToolUse(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    id: str
    name: str
    input: dict[str, Any]


class _ToolResult(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    tool_use_id: str
    content: str | list[dict[str, Any]] | None = None
    is_error: bool | None = None


@dataclass(slots=True)
class _Reader:
    """Turns to messages: a user's turn may hold tool results, each a message of its own, between its words."""

    done: list[Message] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    ignored: list[str] = field(default_factory=list)

    def read(self, turn: MessagesTurn, path: str) -> None:
        blocks = [{"type": "text", "text": turn.content}] if isinstance(turn.content, str) else turn.content
        for i, block in enumerate(blocks):
            self.ignored += strange(block, BLOCKS, f"{path}.{i}")
        if turn.role == "assistant":
            self._assistant(blocks, path)
        elif turn.role == "system":
            self.done.append(Message("system", _texts(blocks, path)))
        else:
            self._user(blocks, path)

    def _user(self, blocks: list[Json], path: str) -> None:
        if not blocks:
            raise RequestError(f"{path} is empty; a user's turn has at least one block.", param=path)
        words: list[Text | Image] = []
        for i, block in enumerate(blocks):
            if block.get("type") != "tool_result":
                words.append(_read_part(block, f"{path}.{i}"))
                continue
            self._say(words)
            words = []
            self._result(check(block, _ToolResult, f"{path}.{i}"), f"{path}.{i}")
        self._say(words)

    def _say(self, words: list[Text | Image]) -> None:
        if len(words) == 1 and isinstance(words[0], Text):
            self.done.append(Message("user", words[0].text))
        elif words:
            self.done.append(Message("user", tuple(words)))

    def _result(self, result: _ToolResult, path: str) -> None:
        name = self.calls.answered(result.tool_use_id, f"{path}.tool_use_id")
        content: str | tuple[Text | Image, ...] = result.content if isinstance(result.content, str) else ""
        if isinstance(result.content, list):
            content = tuple(_read_part(part, f"{path}.content.{i}") for i, part in enumerate(result.content))
        if result.is_error:  # chat templates have no mark for it, so it is said
            content = f"error: {Message('tool', content).text}"
        self.done.append(Message("tool", content, tool_call_id=result.tool_use_id, name=name))

    def _assistant(self, blocks: list[Json], path: str) -> None:
        text, reasoning, made = "", "", []
        for i, block in enumerate(blocks):
            match block:
                case {"type": "text", "text": str(said)}:
                    text += said
                case {"type": "thinking", "thinking": str(thought)}:
                    reasoning += thought
                case {"type": "tool_use"}:
                    use = check(block, _ToolUse, f"{path}.{i}")
                    self.calls.made(use.id, use.name, f"{path}.{i}.id")
                    made.append(ToolCall(use.id, use.name, orjson.dumps(use.input).decode()))
                case _:
                    note = "an assistant's block is text, thinking or tool_use"
                    raise unsupported(f"{path}.{i}", block, note)
        self.done.append(Message("assistant", text, reasoning or None, tuple(made)))


def _read_part(block: Json, path: str) -> Text | Image:
    match block:
        case {"type": "text", "text": str(text)}:
            return Text(text)
        case {"type": "image", "source": {"type": "url", "url": str(url)}}:
            return Image(url)
        case {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}}:
            return Image(f"data:{kind};base64,{data}")
    raise unsupported(path, block, "a block here is text, image or tool_result")


def _texts(blocks: list[Json], path: str) -> str:
    """Blocks that may only be text, joined as paragraphs."""
    for i, block in enumerate(blocks):
        if block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise unsupported(f"{path}.{i}", block, "only text blocks are")
    return "\n\n".join(block["text"] for block in blocks)
