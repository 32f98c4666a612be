"""POST /tokenize, /detokenize, /apply-template, as vLLM and llama.cpp have them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.routing import Route

from myna.provider import Provider
from myna.provider.wire import tokens as wire
from myna.records import Conversation, Json, RequestError
from myna.serve.desk import Desk, answers, anything
from myna.serve.plain import Plain

T = TypeVar("T")
AT_ONCE = 2  # texts being tokenized; 2 million characters take a few seconds and 400 MB
Answer = Callable[[bytes], Awaitable[tuple[Json, tuple[str, ...]]]]


def chat_of(provider: Provider) -> Any:
    """The provider's tokenizer and template (myna.chat.Chat). RequestError where they are not in this process, or there is none."""
    if not answers(provider):
        message = f"{provider.name} is an encoder: it has no template, and answers nobody."
        raise RequestError(message, param="model", code="unsupported_model")
    return tokens_of(provider)


def tokens_of(provider: Provider) -> Any:
    """What turns text into the provider's tokens: a myna.chat.Chat, or an encoder's Passages. RequestError where it is not in
    this process."""
    found = getattr(provider, "chat", None) or getattr(provider, "passages", None)
    if found is None:
        message = f"{provider.name} runs elsewhere: its tokenizer is not here. Ask the server that runs it."
        raise RequestError(message, param="model", code="unsupported_model")
    return found


@dataclass(slots=True)
class Tokens:
    """Endpoints that tokenize: off the event loop, and few at once."""

    desk: Desk
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def work(self, function: Callable[..., T], *args: Any) -> T:
        async with self._room:
            return await asyncio.to_thread(function, *args)

    def endpoint(self, answer: Answer) -> Plain:
        return Plain(self.desk, answer)


def routes(desk: Desk) -> list[Route]:
    tokens = Tokens(desk)

    async def tokenize(body: bytes) -> tuple[Json, tuple[str, ...]]:
        ask = wire.read_tokenize(body)
        provider = desk.provider(ask.model, answers if isinstance(ask.what, Conversation) else anything)
        limit = getattr(provider, "max_len", None)
        return await tokens.work(wire.tokenize, tokens_of(provider), ask, limit), ask.ignored

    async def detokenize(body: bytes) -> tuple[Json, tuple[str, ...]]:
        model, ids, ignored = wire.read_detokenize(body)
        return await tokens.work(wire.detokenize, tokens_of(desk.provider(model)), ids), ignored

    async def apply_template(body: bytes) -> tuple[Json, tuple[str, ...]]:
        ask = wire.read_template(body)
        return await tokens.work(wire.apply_template, chat_of(desk.provider(ask.model, answers)), ask), ask.ignored

    named = {"tokenize": tokenize, "detokenize": detokenize, "apply-template": apply_template}
    places = [(f"{prefix}/{name}", answer) for name, answer in named.items() for prefix in ("", "/v1")]
    return [Route(path, tokens.endpoint(answer), methods=["POST"]) for path, answer in places]
