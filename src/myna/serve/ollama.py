"""The part of Ollama's API that its clients need: /api/chat, generate, tags, show, ps and version."""

import time
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import myna
from myna.provider.wire.frames import LINES
from myna.provider.wire.ollama import read_ollama_chat, read_ollama_generate, read_ollama_show
from myna.provider.wire.ollama_writer import OllamaWriter, generate_writer, write_time
from myna.provider.wire.request import Ask
from myna.records import Json, RequestError
from myna.serve.answer import JsonResponse
from myna.serve.complete import Completions
from myna.serve.desk import Desk, answers
from myna.serve.plain import Plain

FAR = 4102444800  # the year 2100: when a model goes that is not unloaded by the clock


def routes(desk: Desk) -> list[Route]:
    def chat(body: bytes) -> Ask:
        return _keep(desk, read_ollama_chat(body))

    def generate(body: bytes) -> Ask:
        return _keep(desk, read_ollama_generate(body))

    async def tags(_: Request) -> Response:
        rows = [_row(desk, name) for name in desk.models.slots]
        return JsonResponse({"models": rows})

    async def running(_: Request) -> Response:
        ready = [name for name in desk.providers if desk.describe(name)["ready"]]
        return JsonResponse({"models": [_row(desk, name) | _running(desk, name) for name in ready]})

    async def show(body: bytes) -> tuple[Json, tuple[str, ...]]:
        name = read_ollama_show(body)
        return _show(desk, name, desk.provider(name)), ()

    async def version(_: Request) -> Response:
        return JsonResponse({"version": myna.__version__})

    return [
        Route("/api/chat", Completions(desk, chat, OllamaWriter, LINES), methods=["POST"]),
        Route("/api/generate", Completions(desk, generate, generate_writer, LINES), methods=["POST"]),
        Route("/api/tags", tags),
        Route("/api/ps", running),
        Route("/api/show", Plain(desk, show), methods=["POST"]),
        Route("/api/version", version),
    ]


def _keep(desk: Desk, ask: Ask) -> Ask:
    """Do what it says of how long the model stays, or have it named as ignored."""
    slot = desk.models.slots.get(ask.model or "")
    if slot is not None and slot.state == "unloaded" and ask.keep_alive == 0 and not ask.prompts:
        raise RequestError(
            f"{slot.name} is not in memory.", param="model", code="model_not_found"
        )  # nor loaded for this
    kept = ask.model is None or desk.models.keep(ask.model, ask.keep_alive)
    return ask if kept else replace(ask, ignored=(*ask.ignored, "keep_alive"))


def _row(desk: Desk, name: str) -> Json:
    """A model given to the server as it is lies in no folder: it has no size and no digest."""
    place = desk.models.slots[name].loadable
    found = {"size": place.size if place else 0, "digest": place.digest if place else ""}
    return {
        "name": name,
        "model": name,
        "modified_at": write_time(desk.since),
        "details": _details(desk.describe(name)),
    } | found


def _running(desk: Desk, name: str) -> Json:
    end = min(time.time() + desk.models.leaves_in(desk.models.slots[name]), FAR)
    return {"context_length": desk.describe(name)["context_length"], "expires_at": write_time(end)}


def _details(described: Json) -> Json:
    family = described["details"].get("family") or ""
    return {"family": family, "families": [family] if family else []}


def _show(desk: Desk, name: str, provider: Any) -> Json:
    described = desk.describe(name)
    details = _details(described)
    chat = getattr(provider, "chat", None)
    template = chat.template.source if chat is not None and chat.template else ""
    family = details["family"] or "unknown"
    settings = (f"{key} {value}" for key, value in described["defaults"].items() if value is not None)
    return {
        "modelfile": "",
        "parameters": "\n".join(settings),
        "template": template,
        "modified_at": write_time(desk.since),
        "details": details,
        "model_info": {"general.architecture": family, f"{family}.context_length": described["context_length"]},
        "capabilities": _capabilities(provider, chat),
    }


def _capabilities(provider: Any, chat: Any) -> list[str]:
    """What a model can do, as the provider says and its tokenizer and template show."""
    if not answers(provider):
        return ["embedding"] if "embeddings" in provider.capabilities else []
    template = chat.template if chat is not None else None
    can = {
        "completion": True,
        "tools": template is not None and "tools" in template.variables,
        "thinking": template is not None and "<think>" in template.source,
        "insert": chat is not None and chat.infill is not None,
    }
    return [name for name, has in can.items() if has]
