"""Adapters (LoRA) of the models served: each is a model of its own to clients, and lives in the one that it adapts.

The routes are vLLM's. A request never names a path: it names a sub-folder of the one folder that the server was given.
"""

import asyncio
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from myna.modeldir import AdapterDir
from myna.modeldir.files import inside
from myna.provider.wire.body import AdapterOrder, read_body
from myna.records import ModelDirError, MynaError, RequestError
from myna.serve.answer import JsonResponse, ignored_header
from myna.serve.desk import Desk
from myna.serve.models import Loadable, Models, Slot
from myna.serve.receive import receive_body

MAX_ORDER = 1 << 16
NAME = re.compile(r"[A-Za-z0-9][\w.:-]{0,99}", re.ASCII)
# What vLLM's bodies may hold besides, with the values that ask for nothing.
REFUSED = {"load_inplace": (False,), "is_3d_lora_weight": (False,)}


def add_adapter(models: Models, name: str, folder: Path, parent: Slot) -> Slot:
    """A place for an adapter, to be loaded next. RequestError when the name is none, or is taken."""
    if not NAME.fullmatch(name):
        raise RequestError(
            f"{name[:100]!r} is no name for an adapter: letters, digits, . _ : - are.", param="lora_name"
        )
    if name in models.slots:
        raise RequestError(
            f"There is a {name!r} here already; unload it first, or choose another name.", param="lora_name"
        )

    def load() -> object:
        assert parent.served is not None, "a parent is loaded before its adapters"
        if (take := getattr(parent.served, "load_adapter", None)) is None:
            raise RequestError(f"{parent.name} takes no adapters.", param="base_model")
        return take(folder, name=name)

    slot = models.add(Loadable(name, load, lambda: AdapterDir.open(folder).nbytes))  # type: ignore[arg-type]
    slot.parent, slot.root = parent, folder.name
    return slot


def routes(desk: Desk) -> list[Route]:
    async def load(request: Request) -> Response:
        order, headers = await _read_order(request)
        with desk.admit():
            parent = _parent(desk, order.base_model)
            folder = await asyncio.to_thread(_folder, desk.adapters, order.lora_path or order.lora_name)
            slot = add_adapter(desk.models, order.lora_name, folder, parent)
            try:
                await desk.models.load(slot.name)
            except BaseException as e:
                desk.models.slots.pop(slot.name, None)
                if isinstance(e, ModelDirError):  # where the folder lies is not for the wire
                    said = str(e).replace(f"{folder.parent}/", "")
                    raise RequestError(said, param="lora_path", code="invalid_adapter") from None
                raise
        return JsonResponse(desk.describe(slot.name), headers=headers)

    async def unload(request: Request) -> Response:
        order, headers = await _read_order(request)
        with desk.admit():
            slot = desk.models.slots.get(order.lora_name)
            if slot is None or slot.parent is None:
                raise _unknown(order.lora_name)
            shown = desk.describe(slot.name)
            await desk.models.forget(slot.name)
        return JsonResponse(shown | {"ready": False, "state": "unloaded"}, headers=headers)

    return [
        Route("/v1/load_lora_adapter", load, methods=["POST"]),
        Route("/v1/unload_lora_adapter", unload, methods=["POST"]),
    ]


async def _read_order(request: Request) -> tuple[AdapterOrder, dict[str, str]]:
    raw = await receive_body(request.headers, request.receive, MAX_ORDER)
    _, order, ignored = read_body(raw, AdapterOrder, REFUSED)
    return order, ignored_header(ignored)


def _parent(desk: Desk, name: str | None) -> Slot:
    """The model to adapt: by its name, or the first."""
    models = {slot.name: slot for slot in desk.models.slots.values() if slot.parent is None}
    if not models or (name is not None and name not in models):
        known = ", ".join(models) or "none"
        raise RequestError(
            f"There is no model {name!r} here. These are: {known}.", param="base_model", code="model_not_found"
        )
    return next(iter(models.values())) if name is None else models[name]


def _folder(allowed: Path | None, name: str) -> Path:
    """The sub-folder of this name. What lies elsewhere is as good as absent: whether it is there is nobody's business."""
    if allowed is None:
        raise RequestError(
            "This server loads no adapters at run time; start it with --adapters FOLDER.", code="not_configured"
        )
    try:
        if NAME.fullmatch(name) and (folder := inside(allowed, name)).is_dir():
            return folder
    except (ModelDirError, OSError):
        pass
    raise _unknown(name, "lora_path")


def _unknown(name: str, param: str = "lora_name") -> MynaError:
    return RequestError(f"There is no adapter {name[:100]!r} here.", param=param, code="model_not_found")
