"""A schema of values as a schema of values with their evidence, and such an answer as values again.

    {"type": "string"}   ->   {"_quote": words of the document or null, "_value": a string or null}

The quote comes first, so that a value is written after what it rests on. Only leaves are changed: objects, arrays, references
and alternatives of them stay what they are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from myna.records import Json, RequestError

QUOTE, VALUE = "_quote", "_value"
LONGEST = 300  # characters of a quote
DEEPEST = 20  # levels of a schema
_MANY = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONE = ("items", "additionalProperties")
_NAMED = ("properties", "$defs", "definitions")
_ABOUT = ("description", "title")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value and the words that the model gave for it. `path` is dotted: "items.0.price"."""

    path: str
    value: Any
    quote: str | None


def evident(schema: Json) -> Json:
    """The schema with evidence beside every leaf. Raises RequestError where its top is no object with properties, it is too deep, or a
    field has one of our names."""
    if schema.get("type") != "object" or not isinstance(schema.get("properties"), dict) or not schema["properties"]:
        raise RequestError("what is extracted is an object with properties, one at least.", param="schema")
    made: Json = _evident(schema, 0)
    return made


def _evident(schema: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise RequestError(f"the schema is deeper than {DEEPEST} levels.", param="schema")
    if _is_leaf(schema):
        return _with_quote(schema)
    made = {name: value for name, value in schema.items() if name != "default"}  # a default has no evidence
    for name in _NAMED:
        if isinstance(schema.get(name), dict):
            if taken := {QUOTE, VALUE} & set(schema[name]):
                raise RequestError(f"a field cannot be called {min(taken)}.", param="schema")
            made[name] = {key: _evident(one, depth + 1) for key, one in schema[name].items()}
    for name in _ONE:
        if isinstance(schema.get(name), dict):
            made[name] = _evident(schema[name], depth + 1)
    for name in _MANY:
        if isinstance(schema.get(name), list):
            made[name] = [one if one == {"type": "null"} else _evident(one, depth + 1) for one in schema[name]]
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


def _is_leaf(schema: Any) -> bool:
    """Whether no object and no array can be there. What a reference leads to is looked at where it stands."""
    if not isinstance(schema, dict):
        return True
    kinds = schema.get("type", ())
    kinds = {kinds} if isinstance(kinds, str) else set(kinds)
    if {"object", "array"} & kinds or {"$ref", *_ONE, "properties", "prefixItems"} & set(schema):
        return False
    return all(_is_leaf(one) for name in _MANY for one in schema.get(name, ()))


def _with_quote(schema: Any) -> Json:
    inner = schema if isinstance(schema, dict) else {}
    about = {name: inner[name] for name in _ABOUT if name in inner}
    bare = {name: value for name, value in inner.items() if name not in (*_ABOUT, "default")}
    quote = {"type": ["string", "null"], "maxLength": LONGEST}
    return about | {
        "type": "object",
        "properties": {QUOTE: quote, VALUE: {"anyOf": [bare, {"type": "null"}]}},
        "required": [QUOTE, VALUE],
        "additionalProperties": False,
    }


def choices(schema: Any) -> set[str]:
    """Every text that the schema gives to choose from: such a value need not stand in a document as it is."""
    if isinstance(schema, list):
        return {text for one in schema for text in choices(one)}
    if not isinstance(schema, dict):
        return set()
    here = [*schema.get("enum", ()), schema["const"]] if "const" in schema else schema.get("enum", ())
    own = {one for one in here if isinstance(one, str)} if isinstance(here, list) else set()
    return own.union(*map(choices, schema.values()))


def leaves(answer: Any, path: str = "") -> Iterator[Leaf]:
    """What an answer has, each with its evidence."""
    if _is_answered(answer):
        quote = answer[QUOTE]
        yield Leaf(path, answer[VALUE], quote if isinstance(quote, str) and quote.strip() else None)
        return
    pairs = answer.items() if isinstance(answer, dict) else enumerate(answer) if isinstance(answer, list) else ()
    for name, one in pairs:
        yield from leaves(one, f"{path}.{name}" if path else str(name))


def plain(answer: Any, value: Callable[[Leaf], Any] = lambda leaf: leaf.value) -> Any:
    """The values alone, as `value` takes them of their leaves; a leaf that the document does not give is None."""
    if _is_answered(answer):
        return value(next(leaves(answer)))
    if isinstance(answer, dict):
        return {name: plain(one, value) for name, one in answer.items()}
    return [plain(one, value) for one in answer] if isinstance(answer, list) else answer


def _is_answered(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.keys() == {QUOTE, VALUE}
