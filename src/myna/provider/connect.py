"""One string names whoever answers:

    qwen2.5-coder-1.5b-instruct            a pulled model, or the path of a model directory: our engine in this process
    http://127.0.0.1:8000/v1#MODEL         any OpenAI-compatible endpoint; without #MODEL the only one that it serves
    ollama:MODEL                           http://127.0.0.1:11434/v1#MODEL
    openai:MODEL                           https://api.openai.com/v1#MODEL, with $OPENAI_API_KEY
    replay:TRACE#RUN                       what a recorded run said
    script:FILE                            the test double: a JSON line for each answer, a string or a message

The key of an http endpoint is $MYNA_API_KEY; it is sent to no other host than the one that is named.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from myna.provider import Provider, Scripted, powers
from myna.provider.http import Http
from myna.provider.wire.error import AT_V1, read_error
from myna.records import DataError, Message, ProviderError, RequestError
from myna.records.jsonl import read_rows

OLLAMA, OPENAI = "http://127.0.0.1:11434/v1", "https://api.openai.com/v1"


def connect(where: str) -> Provider:
    """See above. Raises RequestError where the string is none of these, and what loading or asking raises."""
    scheme, _, rest = where.partition(":")
    match scheme:
        case "http" | "https":
            url, _, model = where.partition("#")
            key = os.environ.get("MYNA_API_KEY")
            return _remote(url, model or _only_model(url, key), key)
        case "ollama":
            return _remote(OLLAMA, _named(rest, where))
        case "openai":
            if not (key := os.environ.get("OPENAI_API_KEY")):
                raise RequestError(f"{where} needs a key: export OPENAI_API_KEY=...", param="model")
            return _remote(OPENAI, _named(rest, where), key)
        case "replay":
            return _recorded(rest, where)
        case "script":
            return _scripted(Path(rest))
    from myna.provider import local  # torch

    return local.load(where)


@contextmanager
def connected(where: str) -> Iterator[Provider]:
    """`connect`, for the time of the block: an engine of ours is closed after it."""
    provider = connect(where)
    try:
        yield provider
    finally:
        if close := getattr(provider, "close", None):
            close()


def _remote(url: str, model: str, key: str | None = None) -> Http:
    provider = Http(url, model, key)
    provider.powers = powers.read(powers.endpoint(provider.base_url, model))
    return provider


def _named(model: str, where: str) -> str:
    if not model:
        raise RequestError(f"{where!r} names no model; one follows the colon.", param="model")
    return model


def _only_model(url: str, key: str | None) -> str:
    """The one model that an endpoint serves."""
    import httpx

    from myna.provider.http import is_loopback, without_user

    url, user = without_user(url.rstrip("/"))
    listed = f"{url}/models"
    try:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        answer = httpx.get(listed, headers=headers, auth=user, timeout=10.0, trust_env=not is_loopback(url))
    except (httpx.HTTPError, httpx.InvalidURL) as e:
        raise ProviderError(
            f"{listed} does not list models ({e or type(e).__name__}). Is the server running?"
        ) from None
    if answer.status_code != 200:
        raise read_error(answer.status_code, answer.headers, answer.content, listed)
    try:
        models = [str(one["id"]) for one in orjson.loads(answer.content)["data"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ProviderError(f"{listed} answered with what is no list of models ({AT_V1}).") from None
    if len(models) != 1:
        raise RequestError(f"{url} serves {', '.join(models[:20]) or 'no model'}; choose: {url}#MODEL", param="model")
    return models[0]


def _recorded(rest: str, where: str) -> Provider:
    from myna.provider.recorded import Recorded
    from myna.trace import Trace

    file, _, run = rest.rpartition("#")
    if not run.isascii() or not run.isdigit():
        raise RequestError(
            f"{where!r} names no run; it is replay:FILE#RUN, with a number from `myna trace list`.", param="model"
        )
    if not Path(file).is_file():
        raise RequestError(f"there is no trace file {file}.", param="model")
    return Recorded(Trace(file), int(run))


def _scripted(path: Path) -> Provider:
    turns: list[str | Message] = []
    for line, row in read_rows(path):
        if isinstance(row, str):
            turns.append(row)
            continue
        try:
            turns.append(Message.from_json(row))
        except DataError as e:
            raise DataError(f"{path}:{line}: {e}") from None
    return Scripted(turns, name=f"script:{path.name}")
