"""An answer on the wire: the chunks of a stream, written and read, and the whole reply, written.

A chunk of ours gives a token's id beside its log-probability ("id", as llama.cpp does; "token_ids" in completions),
so that between two Mynas the evidence of what was sampled survives the wire.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Protocol

from myna.provider.wire.logprobs import Offsets, read_tokens, write_legacy_tokens, write_tokens
from myna.provider.wire.request import Ask
from myna.records import CallPiece, Candidate, Conversation, Delta, Document, Json, Sampled, ToolCall, Usage, fold
from myna.records.fields import Fields

MOST = 1 << 40  # tokens of one call that anybody can have counted


class Writer(Protocol):
    """Writes one request's answer. Choice i of a chunk is candidate i of the deltas.

    A stream is opening, chunks, and closing; or, from wherever it stands, what `failed` makes of an error in OpenAI's shape.
    """

    def opening(self) -> list[Json]: ...
    def chunks(self, delta: Delta) -> Iterator[Json]: ...
    def closing(self) -> list[Json]: ...
    def failed(self, status: int, error: Json) -> list[Json]: ...
    def whole(self, deltas: list[Delta]) -> Json: ...


class _Ended:
    """How a stream of OpenAI's older endpoints ends: with nothing of its own, or with the error."""

    def closing(self) -> list[Json]:
        return []

    def failed(self, status: int, error: Json) -> list[Json]:
        return [error]


class Envelope:
    """What every chunk of one answer, and the whole of it, begin with."""

    def __init__(self, prefix: str, kind: str, model: str):
        self._fields = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def write(self, choices: list[Json], *, kind: str | None = None, usage: Usage | None = None) -> Json:
        row = self._fields | ({"object": kind} if kind else {}) | {"choices": choices}
        return row | ({"usage": write_usage(usage)} if usage else {})


class ChatWriter(_Ended):
    """chat.completion and chat.completion.chunk. `reasoning` repeats `reasoning_content`: both names are in use."""

    def __init__(self, ask: Ask, model: str):
        self._envelope = Envelope("chatcmpl", "chat.completion", model)
        self._ask = ask

    def opening(self) -> list[Json]:
        """The role chunk of each choice."""
        role = {"role": "assistant", "content": ""}
        return [
            self._chunk({"index": i, "delta": role, "logprobs": None, "finish_reason": None})
            for i in range(self._ask.choices)
        ]

    def chunks(self, delta: Delta) -> Iterator[Json]:
        """Nothing, when the delta holds nothing that a client would see. The usage has a chunk of its own, and so has each
        further piece of one call."""
        said: Json = {"content": delta.text} if delta.text else {}
        if delta.reasoning:
            said |= {"reasoning_content": delta.reasoning, "reasoning": delta.reasoning}
        some, *others = _apart(delta.tool_calls)
        logprobs = self._logprobs(delta.tokens)
        for pieces in (some, *others):
            if pieces:
                said["tool_calls"] = [_write_piece(piece) for piece in pieces]
            last = not others or pieces is others[-1]
            if said or logprobs or delta.finish_reason:
                finish = delta.finish_reason if last else None
                choice = {"index": delta.candidate, "delta": said, "logprobs": logprobs, "finish_reason": finish}
                yield self._chunk(choice | _write_flaw(delta.flaw if last else None))
            said, logprobs = {}, None
        if delta.usage and self._ask.include_usage:
            yield self._envelope.write([], kind="chat.completion.chunk", usage=delta.usage)

    def whole(self, deltas: list[Delta]) -> Json:
        reply = fold(deltas)
        pairs = zip(reply.candidates, reply.sampled, strict=True)
        flaws = {delta.candidate: delta.flaw for delta in deltas if delta.flaw}
        choices = [self._choice(i, *pair) | _write_flaw(flaws.get(i)) for i, pair in enumerate(pairs)]
        return self._envelope.write(choices, usage=reply.usage)

    def _chunk(self, choice: Json) -> Json:
        return self._envelope.write([choice], kind="chat.completion.chunk")

    def _choice(self, index: int, candidate: Candidate, sampled: tuple[Sampled, ...]) -> Json:
        said = candidate.messages[-1]
        may_call = any(isinstance(what, Conversation) and what.tools for what in self._ask.prompts)
        content = said.text or (None if said.tool_calls or may_call else "")
        message: Json = {"role": "assistant", "content": content}
        if said.reasoning_content:
            message |= {"reasoning_content": said.reasoning_content, "reasoning": said.reasoning_content}
        if said.tool_calls:
            message["tool_calls"] = [call.to_json() for call in said.tool_calls]
        logprobs, finish = self._logprobs(sampled), candidate.finish_reason
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, tokens: tuple[Sampled, ...]) -> Json | None:
        if self._ask.sampling.logprobs is None or not tokens:
            return None
        return {"content": write_tokens(tokens), "refusal": None}


