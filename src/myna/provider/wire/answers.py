"""What a model's answer is in each API, whole, as types. See replies.py."""

from typing import Any, Literal

from myna.provider.wire.replies import Count, Reply


class CachedTokens(Reply):
    cached_tokens: Count


class ChatUsage(Reply):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: CachedTokens


class CalledFunction(Reply):
    name: str
    arguments: str


class ToolCallReply(Reply):
    id: str
    type: Literal["function"]
    function: CalledFunction


class Token(Reply):
    """`id` is given where the endpoint that sampled it told."""

    id: int | None = None
    token: str
    logprob: float | None
    bytes: list[int]


class ChosenToken(Token):
    top_logprobs: list[Token]


class ChatLogprobs(Reply):
    content: list[ChosenToken]
    refusal: None


class ChatMessage(Reply):
    role: Literal["assistant"]
    content: str | None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallReply] | None = None


class ChatChoice(Reply):
    index: Count
    flaw: str | None = None
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatReply(Reply):
    """A chat.completion. Streamed: chat.completion.chunk events, then [DONE]."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


class CalledPiece(Reply):
    name: str | None = None
    arguments: str


class ToolCallPiece(Reply):
    """A call's first piece has its id and its name; the arguments of all its pieces, joined, are the call's."""

    index: Count
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledPiece


class ChatDelta(Reply):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallPiece] | None = None


class ChatChunkChoice(Reply):
    index: Count
    flaw: str | None = None
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: str | None


class ChatChunk(Reply):
    """An event of a chat's stream. The first of each choice has the role, the last its finish_reason; usage, if it is asked for,
    comes in one without choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: ChatUsage | None = None


class CompletionLogprobs(Reply):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None]]
    text_offset: list[Count]
    token_ids: list[int] | None = None


class CompletionChoice(Reply):
    index: Count
    flaw: str | None = None
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str


class CompletionReply(Reply):
    """A text_completion. Streamed: text_completion events, then [DONE]."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: ChatUsage


class CompletionChunkChoice(Reply):
    index: Count
    flaw: str | None = None
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: str | None


class CompletionChunk(Reply):
    """An event of a completion's stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChunkChoice]
    usage: ChatUsage | None = None


class OutputText(Reply):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[ChosenToken]


class ReasoningText(Reply):
    type: Literal["reasoning_text"]
    text: str


Status = Literal["completed", "incomplete"]


class MessageItem(Reply):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Status
    content: list[OutputText]


class ReasoningItem(Reply):
    id: str
    type: Literal["reasoning"]
    status: Status
    summary: list[Any]
    content: list[ReasoningText]


class CallItem(Reply):
    id: str
    type: Literal["function_call"]
    status: Status
    call_id: str
    name: str
    arguments: str


class InputDetails(CachedTokens):
    cache_write_tokens: Count


class OutputDetails(Reply):
    reasoning_tokens: Count


class ResponseUsage(Reply):
    input_tokens: Count
    input_tokens_details: InputDetails
    output_tokens: Count
    output_tokens_details: OutputDetails
    total_tokens: Count


class ResponseReply(Reply):
    """A response. Streamed: named events, of which the last, response.completed or .incomplete, holds the whole."""

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: Status
    background: bool
    error: None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: Any
    metadata: dict[str, str]
    output: list[MessageItem | ReasoningItem | CallItem]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, None]
    service_tier: str
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: Any
    tools: list[Any]
    top_logprobs: Count
    top_p: float | None
    truncation: str
    usage: ResponseUsage | None
    user: Any
    flaw: str | None = None


class TextBlock(Reply):
    type: Literal["text"]
    text: str


class ThinkingBlock(Reply):
    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(Reply):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessagesUsage(Reply):
    input_tokens: Count
    cache_creation_input_tokens: Count
    cache_read_input_tokens: Count
    output_tokens: Count


class MessageReply(Reply):
    """Anthropic's message. Streamed: message_start, content blocks, message_delta, message_stop."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessagesUsage
    flaw: str | None = None


class OllamaCalled(Reply):
    name: str
    arguments: dict[str, Any]


class OllamaCall(Reply):
    id: str
    function: OllamaCalled


class OllamaMessage(Reply):
    role: Literal["assistant"]
    content: str
    thinking: str | None = None
    tool_calls: list[OllamaCall] | None = None


class OllamaReply(Reply):
    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load", "unload"]
    logprobs: list[ChosenToken] | None = None
    total_duration: Count | None = None
    load_duration: Count | None = None
    prompt_eval_count: Count | None = None
    eval_count: Count | None = None
    flaw: str | None = None


class OllamaChatReply(OllamaReply):
    """Streamed, which is the default: a line for each piece, and a last one with `done` true."""

    message: OllamaMessage


class OllamaGenerateReply(OllamaReply):
    """Streamed, which is the default: a line for each piece, and a last one with `done` true."""

    response: str
    thinking: str | None = None
