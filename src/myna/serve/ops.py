"""For whoever runs the server: is it alive, is it ready, what does it count, and which models does it hold."""

import asyncio
import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from myna.provider.wire.body import ModelOrder, read_body
from myna.serve.answer import JsonResponse
from myna.serve.desk import Desk
from myna.serve.receive import receive_body

OPEN = frozenset({"/", "/docs", "/openapi.json", "/health", "/ready"})
MAX_ORDER = 1 << 16  # bytes of a body that names a model


def is_open(path: str) -> bool:
    """Whether a path needs no key: it tells nothing, and a page must load before it can ask for one."""
    return path in OPEN or path.startswith("/page/")


def routes(desk: Desk) -> list[Route]:
    async def health(_: Request) -> Response:
        """The process lives; whether it can answer is /ready."""
        counts = {
            name: {"state": slot.state, "waiting": slot.served.waiting, "running": slot.served.running}
            if slot.served
            else {"state": slot.state}
            for name, slot in desk.models.slots.items()
        }
        row = {"status": "ok", "uptime_seconds": int(time.time()) - desk.since, "active": desk.active}
        return JsonResponse(row | {"tasks": len(asyncio.all_tasks()), "models": counts})

    async def ready(_: Request) -> Response:
        if desk.ready:
            return JsonResponse({"status": "ready"})
        return JsonResponse({"status": "draining" if desk.draining else "loading"}, 503, {"retry-after": "2"})

    async def metrics(_: Request) -> Response:
        body, kind = desk.metrics.write()
        return Response(body, headers={"content-type": kind})

    async def load(request: Request) -> Response:
        order, headers = await _read_order(desk, request)
        with desk.admit():
            slot = await desk.models.load(order.model, pinned=order.pinned)
        return JsonResponse(desk.describe(slot.name), headers=headers)

    async def unload(request: Request) -> Response:
        order, headers = await _read_order(desk, request)
        with desk.admit():
            slot = await desk.models.unload(order.model)
        return JsonResponse(desk.describe(slot.name), headers=headers)

    return [
        Route("/health", health, methods=["GET"]),
        Route("/ready", ready, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/v1/models/load", load, methods=["POST"]),
        Route("/v1/models/unload", unload, methods=["POST"]),
    ]


async def _read_order(desk: Desk, request: Request) -> tuple[ModelOrder, dict[str, str]]:
    """What is asked for, and the headers of its answer."""
    _, order, ignored = read_body(await receive_body(request.headers, request.receive, MAX_ORDER), ModelOrder, {})
    return order, desk.ignoring(ignored)
