"""myna serve: the OpenAI API and the chat page."""

import logging
import math
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from myna.commands.options import LoadingFlags
from myna.modeldir import DEFAULT, AdapterDir, ModelDir, find
from myna.modeldir.cache import model_path
from myna.modeldir.files import model_bytes
from myna.provider.either import load_either, memory_of_either
from myna.provider.local import Loading
from myna.records import ModelDirError, MynaError, RequestError
from myna.serve import App, Guard, Keys, Limits, Loadable, key_of, open_desk, read_keys, serve
from myna.serve.adapters import add_adapter
from myna.serve.desk import Desk
from myna.serve.logs import JsonLines
from myna.serve.moderations import Finds


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where and what to serve, and to whom.

    Attributes
    ----------
    host
        Where to listen. Anything but this machine is reachable by others, and needs a key: --key-file, or MYNA_API_KEY.
    port
        The port; 0 takes a free one.
    name
        The name clients ask for, of a single model; the directory's name if left out.
    pin
        A model that stays in memory whatever else is asked for.
    adapter
        An adapter (LoRA) of the first model, NAME=FOLDER; requests name it as their model.
    adapters
        A folder whose sub-folders are adapters that POST /v1/load_lora_adapter may load by name.
    adapters_gb
        Gigabytes that all loaded adapters may take together.
    memory_gb
        Gigabytes that all loaded models may take together. When another is asked for, the least recently used go.
    unload_after
        Seconds without a request after which a model that is not pinned is unloaded.
    allow_host
        Another host name this server may be called by, such as the name of this machine.
    allow_origin
        A web site whose pages may call this server; "*" is any.
    key_file
        The keys that may call, with their limits: JSON lines (docs/serving.md). MYNA_API_KEY is one more, without limits.
    moderation
        What /v1/moderations looks for: a list of phrases by category (docs/checks.md), ours by name (en, zh) or a file of yours; may be
        given several times.
    data
        The folder of /v1/files and /v1/batches; without one there are none. It belongs to one server at a time.
    strict_params
        Refuse requests with fields that nobody knows; otherwise they are named in the reply's X-Ignored-Params header.
    log
        How to write the log: for people, or as JSON lines.
    log_prompts
        Write what clients send into the log too.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    pin: tuple[str, ...] = ()
    adapter: tuple[str, ...] = ()
    adapters: Path | None = None
    adapters_gb: float = 1.0
    memory_gb: float = math.inf
    unload_after: float = math.inf
    allow_host: tuple[str, ...] = ()
    allow_origin: str | None = None
    key_file: Path | None = None
    moderation: tuple[str, ...] = ()
    data: Path | None = None
    strict_params: bool = False
    log: Literal["text", "json"] = "text"
    log_prompts: bool = False


ServingFlags = Annotated[Serving, Parameter(name="*", group="Serving")]
LimitFlags = Annotated[Limits, Parameter(name="*", group="Limits")]


def run(
    *models: str, serving: ServingFlags = Serving(), limits: LimitFlags = Limits(), loading: LoadingFlags = Loading()
) -> None:
    """Serve models until Ctrl-C: the first one finishes what was accepted, the second stops at once.

    Parameters
    ----------
    models
        Pulled models' names, or paths of model directories; the default model if left out. One may be an encoder, for
        embeddings and reranking. POST /v1/models/load adds other pulled models.
    """
    _start_log(serving.log)
    screen = Console(stderr=True, highlight=False, soft_wrap=True)
    desk = _open(models or (DEFAULT,), serving, limits, loading)
    first, *_ = desk.models.slots
    screen.print(f"loading {', '.join(desk.models.slots)}", markup=False)

    def announce(url: str) -> None:
        body = f'{{"model": "{first}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
        headers = "-H 'Content-Type: application/json'"
        headers += ' -H "Authorization: Bearer $MYNA_API_KEY"' if desk.keys else ""
        screen.print(f"{first} answers at {url}  (the chat page; the API is {url}/v1)", markup=False)
        screen.print(f"curl {url}/v1/chat/completions {headers} -d '{body}'", markup=False)

    guard = Guard.of(serving.host, serving.allow_host, serving.allow_origin)
    serve(App(desk, guard, serving.data), serving.host, serving.port, started=announce)


def _open(models: tuple[str, ...], serving: Serving, limits: Limits, loading: Loading) -> Desk:
    """A desk with these models, to be loaded when the server runs."""
    named = [_loadable(model, loading, serving.name if len(models) == 1 else None) for model in models]
    if unknown := {*serving.pin} - {one.name for one in named}:
        raise MynaError(f"--pin {sorted(unknown)[0]}: it is none of the models to serve.")
    desk = open_desk(
        _keys(serving.key_file),
        limits,
        log_prompts=serving.log_prompts,
        find=partial(_pulled, loading=loading),
        budget=serving.memory_gb * 1e9,
        adapters=serving.adapters_gb * 1e9,
        idle=serving.unload_after,
    )
    desk.strict_params = serving.strict_params
    desk.check = _by_lists(serving.moderation) if serving.moderation else None
    for one in named:
        desk.models.add(one, pinned=one.name in serving.pin)
    _add_adapters(desk, serving)
    return desk


def _by_lists(sources: tuple[str, ...]) -> Finds:
    from myna.checks.moderation import read_lists

    lists = read_lists(*sources)
    return Finds("lists", lists.categories, lambda text: {span.label for span in lists.find(text)})


def _add_adapters(desk: Desk, serving: Serving) -> None:
    """Those to load at the start; and the folder of those that may be loaded later."""
    first, *_ = desk.models.slots.values()
    for text in serving.adapter:
        name, equals, folder = text.partition("=")
        if not equals:
            raise MynaError(f"--adapter {text}: write it as NAME=FOLDER.")
        add_adapter(desk.models, name, AdapterDir.open(folder).path, first)
    if serving.adapters is not None and not serving.adapters.is_dir():
        raise MynaError(f"--adapters {serving.adapters}: it is not a folder.")
    desk.adapters = serving.adapters


def _loadable(model: str, loading: Loading, name: str | None = None) -> Loadable:
    found = ModelDir.open(find(model))
    name = name or found.name
    return Loadable(
        name,
        lambda: load_either(model, loading, name=name),
        lambda: memory_of_either(model, loading),
        size=model_bytes(found.path),
        digest=found.digest,
    )


def _pulled(name: str, loading: Loading) -> Loadable:
    """A model that a client named: pulled ones only, never a path."""
    try:
        model_path(name)  # ModelDirError when it cannot be a name
        return _loadable(name, loading)
    except ModelDirError as e:
        raise RequestError(str(e), param="model", code="model_not_found") from None


def _keys(file: Path | None) -> Keys:
    key = os.environ.get("MYNA_API_KEY")
    return Keys([*(read_keys(file) if file else []), *([key_of(key)] if key else [])])


def _start_log(form: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if form == "json":
        logging.getLogger().handlers[0].setFormatter(JsonLines())
