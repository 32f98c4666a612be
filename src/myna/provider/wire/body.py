"""A request's body: JSON checked by a pydantic type, every complaint in one voice."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from myna.records import Json, RequestError, Sampling

MAX_STOPS = 16
WRITTEN = 254  # brackets in brackets that orjson writes; it reads 1024
DEEPEST = 200  # that a body may have: parts of it are written again, inside other brackets
Body = TypeVar("Body", bound=BaseModel)


def read_body(
    raw: bytes, model: type[Body], refused: Mapping[str, tuple[Any, ...]]
) -> tuple[Json, Body, tuple[str, ...]]:
    """The JSON as sent, the same checked, and the dotted paths of fields nobody knows, wherever a type says what is known.

    refused   fields that would change the answer and that we cannot honour, each with the values that ask for nothing
    Raises RequestError whose `param` is the dotted path of the field at fault.
    """
    json = read_object(raw)
    body = check(json, model)
    extra = {name: value for name, value in (body.model_extra or {}).items() if value is not None}
    for name, value in extra.items():
        if name in refused and not any(value == harmless for harmless in refused[name]):
            raise unsupported(name, value)
    return json, body, tuple(path for path in unknown(body) if path not in refused)


def unknown(part: BaseModel, path: str = "") -> Iterator[str]:
    """The dotted paths of the fields of a part of a body, at `path`, that its type does not know, at any depth."""
    yield from strange(part.model_extra or {}, (), path)
    for name, field in type(part).model_fields.items():
        value, at = getattr(part, name), ".".join(filter(None, (path, field.alias or name)))
        inner = [(f"{at}.{i}", one) for i, one in enumerate(value)] if isinstance(value, list) else [(at, value)]
        for place, one in inner:
            if isinstance(one, BaseModel):
                yield from unknown(one, place)


def strange(row: Json, known: Collection[str], path: str = "") -> list[str]:
    """The dotted paths of an object's fields beyond the known ones; null is as good as absent."""
    names = [name for name, value in row.items() if value is not None and name not in known]
    return [f"{path}.{name}" if path else name for name in names]


class SamplingBody(BaseModel):
    """How to sample, under the names that most APIs share. None, which a client may also send, leaves it to the model."""

    model_config = ConfigDict(strict=True, extra="allow")
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    ignore_eos: bool | None = None

    def sampling(self) -> Json:
        """These fields as Sampling's own, which have the same names."""
        return {name: getattr(self, name) for name in SamplingBody.model_fields}


class ModelOrder(BaseModel):
    """Which model to load or to unload; `pinned`: it stays, whatever else is asked for."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str
    pinned: bool | None = None


class AdapterOrder(BaseModel):
    """Which adapter to load or to unload, in vLLM's words. `lora_path`: its sub-folder of the server's folder of adapters, if
    it is not called as the adapter shall be; `base_model`: the model that it adapts, if not the first."""

    model_config = ConfigDict(strict=True, extra="allow")
    lora_name: str
    lora_path: str | None = None
    base_model: str | None = None


def read_object(raw: bytes, what: str = "The body") -> Json:
    """A JSON object that can be written again: parts of it go into prompts, forms and replies. Raises RequestError, which
    calls it `what`."""
    try:
        json = orjson.loads(raw)
        if raw.count(b"[") + raw.count(b"{") > DEEPEST:
            orjson.dumps(reduce(lambda inner, _: [inner], range(WRITTEN - DEEPEST), json))
    except orjson.JSONDecodeError as e:
        raise RequestError(f"{what} is not JSON: {e}.", code="invalid_json") from None
    except orjson.JSONEncodeError:
        raise RequestError(f"{what} is nested more than {DEEPEST} deep.", code="invalid_json") from None
    if not isinstance(json, dict):
        raise RequestError(f"{what} must be a JSON object.", code="invalid_json")
    return json


def check(value: object, model: type[Body], path: str = "") -> Body:
    """A part of a body at the dotted `path`, checked. Raises RequestError as `read_body` does."""
    try:
        return model.model_validate(value)
    except ValidationError as e:
        raise _complaint(e, value, path) from None


def check_sampling(sampling: Sampling, names: Mapping[str, str]) -> Sampling:
    """Itself, or RequestError; `names` say what a field was called in the request."""
    with naming(lambda field: names.get(field, field)):
        return sampling.check()


@contextmanager
def naming(call: Callable[[str], str]) -> Iterator[None]:
    """Complaints call a field as `call` says it is called in the request."""
    try:
        yield
    except RequestError as e:
        if e.param is None or (name := call(e.param)) == e.param:
            raise
        raise RequestError(str(e).replace(e.param, name, 1), param=name, code=e.code) from None


def read_stop(stop: object, name: str = "stop") -> tuple[str, ...] | None:
    """A string or a list of strings, the field `name` of a request."""
    if stop is None:
        return None
    texts = stop if isinstance(stop, list) else [stop]
    if not all(isinstance(text, str) for text in texts):
        message = f"{name}: expected a string or a list of strings; found {shown(stop)}."
        raise RequestError(message, param=name, code="invalid_type")
    if len(texts) > MAX_STOPS:
        raise RequestError(f"{name} has {len(texts)} strings; at most {MAX_STOPS}.", param=name)
    return tuple(texts)


def unsupported(name: str, value: object, note: str = "") -> RequestError:
    message = f"{name}={shown(value)} is not supported" + (f" ({note})." if note else ". Leave it out.")
    return RequestError(message, param=name, code="unsupported_parameter")


def shown(value: object) -> str:
    """A value as an error message shows it."""
    text = orjson.dumps(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."


def _complaint(e: ValidationError, value: object, path: str) -> RequestError:
    """About the deepest field at fault: of a union's branches it is the one that was meant."""
    found = [(_place(error["loc"], value, error["type"] == "missing"), error) for error in e.errors(include_url=False)]
    place, first = max(found, key=lambda pair: len(pair[0]))  # the first of the longest
    path = ".".join((path, *place) if path else place)
    if first["type"] == "missing":
        return RequestError(f"{path} is missing.", param=path, code="missing_required_parameter")
    return RequestError(f"{path}: {first['msg']}; found {shown(first['input'])}.", param=path, code="invalid_type")


def _place(loc: tuple[int | str, ...], value: Any, missing: bool) -> tuple[str, ...]:
    """The steps of `loc` that are steps in the body; pydantic puts the names of a union's branches between them."""
    place = []
    for i, step in enumerate(loc):
        if isinstance(value, dict) and (step in value or (missing and i == len(loc) - 1)):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            continue
        place.append(str(step))
    return tuple(place)
