"""An answer in Ollama's API: lines of JSON, the last of which has the counts and the times."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from myna.provider.wire.calls import read_arguments
from myna.provider.wire.error import in_shape_of
from myna.provider.wire.logprobs import write_tokens
from myna.provider.wire.ollama import shows_thinking
from myna.provider.wire.request import Ask
from myna.records import Delta, Json, Sampled, ToolCall, Usage, fold

# How a piece of an answer is called: chat has a message, generate a response.
Say = Callable[[str, str, list[Json]], Json]


def say_in_chat(text: str, thinking: str, calls: list[Json]) -> Json:
    message: Json = {"role": "assistant", "content": text}
    return {"message": message | _if_any(thinking=thinking, tool_calls=calls)}


def say_in_generate(text: str, thinking: str, calls: list[Json]) -> Json:
    return {"response": text} | _if_any(thinking=thinking)


class OllamaWriter:
    """Times are nanoseconds: up to the first token is the prompt's, from there on the answer's."""

    def __init__(self, ask: Ask, model: str, say: Say = say_in_chat):
        self._ask, self._model, self._say = ask, model, say
        self._shows_thinking = shows_thinking(ask.sent)
        self._started = time.monotonic_ns()
        self._first: int | None = None
        self._usage = Usage()
        self._finish = "stop"
        self._flaw: str | None = None
        self._calls: list[Delta] = []  # whole calls only: their pieces wait here

    def opening(self) -> list[Json]:
        return []

    def chunks(self, delta: Delta) -> Iterator[Json]:
        if delta.tokens and self._first is None:
            self._first = time.monotonic_ns()
        self._usage = delta.usage or self._usage
        self._flaw = delta.flaw or self._flaw
        self._finish = "length" if delta.finish_reason == "length" else self._finish
        if delta.tool_calls:
            self._calls.append(delta)
        calls = self._take_calls() if delta.finish_reason else []
        thinking = delta.reasoning if self._shows_thinking else ""
        logprobs = self._logprobs(delta.tokens)
        if delta.text or thinking or calls or logprobs:
            yield self._row(delta.text, thinking, calls, done=False) | logprobs

    def closing(self) -> list[Json]:
        return [self._row("", "", [], done=True) | self._ending()]

    def failed(self, status: int, error: Json) -> list[Json]:
        return [in_shape_of("/api/", status, error)]

    def whole(self, deltas: list[Delta]) -> Json:
        if not self._ask.prompts:  # the client only asked for the model to be here, or not to be
            reason = "unload" if self._ask.keep_alive == 0 else "load"
            return self._row("", "", [], done=True) | {"done_reason": reason}
        reply = fold(deltas)
        for delta in deltas:
            for _ in self.chunks(delta):
                pass
        said = reply.candidates[0].messages[-1]
        thinking = (said.reasoning_content or "") if self._shows_thinking else ""
        calls = [_write_call(call) for call in said.tool_calls]
        tokens = self._logprobs(reply.sampled[0])
        return self._row(said.text, thinking, calls, done=True) | tokens | self._ending(timed=False)

    def _take_calls(self) -> list[Json]:
        waiting, self._calls = self._calls, []
        return [_write_call(call) for call in fold(waiting).message.tool_calls] if waiting else []

    def _row(self, text: str, thinking: str, calls: list[Json], *, done: bool) -> Json:
        return {
            "model": self._model,
            "created_at": write_time(time.time()),
            **self._say(text, thinking, calls),
            "done": done,
        }

    def _ending(self, *, timed: bool = True) -> Json:
        """Of an answer that came as one, only the whole time is known here."""
        end = time.monotonic_ns()
        first = self._first or end
        row = {
            "done_reason": self._finish,
            "total_duration": end - self._started,
            "load_duration": 0,
            "prompt_eval_count": self._usage.prompt_tokens,
            "eval_count": self._usage.completion_tokens,
        }
        times = {"prompt_eval_duration": first - self._started, "eval_duration": end - first}
        return row | (times if timed else {}) | _if_any(flaw=self._flaw)

    def _logprobs(self, tokens: tuple[Sampled, ...]) -> Json:
        if self._ask.sampling.logprobs is None or not tokens:
            return {}
        return {"logprobs": write_tokens(tokens)}


def generate_writer(ask: Ask, model: str) -> OllamaWriter:
    return OllamaWriter(ask, model, say_in_generate)


def write_time(seconds: float) -> str:
    """RFC 3339, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _write_call(call: ToolCall) -> Json:
    return {"id": call.id, "function": {"name": call.name, "arguments": read_arguments(call.arguments)}}


def _if_any(**fields: object) -> Json:
    return {name: value for name, value in fields.items() if value}
