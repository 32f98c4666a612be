"""An answer in OpenAI's Responses API: output items, and the events that build them."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from myna.provider.wire.logprobs import write_tokens
from myna.provider.wire.request import Ask
from myna.records import CallPiece, Delta, Json, Sampled, Usage

# What the response object says again of the request.
REPEATED = ("instructions", "max_output_tokens", "max_tool_calls", "temperature", "top_p", "user")


@dataclass(slots=True)
class _Item:
    """The output item being written. `kind` is "reasoning", "message", or the number of a call."""

    kind: str | int
    index: int
    fields: Json
    said: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.fields["id"])

    @property
    def part(self) -> Json:
        """The content part of a reasoning or message item, as far as it was said."""
        text = "".join(self.said)
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(self.logprobs)}

    def written(self, status: str) -> Json:
        if isinstance(self.kind, int):
            return self.fields | {"arguments": "".join(self.said), "status": status}
        return self.fields | {"content": [self.part], "status": status}


class ResponsesWriter:
    """Events in OpenAI's order: created, in_progress; of each item added, its parts and deltas, done; completed."""

    def __init__(self, ask: Ask, model: str):
        self._ask, self._model = ask, model
        self._id, self._created = f"resp_{uuid.uuid4().hex}", int(time.time())
        self._numbered = 0
        self._output: list[Json] = []
        self._item: _Item | None = None
        self._finish: str | None = None
        self._flaw: str | None = None
        self._usage: Usage | None = None
        self._reasoned = 0
        self._lagging: tuple[Sampled, ...] = ()  # tokens whose text is still held back

    def opening(self) -> list[Json]:
        response = self._response("in_progress")
        return [self._event(f"response.{kind}", response=response) for kind in ("created", "in_progress")]

    def chunks(self, delta: Delta) -> Iterator[Json]:
        self._finish = delta.finish_reason or self._finish
        self._flaw = delta.flaw or self._flaw
        self._usage = delta.usage or self._usage
        self._lagging += delta.tokens
        if delta.reasoning:
            self._reasoned += len(self._lagging) if not delta.text else 0
            self._lagging = self._lagging if delta.text else ()
            yield from self._say("reasoning", delta.reasoning, "response.reasoning_text.delta")
        if delta.text:
            tokens, self._lagging = self._lagging, ()
            logprobs = [] if self._ask.sampling.logprobs is None else write_tokens(tokens)
            yield from self._say("message", delta.text, "response.output_text.delta", logprobs)
        for piece in delta.tool_calls:
            yield from self._call(piece)

    def closing(self) -> list[Json]:
        status = self._ending
        events = list(self._close(status))
        return [*events, self._event(f"response.{status}", response=self._response(status))]

    def failed(self, status: int, error: Json) -> list[Json]:
        """The response as far as it came, marked failed; then an error, at which OpenAI's client raises."""
        said = error["error"]
        code = "rate_limit_exceeded" if status == 429 else "server_error"
        events = list(self._close("incomplete"))
        response = self._response("failed") | {"error": {"code": code, "message": said["message"]}}
        flat = {name: said[name] for name in ("code", "message", "param")}
        return [*events, self._event("response.failed", response=response), self._event("error", **flat, error=said)]

    def whole(self, deltas: list[Delta]) -> Json:
        for delta in deltas:
            for _ in self.chunks(delta):
                pass
        return dict(self.closing()[-1]["response"])

    @property
    def _ending(self) -> str:
        return "incomplete" if self._finish == "length" else "completed"

    def _say(self, kind: str, text: str, event: str, logprobs: list[Json] | None = None) -> Iterator[Json]:
        """Text or reasoning, in an item and a content part of its own."""
        if self._item is None or self._item.kind != kind:
            yield from self._close("completed")
            fields: Json = {"id": f"rs_{uuid.uuid4().hex}", "type": "reasoning", "summary": []}
            if kind == "message":
                fields = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant"}
            self._item = _Item(kind, len(self._output), fields)
            yield self._added(self._item, content=[])
            yield self._within(self._item, "response.content_part.added", part=self._item.part)
        self._item.said.append(text)
        self._item.logprobs += logprobs or []
        extra: Json = {} if logprobs is None else {"logprobs": logprobs}
        yield self._within(self._item, event, delta=text, **extra)

    def _call(self, piece: CallPiece) -> Iterator[Json]:
        if self._item is None or self._item.kind != piece.index:
            yield from self._close("completed")
            fields = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call"}
            fields |= {"call_id": piece.id, "name": piece.name}
            self._item = _Item(piece.index, len(self._output), fields)
            yield self._added(self._item, arguments="")
        if piece.arguments:
            self._item.said.append(piece.arguments)
            name = "response.function_call_arguments.delta"
            yield self._event(name, item_id=self._item.id, output_index=self._item.index, delta=piece.arguments)

    def _added(self, item: _Item, **empty: Any) -> Json:
        fields = item.fields | empty | {"status": "in_progress"}
        return self._event("response.output_item.added", output_index=item.index, item=fields)

    def _close(self, status: str) -> Iterator[Json]:
        """The events that end the item being written, if there is one."""
        item, self._item = self._item, None
        if item is None:
            return
        text = "".join(item.said)
        if isinstance(item.kind, int):
            done = {"item_id": item.id, "output_index": item.index, "name": item.fields["name"], "arguments": text}
            yield self._event("response.function_call_arguments.done", **done)
        else:
            said = {"text": text} | ({"logprobs": item.logprobs} if item.kind == "message" else {})
            name = "reasoning_text" if item.kind == "reasoning" else "output_text"
            yield self._within(item, f"response.{name}.done", **said)
            yield self._within(item, "response.content_part.done", part=item.part)
        self._output.append(item.written(status))
        yield self._event("response.output_item.done", output_index=item.index, item=self._output[-1])

    def _within(self, item: _Item, kind: str, **fields: Any) -> Json:
        return self._event(kind, item_id=item.id, output_index=item.index, content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, "sequence_number": self._numbered} | fields
        self._numbered += 1
        return event

    def _response(self, status: str) -> Json:
        """The response object; what the request said is repeated in it, as OpenAI does."""
        sent = self._ask.sent
        repeated = {name: sent.get(name) for name in REPEATED}
        cut = status == "incomplete"
        repeated |= {"flaw": self._flaw} if self._flaw else {}
        return repeated | {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "model": self._model,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "metadata": sent.get("metadata") or {},
            "output": list(self._output),
            "parallel_tool_calls": sent.get("parallel_tool_calls") is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "text": {"format": (sent.get("text") or {}).get("format") or {"type": "text"}},
            "tool_choice": sent.get("tool_choice") or "auto",
            "tools": sent.get("tools") or [],
            "top_logprobs": sent.get("top_logprobs") or 0,
            "truncation": "disabled",
            "usage": None if self._usage is None else _write_usage(self._usage, self._reasoned),
        }


def _write_usage(usage: Usage, reasoned: int) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoned},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
