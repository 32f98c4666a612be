"""The ASGI application: routes, who may call, and every error in OpenAI's shape."""

import logging
import uuid
from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from myna.provider import Provider
from myna.provider.wire.error import in_shape_of
from myna.provider.wire.request import read_chat, read_completion
from myna.provider.wire.response import ChatWriter, CompletionWriter
from myna.records import MynaError, RequestError
from myna.serve.answer import JsonResponse
from myna.serve.complete import ClientGone, Completions
from myna.serve.desk import REQUEST_ID, Desk
from myna.serve.guard import THIS_MACHINE, Guard
from myna.serve.page import page_routes

log = logging.getLogger("myna.serve")


def create_app(
    providers: Mapping[str, Provider] | Provider,
    *,
    guard: Guard = THIS_MACHINE,
    keepalive: float = 15.0,
    max_body: int = 16 << 20,
) -> "App":
    """An application that serves these models under their names, or one under its own.

    guard       which Host and Origin may call; by default this machine only
    keepalive   seconds of silence in a stream before a comment is sent, so that no proxy takes it for dead
    max_body    bytes of a request's body
    """
    models = providers if isinstance(providers, Mapping) else {providers.name: providers}
    return App(Desk(models, keepalive, max_body), guard)


class App:
    """Pure ASGI: nothing stands between a request and its disconnect."""

    def __init__(self, desk: Desk, guard: Guard):
        self.desk = desk
        self._guard = guard
        self._routes = Router(_routes(desk), redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._routes(scope, receive, send)
            return
        request_id = f"req-{uuid.uuid4().hex}"
        REQUEST_ID.set(request_id)
        headers = Headers(scope=scope)
        reply = _Reply(send, {"x-request-id": request_id} | self._guard.cors(headers))
        try:
            self._guard.check(headers)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await Response(status_code=204)(scope, receive, reply)
                return
            await self._routes({**scope, "app": self}, receive, reply)
        except ClientGone:
            log.info("request %s: the client hung up", request_id)
        except Exception as error:
            await self._refuse(error, scope, receive, reply)

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, reply: "_Reply") -> None:
        error = _routing_error(error, scope) if isinstance(error, HTTPException) else error
        if not isinstance(error, MynaError):
            log.error("request %s failed", REQUEST_ID.get(), exc_info=error)
        if reply.started:  # too late for a status; the server closes the connection on this
            raise error
        status, body, headers = self.desk.refusal(error)
        await JsonResponse(in_shape_of(scope["path"], status, body), status, headers)(scope, receive, reply)


class _Reply:
    """`send`, adding headers to the response and knowing whether it has begun."""

    def __init__(self, send: Send, headers: dict[str, str]):
        self._send, self._headers = send, headers
        self.started = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            MutableHeaders(scope=message).update(self._headers)
        await self._send(message)


def _routes(desk: Desk) -> list[Route]:
    async def models(_: Request) -> Response:
        return JsonResponse({"object": "list", "data": [desk.describe(name) for name in desk.providers]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in desk.providers:
            desk.provider(name)
        return JsonResponse(desk.describe(name))

    async def health(_: Request) -> Response:
        """The process lives; whether it can answer is /ready."""
        return JsonResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        if desk.ready:
            return JsonResponse({"status": "ready"})
        return JsonResponse({"status": "draining" if desk.draining else "loading"}, 503, {"retry-after": "2"})

    return [
        Route("/v1/chat/completions", Completions(desk, read_chat, ChatWriter), methods=["POST"]),
        Route("/v1/completions", Completions(desk, read_completion, CompletionWriter), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/health", health),
        Route("/ready", ready),
        *page_routes(),
    ]


def _routing_error(error: HTTPException, scope: Scope) -> RequestError:
    what = f"{scope['method']} {scope['path']}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        return RequestError(f"{what}: this path takes {allowed}.", code="method_not_allowed")
    return RequestError(f"{what}: there is nothing here. See /v1/models, or / for the chat page.", code="not_found")
