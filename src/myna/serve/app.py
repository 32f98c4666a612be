"""The ASGI application: routes, who may call, what runs beside them, and every error in OpenAI's shape."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from myna.provider import Provider
from myna.provider.wire.error import in_shape_of
from myna.provider.wire.request import read_chat, read_completion
from myna.provider.wire.response import ChatWriter, CompletionWriter
from myna.records import MynaError, RequestError
from myna.serve import adapters, embed, files, messages, moderations, ollama, openapi, ops, responses, tokens
from myna.serve.account import ACCOUNT, Account
from myna.serve.answer import JsonResponse
from myna.serve.batches import Batches
from myna.serve.complete import Completions
from myna.serve.desk import REQUEST_ID, Desk
from myna.serve.guard import THIS_MACHINE, Guard
from myna.serve.inside import Inside
from myna.serve.keys import NO_KEYS, Keys
from myna.serve.limits import Limits
from myna.serve.logs import log_request
from myna.serve.metrics import Metrics
from myna.serve.models import Models
from myna.serve.moderations import Check
from myna.serve.page import page_routes
from myna.serve.receive import ClientGone
from myna.serve.served import Served
from myna.serve.store import Store

log = logging.getLogger("myna.serve")
GONE = 499  # nginx's status for a client that hung up; nobody receives it
Job = Callable[[], Coroutine[Any, Any, None]]


def create_app(
    providers: Mapping[str, Provider] | Provider,
    *,
    guard: Guard = THIS_MACHINE,
    keys: Keys = NO_KEYS,
    limits: Limits = Limits(),
    check: Check | None = None,
    data: Path | None = None,
) -> "App":
    """An application that serves these models under their names, or one under its own.

    guard   which Host and Origin may call; by default this machine only
    keys    who may call; by default whoever the guard lets
    check   what /v1/moderations asks; by default there is none
    data    the folder of /v1/files and /v1/batches; by default there are none
    """
    desk = open_desk(keys, limits)
    desk.check = check
    for name, provider in (providers if isinstance(providers, Mapping) else {providers.name: providers}).items():
        desk.models.add(provider, name=name)
    return App(desk, guard, data)


def open_desk(keys: Keys = NO_KEYS, limits: Limits = Limits(), *, log_prompts: bool = False, **models: Any) -> Desk:
    """A desk with no model yet. `models`: the options of Models."""
    metrics = Metrics()
    found = Models(lambda name, provider: Served(name, provider, limits, metrics, log_prompts=log_prompts), **models)
    metrics.watch(found)
    return Desk(found, limits, keys, metrics)


class App:
    """Pure ASGI: nothing stands between a request and its disconnect. With a folder for `data` there are files and batches."""

    def __init__(self, desk: Desk, guard: Guard, data: Path | None = None):
        self.desk = desk
        self._guard = guard
        self._jobs: list[Job] = [desk.models.keep_house]
        self._store: Store | None = None
        stored: list[Route] = []
        if data is not None:
            self._store = Store(data, desk.limits)
            batches = Batches(self._store, self._answer_line, lambda: desk.draining)
            stored = files.routes(desk, batches)
            self._jobs.append(batches.run)
        self._router = Router([*_routes(desk), *stored], redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The ASGI lifespan: the jobs begin before the first request and end after the last."""
        await receive()
        tasks = [asyncio.create_task(self._run(job)) for job in self._jobs]
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.desk.models.close()
        if self._store is not None:
            self._store.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _run(self, job: Job) -> None:
        try:
            await job()
        except Exception as error:
            if not isinstance(error, MynaError):
                log.exception("a job of the server failed; the server ends")
            self.desk.failure = error

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        account = Account(_request_id())
        reply = _Reply(send, {"x-request-id": account.id} | self._guard.cors(Headers(scope=scope)))
        await self._account_for(account, self._admit, {**scope, "app": self}, receive, reply)

    async def _answer_line(self, path: str, body: bytes, owner: str) -> tuple[int, str, bytes]:
        """A request of the server's own, for a line of a batch; it goes behind all others. (status, request id, body)"""
        account = Account(_request_id(), self.desk.keys.named(owner), background=True)
        inside = Inside(body)
        scope = {**inside.scope(path), "app": self}
        await self._account_for(account, self._router, scope, inside.receive, reply := _Reply(inside.send, {}))
        return reply.status, account.id, inside.answer

    async def _account_for(
        self, account: Account, answer: ASGIApp, scope: Scope, receive: Receive, reply: "_Reply"
    ) -> None:
        REQUEST_ID.set(account.id)
        ACCOUNT.set(account)
        try:
            await answer(scope, receive, reply)
        except ClientGone:
            reply.status = GONE
        except Exception as error:
            await self._refuse(error, scope, receive, reply)
        finally:
            account.close()
            route = getattr(scope.get("route"), "path", "other")
            self.desk.metrics.http.labels(route, reply.status or GONE).inc()
            log_request(account, scope, reply.status or GONE, time.monotonic() - account.arrived)

    async def _admit(self, scope: Scope, receive: Receive, reply: Send) -> None:
        headers, account = Headers(scope=scope), ACCOUNT.get()
        assert account is not None, "set by _account_for"
        self._guard.check(headers)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=204)(scope, receive, reply)
            return
        if not ops.is_open(scope["path"]):
            account.caller = self.desk.keys.identify(headers)
        if account.caller and scope["method"] == "POST":
            account.caller.admit()
        await self._router(scope, receive, reply)

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, reply: "_Reply") -> None:
        allow = {}
        if isinstance(error, HTTPException):
            allow = {"allow": self._allowed(scope)} if error.status_code == 405 else {}
            error = _routing_error(error, scope, allow.get("allow", ""))
        if not isinstance(error, MynaError):
            log.error("request %s failed", REQUEST_ID.get(), exc_info=error)
        if reply.status:  # too late for another; the server closes the connection on this
            raise error
        status, body, headers = self.desk.refusal(error)
        await JsonResponse(in_shape_of(scope["path"], status, body), status, headers | allow)(scope, receive, reply)

    def _allowed(self, scope: Scope) -> str:
        """The methods of every route at this path."""
        routes = [r for r in self._router.routes if isinstance(r, Route) and r.matches(scope)[0] is not Match.NONE]
        return ", ".join(sorted({method for route in routes for method in route.methods or ()}))


