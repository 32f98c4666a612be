"""What one event of a stream is in the APIs whose events are of several kinds: Anthropic's, OpenAI's Responses, Ollama's lines."""

from typing import Any, Literal

from pydantic import RootModel

from myna.provider.wire.answers import (
    CallItem,
    ChosenToken,
    MessageItem,
    MessageReply,
    MessagesUsage,
    OllamaCall,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseReply,
    TextBlock,
    ThinkingBlock,
    ToolUseBlock,
)
from myna.provider.wire.replies import AnthropicErrorReply, Count, OllamaErrorReply, Reply

# Anthropic's.


class BegunMessage(MessageReply):
    """A message of which nothing was said yet."""

    stop_reason: None  # type: ignore[assignment]


class MessageStart(Reply):
    type: Literal["message_start"]
    message: BegunMessage


class BlockStart(Reply):
    type: Literal["content_block_start"]
    index: Count
    content_block: TextBlock | ThinkingBlock | ToolUseBlock


class TextPiece(Reply):
    type: Literal["text_delta"]
    text: str


class ThinkingPiece(Reply):
    type: Literal["thinking_delta"]
    thinking: str


class JsonPiece(Reply):
    type: Literal["input_json_delta"]
    partial_json: str


class BlockDelta(Reply):
    type: Literal["content_block_delta"]
    index: Count
    delta: TextPiece | ThinkingPiece | JsonPiece


class BlockStop(Reply):
    type: Literal["content_block_stop"]
    index: Count


class MessageEnding(Reply):
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    flaw: str | None = None


class MessageDelta(Reply):
    type: Literal["message_delta"]
    delta: MessageEnding
    usage: MessagesUsage


class MessageStop(Reply):
    type: Literal["message_stop"]


class MessagesEvent(
    RootModel[MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | AnthropicErrorReply]
):
    """An event of a message's stream: message_start, of each block its start, deltas and stop, message_delta, message_stop."""


# OpenAI's Responses.

State = Literal["in_progress", "completed", "incomplete", "failed"]


class Numbered(Reply):
    sequence_number: Count


class UnfinishedResponse(ResponseReply):
    status: State  # type: ignore[assignment]
    error: dict[str, Any] | None  # type: ignore[assignment]


class ResponseEvent(Numbered):
    """The whole response, as far as it came."""

    type: Literal[
        "response.created", "response.in_progress", "response.completed", "response.incomplete", "response.failed"
    ]
    response: UnfinishedResponse


class BegunMessageItem(MessageItem):
    status: State  # type: ignore[assignment]


class BegunReasoningItem(ReasoningItem):
    status: State  # type: ignore[assignment]


class BegunCallItem(CallItem):
    status: State  # type: ignore[assignment]


class ItemEvent(Numbered):
    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: Count
    item: BegunMessageItem | BegunReasoningItem | BegunCallItem


class OfItem(Numbered):
    item_id: str
    output_index: Count


class OfPart(OfItem):
    content_index: Count


class PartEvent(OfPart):
    type: Literal["response.content_part.added", "response.content_part.done"]
    part: OutputText | ReasoningText


class OutputDelta(OfPart):
    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: list[ChosenToken]


class OutputDone(OfPart):
    type: Literal["response.output_text.done"]
    text: str
    logprobs: list[ChosenToken]


class ReasoningDelta(OfPart):
    type: Literal["response.reasoning_text.delta"]
    delta: str


class ReasoningDone(OfPart):
    type: Literal["response.reasoning_text.done"]
    text: str


class ArgumentsDelta(OfItem):
    type: Literal["response.function_call_arguments.delta"]
    delta: str


class ArgumentsDone(OfItem):
    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class ErrorEvent(Numbered):
    """After response.failed: OpenAI's client raises at it."""

    type: Literal["error"]
    code: str | None
    message: str
    param: str | None
    error: dict[str, Any]


class ResponsesEvent(
    RootModel[
        ResponseEvent
        | ItemEvent
        | PartEvent
        | OutputDelta
        | OutputDone
        | ReasoningDelta
        | ReasoningDone
        | ArgumentsDelta
        | ArgumentsDone
        | ErrorEvent
    ]
):
    """An event of a response's stream; its `type` is the event's name too."""


# Ollama's.


class OllamaPiece(Reply):
    role: Literal["assistant"]
    content: str
    thinking: str | None = None
    tool_calls: list[OllamaCall] | None = None


class Line(Reply):
    model: str
    created_at: str
    done: Literal[False]
    logprobs: list[ChosenToken] | None = None


class LastLine(Reply):
    """The end, with the counts; durations are nanoseconds."""

    model: str
    created_at: str
    done: Literal[True]
    done_reason: Literal["stop", "length", "load", "unload"]
    total_duration: Count | None = None
    load_duration: Count | None = None
    prompt_eval_count: Count | None = None
    prompt_eval_duration: Count | None = None
    eval_count: Count | None = None
    eval_duration: Count | None = None
    flaw: str | None = None


class ChatLine(Line):
    message: OllamaPiece


class LastChatLine(LastLine):
    message: OllamaPiece


class GenerateLine(Line):
    response: str
    thinking: str | None = None


class LastGenerateLine(LastLine):
    response: str


class OllamaChatLine(RootModel[ChatLine | LastChatLine | OllamaErrorReply]):
    """A line of a chat's stream."""


class OllamaGenerateLine(RootModel[GenerateLine | LastGenerateLine | OllamaErrorReply]):
    """A line of a generated text's stream."""
