"""What an answer must look like, on the wire: OpenAI's response_format, and the names other servers have for the same.

response_format                     text, json_object, json_schema {name, schema, strict}, structural_tag; also
                                    {"type": "json_object", "schema": ...} as llama.cpp and Together write it
structured_outputs                  vLLM: one of json, regex, choice, grammar, json_object, structural_tag
guided_json, _regex, _choice, ...   vLLM before that
json_schema, grammar                llama.cpp
"""

from dataclasses import replace
from typing import Any

import orjson

from myna.provider.wire.body import shown, unsupported
from myna.records import Form, Json, RequestError

FIELDS = (
    "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "json_schema", "grammar",
)  # fmt: skip
NAMES = {"json": "schema", "regex": "regex", "choice": "choice", "grammar": "grammar", "structural_tag": "tags"}


def read_form(body: Json) -> Form | None:
    """The form that a request's fields ask for; None where any text will do. Raises RequestError, too, where two of them ask
    for different things."""
    found = [(name, form) for name in FIELDS if (form := _read(name, body.get(name))) is not None]
    for name, form in found[1:]:
        if form != found[0][1]:
            raise RequestError(f"{found[0][0]} and {name} ask for different forms; send one.", param=name)
    return found[0][1] if found else None


def write_form(form: Form | None) -> Json:
    """The fields of a request that say so: OpenAI's where it has words for it, else vLLM's."""
    if form is None:
        return {}
    match form.kind:
        case "json":
            return {"response_format": {"type": "json_object"}}
        case "schema":
            said = {"name": "answer", "strict": form.strict, "schema": orjson.loads(form.source)}
            return {"response_format": {"type": "json_schema", "json_schema": said}}
        case "tags":
            return {"response_format": orjson.loads(form.source)}
        case "choice":
            return {"structured_outputs": {"choice": orjson.loads(form.source)}}
        case _:
            return {"structured_outputs": {form.kind: form.source}}


def _read(name: str, value: Any) -> Form | None:
    if value is None or value == "" or value == {"type": "text"}:
        return None
    match name:
        case "response_format":
            return _response_format(value)
        case "structured_outputs":
            return _structured_outputs(value)
        case "json_schema":
            return _form("schema", value, name)
        case _:
            return _form(NAMES[name.removeprefix("guided_")], value, name)


def _response_format(value: Any) -> Form:
    kind = value.get("type") if isinstance(value, dict) else None
    match kind:
        case "json_object":
            return _form("schema", value["schema"], "response_format.schema") if value.get("schema") else Form("json")
        case "json_schema":
            return _json_schema(value.get("json_schema"), "response_format.json_schema")
        case "structural_tag":
            return Form("tags", orjson.dumps(value).decode())
        case str():
            raise unsupported("response_format.type", kind, "text, json_object, json_schema and structural_tag are")
    raise _wrong("response_format", "an object with a type", value)


def _json_schema(value: Any, path: str) -> Form:
    if not isinstance(value, dict):
        raise _wrong(path, "an object with a name and a schema", value)
    strict = value.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise _wrong(f"{path}.strict", "true or false", strict)
    if "schema" not in value:
        raise RequestError(f"{path}.schema is missing.", param=f"{path}.schema", code="missing_required_parameter")
    form = _form("schema", value["schema"], f"{path}.schema")
    return replace(form, strict=bool(strict))


def _structured_outputs(value: Any) -> Form | None:
    if not isinstance(value, dict):
        raise _wrong("structured_outputs", "an object", value)
    given = {name: said for name, said in value.items() if said is not None and said is not False}
    if len(given) != 1:
        known = ", ".join((*NAMES, "json_object"))
        raise RequestError(f"structured_outputs must have exactly one of {known}.", param="structured_outputs")
    ((name, said),) = given.items()
    if name == "json_object":
        return Form("json", param=f"structured_outputs.{name}")
    if name not in NAMES:
        raise unsupported(f"structured_outputs.{name}", said, f"{', '.join(NAMES)} and json_object are")
    return _form(NAMES[name], said, f"structured_outputs.{name}")


def _form(kind: Any, value: Any, path: str) -> Form:
    """A schema may come as JSON or as its text, as vLLM takes it; so may a structural tag."""
    match kind, value:
        case "regex" | "grammar", str():
            return Form(kind, value, param=path)
        case "choice", list() if value and all(isinstance(text, str) for text in value):
            return Form(kind, orjson.dumps(value).decode(), param=path)
        case "schema" | "tags", str():
            return Form(kind, value, param=path)
        case "schema" | "tags", dict() | bool():
            return Form(kind, orjson.dumps(value).decode(), param=path)
    raise _wrong(path, {"choice": "a list of strings", "schema": "a JSON Schema"}.get(kind, "a string"), value)


def _wrong(path: str, wanted: str, value: Any) -> RequestError:
    return RequestError(f"{path}: expected {wanted}; found {shown(value)}.", param=path, code="invalid_type")