class CompletionWriter(_Ended):
    """text_completion, streamed or whole. With `echo` each choice begins with its prompt."""

    def __init__(self, ask: Ask, model: str):
        self._envelope = Envelope("cmpl", "text_completion", model)
        self._ask = ask
        self._offsets: defaultdict[int, Offsets] = defaultdict(Offsets)

    def opening(self) -> list[Json]:
        """Completions have no role chunk: the echoed prompts, or nothing."""
        return [
            self._envelope.write([self._choice(i, self._echo(i))]) for i in range(self._ask.choices) if self._echo(i)
        ]

    def chunks(self, delta: Delta) -> Iterator[Json]:
        logprobs = self._logprobs(delta.candidate, delta.tokens)
        # Completions have no field for reasoning; in a raw continuation it is text like any other.
        text = delta.reasoning + delta.text
        if text or logprobs or delta.finish_reason:
            choice = self._choice(delta.candidate, text, delta.finish_reason, logprobs)
            yield self._envelope.write([choice | _write_flaw(delta.flaw)])
        if delta.usage and self._ask.include_usage:
            yield self._envelope.write([], usage=delta.usage)

    def whole(self, deltas: list[Delta]) -> Json:
        reply = fold(deltas)
        flaws = {delta.candidate: delta.flaw for delta in deltas if delta.flaw}
        choices = []
        for i, (candidate, sampled) in enumerate(zip(reply.candidates, reply.sampled, strict=True)):
            said = candidate.messages[-1]
            text = self._echo(i) + (said.reasoning_content or "") + said.text
            choice = self._choice(i, text, candidate.finish_reason, self._logprobs(i, sampled))
            choices.append(choice | _write_flaw(flaws.get(i)))
        return self._envelope.write(choices, usage=reply.usage)

    def _choice(self, index: int, text: str, finish: str | None = None, logprobs: Json | None = None) -> Json:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _echo(self, choice: int) -> str:
        prompt = self._ask.prompts[choice // (self._ask.sampling.n or 1)]
        return prompt.text if self._ask.echo and isinstance(prompt, Document) else ""

    def _logprobs(self, choice: int, tokens: tuple[Sampled, ...]) -> Json | None:
        if self._ask.sampling.logprobs is None or not tokens:
            return None
        return write_legacy_tokens(tokens, self._offsets[choice])


class ChunkReader:
    """Reads the chunks of one streamed answer, chat or completion, into deltas.

    Raises DataError naming the field ("choices.0.delta.content: ...") on a malformed chunk.
    """

    def __init__(self) -> None:
        self._begun: defaultdict[int, int] = defaultdict(int)  # tool calls of each choice

    def read(self, chunk: object) -> Iterator[Delta]:
        f = Fields(chunk)
        yield from (delta for delta in f.take_list("choices", self._read_choice) if delta != Delta(delta.candidate))
        if usage := f.take("usage", dict, default=None):
            yield Delta(usage=_read_usage(usage))

    def _read_choice(self, value: object, path: str) -> Delta:
        f = Fields(value, path)
        index = f.take("index", int, default=0)
        said = Fields(f.take("delta", dict, default={}), f.at("delta"))
        pieces = said.take_list("tool_calls", lambda value, path: self._read_piece(index, Fields(value, path)))
        finish = f.take("finish_reason", str, default=None)
        logprobs = f.take("logprobs", dict, default=None)
        return Delta(
            index,
            text=said.take("content", str, default="") + f.take("text", str, default=""),
            reasoning=said.take("reasoning_content", str, default="") or said.take("reasoning", str, default=""),
            tool_calls=pieces,
            tokens=() if logprobs is None else read_tokens(Fields(logprobs, f.at("logprobs"))),
            finish_reason=finish,
            flaw=f.take("flaw", str, default=None),
        )

    def _read_piece(self, choice: int, f: Fields) -> CallPiece:
        """Some endpoints send whole calls and no index: a piece with an id begins a call."""
        function = Fields(f.take("function", dict, default={}), f.at("function"))
        id = f.take("id", str, default="")
        begun = self._begun[choice]
        index = f.take("index", int, default=begun if id else max(begun - 1, 0))
        self._begun[choice] = max(begun, index + 1)
        return CallPiece(index, id, function.take("name", str, default=""), function.take("arguments", str, default=""))


def _write_flaw(flaw: str | None) -> Json:
    """Beside a choice's finish_reason; OpenAI says nothing where a schema that is not strict was not kept."""
    return {"flaw": flaw} if flaw else {}


def _apart(pieces: Iterable[CallPiece]) -> list[list[CallPiece]]:
    """Pieces in groups, each with at most one piece of a call: some clients keep but one of a chunk."""
    groups: list[list[CallPiece]] = [[]]
    for piece in pieces:
        if any(piece.index == other.index for other in groups[-1]):
            groups.append([])
        groups[-1].append(piece)
    return groups


def _write_piece(piece: CallPiece) -> Json:
    if not (piece.id or piece.name):
        return {"index": piece.index, "function": {"arguments": piece.arguments}}
    return {"index": piece.index} | ToolCall(piece.id, piece.name, piece.arguments).to_json()


def write_usage(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _read_usage(value: Json) -> Usage | None:
    """None where it cannot be: below 0, beyond MOST, more of the prompt cached than there is. Such a count would make a call cost less
    than nothing, and give a budget back what was spent; not said, it is unknown, and a budget takes the most it could be."""
    f = Fields(value, "usage")
    details = Fields(f.take("prompt_tokens_details", dict, default={}), "usage.prompt_tokens_details")
    prompt, completion = f.take("prompt_tokens", int, default=0), f.take("completion_tokens", int, default=0)
    cached = details.take("cached_tokens", int, default=0)
    fits = 0 <= cached <= prompt <= MOST and 0 <= completion <= MOST
    return Usage(prompt, completion, cached) if fits else None
