"""Vectors and scores: /v1/embeddings, /v1/rerank, /score, and Ollama's /api/embed and /api/embeddings."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from starlette.routing import Route

from myna.provider.wire import embed as wire
from myna.provider.wire.body import naming
from myna.records import ChatError, DataError, Json, RequestError, Scores, Unavailable, Vectors
from myna.serve.account import ACCOUNT, Account
from myna.serve.desk import Desk
from myna.serve.plain import Plain

T = TypeVar("T")
R = TypeVar("R", Vectors, Scores)
Reply = tuple[Json, tuple[str, ...]]
DOES = {"embed": "make embeddings", "score": "score documents"}


def routes(desk: Desk) -> list[Route]:
    async def embeddings(body: bytes) -> Reply:
        ask = await asyncio.to_thread(wire.read_embeddings, body)
        name, found = await _embed(desk, ask)
        return await asyncio.to_thread(wire.write_embeddings, ask, name, found), ask.ignored

    async def rerank(body: bytes) -> Reply:
        ask = await asyncio.to_thread(wire.read_rerank, body)
        model = _able(desk, ask.model, "score")
        work = partial(model.score, ask.query, ask.documents, truncate=ask.truncate)
        return wire.write_rerank(ask, model.name, await _counted(desk, model.name, work)), ask.ignored

    async def score(body: bytes) -> Reply:
        ask = await asyncio.to_thread(wire.read_score, body)
        model = _able(desk, ask.model, "score")
        work = [partial(model.score, query, texts, truncate=ask.truncate) for query, texts in ask.queries]
        found = await _all(
            [_told(_counted(desk, model.name, row), partial(ask.param, i)) for i, row in enumerate(work)]
        )
        return wire.write_score(model.name, int(time.time()), found), ask.ignored

    async def ollama_embed(body: bytes) -> Reply:
        started = time.perf_counter_ns()
        ask = await asyncio.to_thread(wire.read_ollama_embed, body)
        name, found = await _embed(desk, ask)
        taken = time.perf_counter_ns() - started
        return await asyncio.to_thread(wire.write_ollama_embed, ask, name, found, taken), ask.ignored

    async def ollama_embeddings(body: bytes) -> Reply:
        ask = wire.read_ollama_embeddings(body)
        _, found = await _embed(desk, ask)
        return wire.write_ollama_embeddings(ask, found), ask.ignored

    endpoints = {
        "/v1/embeddings": embeddings,
        "/v1/rerank": rerank,
        "/v2/rerank": rerank,
        "/rerank": rerank,
        "/v1/score": score,
        "/score": score,
        "/api/embed": ollama_embed,
        "/api/embeddings": ollama_embeddings,
    }
    return [Route(path, Plain(desk, answer), methods=["POST"]) for path, answer in endpoints.items()]


async def _embed(desk: Desk, ask: wire.EmbedAsk) -> tuple[str, Vectors]:
    """The model's name and its vectors."""
    model = _able(desk, ask.model, "embed")
    work = partial(model.embed, ask.texts, ask.how)
    return model.name, await _told(_counted(desk, model.name, work), ask.param)


def _able(desk: Desk, name: str | None, verb: str) -> Any:
    """The model a request names, if it can do that. Unnamed, it is the only one that can."""
    provider = desk.provider(name, lambda model: hasattr(model, verb))
    if not hasattr(provider, verb):
        able = [one for one, provider in desk.providers.items() if hasattr(provider, verb)]
        raise RequestError(
            f"{provider.name} does not {DOES[verb]}. Here that do: {', '.join(able) or 'none'}.",
            param="model",
            code="unsupported_model",
        )
    return provider


async def _counted(desk: Desk, name: str, work: Callable[[], Awaitable[R]]) -> R:
    """What `work` gives, in the books as an answer of the model: its tokens, its end, and who pays."""
    account, metrics = ACCOUNT.get() or Account(""), desk.metrics
    account.model = name
    metrics.requests.labels(name).inc()
    try:
        found = await work()
    except BaseException as e:
        mine = isinstance(e, RequestError | Unavailable | ChatError | DataError)
        counter = metrics.refused if mine else metrics.failed if isinstance(e, Exception) else metrics.cancelled
        counter.labels(name).inc()
        raise
    metrics.succeeded.labels(name, "stop").inc()
    metrics.prompt_tokens.labels(name).inc(found.tokens)
    account.outcome = "stop"
    account.prompt_tokens += found.tokens
    if account.caller:
        account.caller.charge(found.tokens)
    return found


async def _told(work: Coroutine[Any, Any, T], param: Callable[[str], str]) -> T:
    """What `work` gives; where it complains of a text, the complaint says where that is in the body."""
    with naming(lambda name: param(name) if name.startswith(("input.", "query", "documents.")) else name):
        return await work


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order; when one fails, the others are given up."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
