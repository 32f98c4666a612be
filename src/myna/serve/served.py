"""A model as the server gives it out: its provider, with every answer counted, timed, and charged to who asked."""

import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import orjson

from myna.provider import Provider
from myna.records import ChatError, Conversation, DataError, Delta, Document, RequestError, Sampling, Unavailable
from myna.serve.account import ACCOUNT, Account
from myna.serve.limits import Limits
from myna.serve.line import Line
from myna.serve.metrics import Metrics

log = logging.getLogger("myna.serve")
CHARACTERS_A_TOKEN = 4  # what a prompt is charged as when its answer ended before it was counted


class Served:
    """A provider, and all else that it has. `stream` is watched; lines of batches go behind everybody else."""

    def __init__(self, name: str, provider: Provider, limits: Limits, metrics: Metrics, *, log_prompts: bool = False):
        self.name = name
        self._provider, self._metrics, self._log_prompts = provider, metrics, log_prompts
        self._behind: Provider = provider.behind() if hasattr(provider, "behind") else provider
        self.line = Line(name, limits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    @property
    def waiting(self) -> int:
        return self.line.waiting

    @property
    def running(self) -> int:
        return self.line.running

    def stats(self) -> Mapping[str, float]:
        """What the engine counts; nothing where there is none."""
        found = getattr(self._provider, "stats", None)
        return found() if found else {}

    def check_queue(self) -> None:
        """Raises Unavailable (a 429) when the line is full, which is counted. Nothing was tokenized by then."""
        try:
            self.line.check(getattr(self._provider, "queued_tokens", 0))
        except Unavailable:
            self._metrics.requests.labels(self.name).inc()
            self._metrics.refused.labels(self.name).inc()
            raise

    async def stream(
        self, what: Conversation | Document, sampling: Sampling = Sampling()
    ) -> AsyncGenerator[Delta, None]:
        """See Provider.stream."""
        account = ACCOUNT.get() or Account("")
        if self._log_prompts:
            log.info(
                "prompt of %s: %s", account.id, orjson.dumps(what.to_json()).decode(), extra={"request_id": account.id}
            )
        answer = _Answer(self.name, self.line, self._metrics, account, what)
        provider = self._behind if account.background else self._provider
        try:
            async with aclosing(provider.stream(what, sampling)) as deltas:
                async for delta in deltas:
                    answer.hear(delta)
                    yield delta
        except Exception as error:
            answer.fail(error)
            raise
        finally:
            answer.end()


class _Answer:
    """The books of one stream."""

    def __init__(self, name: str, line: Line, metrics: Metrics, account: Account, what: Conversation | Document):
        self._name, self._line, self._metrics, self._account, self._what = name, line, metrics, account, what
        self._started = self._last = time.monotonic()
        self._first: float | None = None
        self._outcome = "cancelled"  # until the stream says otherwise
        self._finish = ""
        self._generated = 0
        self._counted = False  # whether the prompt was
        self._between = metrics.between_tokens.labels(name)
        metrics.requests.labels(name).inc()
        line.enter()

    def hear(self, delta: Delta) -> None:
        if delta.tokens or delta.text or delta.reasoning or delta.tool_calls:
            self._hear_tokens(len(delta.tokens) or 1)  # a remote endpoint need not tell its tokens
        if delta.finish_reason and not self._finish:
            self._finish = delta.finish_reason
        if delta.usage is not None:
            self._outcome = self._finish
            self._count_prompt(delta.usage.prompt_tokens)
            for seconds, times in (
                (delta.usage.queued, self._metrics.queued),
                (delta.usage.prefilled, self._metrics.prefilled),
            ):
                if seconds is not None:
                    times.labels(self._name).observe(seconds)

    def _hear_tokens(self, count: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self._line.start()
            self._metrics.first_token.labels(self._name).observe(now - self._started)
            if self._account.first_token is None:
                self._account.first_token = now - self._account.arrived
        else:
            self._between.observe(now - self._last)
        self._last = now
        self._generated += count
        self._charge(count)

    def fail(self, error: Exception) -> None:
        mine = isinstance(error, RequestError | Unavailable | ChatError | DataError)
        self._outcome = "refused" if mine and self._first is None else "failed"

    def end(self) -> None:
        self._line.give_up() if self._first is None else self._line.end()
        if not self._counted and self._outcome in ("cancelled", "failed"):
            self._count_prompt(_length(self._what) // CHARACTERS_A_TOKEN)
        account, metrics, name = self._account, self._metrics, self._name
        account.model, account.outcome = name, self._outcome
        account.completion_tokens += self._generated
        metrics.generation_tokens.labels(name).inc(self._generated)
        unanswered = {"cancelled": metrics.cancelled, "failed": metrics.failed, "refused": metrics.refused}
        if self._outcome in unanswered:
            unanswered[self._outcome].labels(name).inc()
            return
        metrics.succeeded.labels(name, self._outcome).inc()
        metrics.whole.labels(name).observe(self._last - self._started)
        metrics.decoding.labels(name).observe(self._last - (self._first or self._last))

    def _count_prompt(self, tokens: int) -> None:
        self._counted = True
        self._account.prompt_tokens += tokens
        self._metrics.prompt_tokens.labels(self._name).inc(tokens)
        self._charge(tokens)

    def _charge(self, tokens: int) -> None:
        if self._account.caller:
            self._account.caller.charge(tokens)


def _length(what: Conversation | Document) -> int:
    """Characters of a prompt; of one that is token ids, as many as those stand for."""
    if isinstance(what, Conversation):
        return sum(len(message.text) for message in what.messages)
    return CHARACTERS_A_TOKEN * len(what.tokens.ids) if what.tokens else len(what.text)