def _request_id() -> str:
    return f"req-{uuid.uuid4().hex}"


class _Reply:
    """`send`, adding headers to the response, and knowing its status once it has begun; 0 before."""

    def __init__(self, send: Send, headers: dict[str, str]):
        self._send, self._headers = send, headers
        self.status = 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message).update(self._headers)
        await self._send(message)


def _routes(desk: Desk) -> list[Route]:
    async def models(_: Request) -> Response:
        return JsonResponse({"object": "list", "data": [desk.describe(name) for name in desk.models.slots]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in desk.models.slots:
            desk.provider(name)
        return JsonResponse(desk.describe(name))

    return [
        Route("/v1/chat/completions", Completions(desk, read_chat, ChatWriter), methods=["POST"]),
        Route("/v1/completions", Completions(desk, read_completion, CompletionWriter), methods=["POST"]),
        *ops.routes(desk),
        *adapters.routes(desk),
        *responses.routes(desk),
        *messages.routes(desk),
        *ollama.routes(desk),
        *tokens.routes(desk),
        *embed.routes(desk),
        *moderations.routes(desk),
        *openapi.routes(),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
        *page_routes(),
    ]


def _routing_error(error: HTTPException, scope: Scope, allowed: str) -> RequestError:
    what = f"{scope['method']} {scope['path']}"
    if error.status_code == 405:
        return RequestError(f"{what}: this path takes {allowed}.", code="method_not_allowed")
    return RequestError(f"{what}: there is nothing here. See /v1/models, or / for the chat page.", code="not_found")
