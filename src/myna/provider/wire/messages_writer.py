"""An answer in Anthropic's Messages API: content blocks, and the events that build them."""

import uuid
from collections.abc import Iterator
from typing import Any

from myna.provider.wire.calls import read_arguments
from myna.provider.wire.error import in_shape_of
from myna.provider.wire.messages import shows_thinking
from myna.provider.wire.request import Ask
from myna.records import CallPiece, Delta, Json, Usage

EMPTY: dict[str, Json] = {
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "text": {"type": "text", "text": ""},
}


class MessagesWriter:
    """Events in Anthropic's order: message_start; of each block start, deltas, stop; message_delta, message_stop.

    The prompt's length is known at the end only, so message_start says 0 input tokens and message_delta the truth; clients
    take the later one.
    """

    def __init__(self, ask: Ask, model: str):
        self._shows_thinking = shows_thinking(ask.sent)
        self._message: Json = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _write_usage(Usage()),
        }
        self._kind: str | int | None = None  # of the open block: "text", "thinking", or the number of a call
        self._blocks: list[Json] = []
        self._said: list[list[str]] = []
        self._finish = "stop"
        self._stop: str | None = None
        self._flaw: str | None = None
        self._usage = Usage()

    def opening(self) -> list[Json]:
        return [{"type": "message_start", "message": dict(self._message)}]

    def chunks(self, delta: Delta) -> Iterator[Json]:
        if delta.finish_reason:
            self._finish, self._stop, self._flaw = delta.finish_reason, delta.stop, delta.flaw
        self._usage = delta.usage or self._usage
        if delta.reasoning and self._shows_thinking:
            yield from self._begin("thinking", EMPTY["thinking"])
            yield self._say(delta.reasoning, type="thinking_delta", thinking=delta.reasoning)
        if delta.text:
            yield from self._begin("text", EMPTY["text"])
            yield self._say(delta.text, type="text_delta", text=delta.text)
        for piece in delta.tool_calls:
            yield from self._call(piece)

    @property
    def _ending(self) -> Json:
        """A named tool's call ends with "stop" in OpenAI's API, and with tool_use like any other in this one."""
        called = any(block["type"] == "tool_use" for block in self._blocks)
        reason = "stop_sequence" if self._stop is not None else "tool_use" if called else "end_turn"
        ending = {"stop_reason": "max_tokens" if self._finish == "length" else reason, "stop_sequence": self._stop}
        return ending | ({"flaw": self._flaw} if self._flaw else {})

    def closing(self) -> list[Json]:
        ending = {"type": "message_delta", "delta": self._ending, "usage": _write_usage(self._usage)}
        return [*self._end(), ending, {"type": "message_stop"}]

    def failed(self, status: int, error: Json) -> list[Json]:
        return [in_shape_of("/v1/messages", status, error)]

    def whole(self, deltas: list[Delta]) -> Json:
        for delta in deltas:
            for _ in self.chunks(delta):
                pass
        content = [_finished(block, "".join(said)) for block, said in zip(self._blocks, self._said, strict=True)]
        return self._message | {"content": content} | self._ending | {"usage": _write_usage(self._usage)}

    def _call(self, piece: CallPiece) -> Iterator[Json]:
        yield from self._begin(piece.index, {"type": "tool_use", "id": piece.id, "name": piece.name, "input": {}})
        if piece.arguments:
            yield self._say(piece.arguments, type="input_json_delta", partial_json=piece.arguments)

    def _begin(self, kind: str | int, block: Json) -> Iterator[Json]:
        """A new block, unless one of this kind is open."""
        if self._kind == kind:
            return
        yield from self._end()
        self._kind = kind
        self._blocks.append(block)
        self._said.append([])
        yield {"type": "content_block_start", "index": len(self._blocks) - 1, "content_block": block}

    def _say(self, said: str, /, **delta: Any) -> Json:
        self._said[-1].append(said)
        return {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}

    def _end(self) -> list[Json]:
        if self._kind is None:
            return []
        self._kind = None
        return [{"type": "content_block_stop", "index": len(self._blocks) - 1}]


def _finished(block: Json, said: str) -> Json:
    if block["type"] == "tool_use":
        return block | {"input": read_arguments(said)}
    return block | {block["type"]: said}


def _write_usage(usage: Usage) -> Json:
    """Anthropic counts what came from the cache apart from what did not."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
