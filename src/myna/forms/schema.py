"""A schema as it was sent: read within limits, lowered to a grammar, and able to check a finished answer."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

import jsonschema_rs
from jsonschema_rs import CanonicalSchema, FancyRegexOptions, ValidationError

from myna.forms.formats import NOT_ENFORCED
from myna.forms.lower import DEEPEST, CannotEnforce, Lowering
from myna.forms.rules import Rules, TooLarge

PATTERNS = FancyRegexOptions(backtrack_limit=100_000, size_limit=1 << 20)
MOST_PARTS = 20_000  # objects and lists
LONGEST_EXPONENT = 5  # digits
LOOKED_AT = 64  # declarations of a name, where its order is looked for

Write = Callable[[Lowering, CanonicalSchema], str]
"""Makes the rule of a schema's values."""


class SchemaError(Exception):
    """A schema that is not one, or that cannot be enforced. The message says where, and by which keyword."""


class Schema:
    """One JSON Schema: draft 2020-12 unless `$schema` says otherwise; without it, what only draft 7 allows is draft 7.

    Raises SchemaError when it is no schema, refers to what is not inside it, or is larger than the limits.
    """

    def __init__(self, source: str):
        self.json = _read(source)
        self.draft, self.canonical = _canonical(self.json)
        self._declared = [*_declared(self.json)]
        self._declarations: dict[str, list[int]] = {}  # name -> the lists it is in, the names in order
        for i, names in enumerate(self._declared):
            for name in names:
                self._declarations.setdefault(name, []).append(i)
        for name in _required(self.json):
            self._declarations.setdefault(name, [])

    def rules(self, rules: Rules, *, strict: bool, write: Write = Lowering.value) -> tuple[str, list[str]]:
        """(the rule of its values, what is left to `check`). Raises SchemaError when strict and something would be left."""
        low = Lowering(rules, self.order, strict=strict)
        try:
            rule = write(low, self.canonical)
        except CannotEnforce as e:
            raise SchemaError(self._where(e)) from None
        except TooLarge as e:
            raise SchemaError(str(e)) from None
        except RecursionError:
            raise SchemaError("it is nested too deeply") from None
        return rule, [self._where(e) for e in low.gave_up]

    def order(self, names: Iterable[str]) -> list[str]:
        """These names, and those declared beside them, in the order of the declaration that knows most of them."""
        wanted = dict.fromkeys(names)
        known = Counter(i for name in wanted for i in self._declarations.get(name, ())[:LOOKED_AT])
        best = self._declared[min(known, key=lambda i: (-known[i], i))] if known else []
        inside, ranks = set(best), {name: i for i, name in enumerate(self._declarations)}
        rest = [name for name in wanted if name not in inside]
        return [*best, *sorted(rest, key=lambda name: ranks.get(name, len(ranks)))]

    def of_type(self, kind: str) -> CanonicalSchema:
        """The schema of all values of a type, to be joined with parts of this one."""
        return _canonical({"$schema": self.draft, "type": kind})[1]

    def check(self, value: Any) -> str | None:
        """Why a value is not what the schema allows, by a validator that shares nothing with the grammar."""
        validator = jsonschema_rs.validator_cls_for({"$schema": self.draft})(
            self.json, validate_formats=True, offline=True, pattern_options=PATTERNS
        )
        try:
            validator.validate(value)
        except ValidationError as e:
            return f"{_pointer(e.instance_path)}: {e.message}"[:500]
        return None

    def _where(self, error: CannotEnforce) -> str:
        for path, node in _walk(self.json):
            for keyword in error.keywords if _is(node) else ():
                if keyword in node and not (keyword == "format" and node[keyword] not in NOT_ENFORCED):
                    return f"`{keyword}` at {_pointer(path)}: {error}"
        return str(error)


class Reader(json.JSONDecoder):
    """Of a finished answer: numbers keep all their digits (1e999 is one, and no infinity), and NaN is none."""

    def __init__(self) -> None:
        super().__init__(parse_float=_number, parse_constant=_no_constant)


def _number(text: str) -> Decimal:
    digits, _, exponent = text.lower().partition("e")
    if len(exponent.lstrip("+-0")) > LONGEST_EXPONENT:  # beyond all bounds either way, and dear to write out
        exponent = exponent[0] * (exponent[0] == "-") + "9" * LONGEST_EXPONENT
    return Decimal(f"{digits}e{exponent or 0}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _declared(json: Any) -> Iterator[list[str]]:
    """The names that each object declares, in order."""
    for path, names in _walk(json):
        if path[-1:] == ("properties",) and isinstance(names, dict):
            yield [*names]


def _required(json: Any) -> Iterator[str]:
    for path, names in _walk(json):
        if path[-1:] == ("required",) and isinstance(names, list):
            yield from (name for name in names if isinstance(name, str))


def _is(node: object) -> bool:
    return isinstance(node, dict)


def _read(source: str) -> Any:
    if _depth(source) > DEEPEST:
        raise SchemaError(f"it is nested more than {DEEPEST} deep")
    try:
        found = json.loads(source)
    except (ValueError, RecursionError) as e:
        raise SchemaError(f"it is not JSON: {e}") from None
    if not isinstance(found, dict | bool):
        raise SchemaError("it must be an object, or true or false")
    if sum(isinstance(part, dict | list) for _, part in _walk(found)) > MOST_PARTS:
        raise SchemaError(f"it has more than {MOST_PARTS} objects and lists")
    return found


def _depth(source: str) -> int:
    """How deep brackets are nested; those inside strings count too, which makes no schema look shallower."""
    depth = deepest = 0
    for c in source:
        depth += (c in "[{") - (c in "]}")
        deepest = max(deepest, depth)
    return deepest


_DRAFTS = ("https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#")


def _canonical(schema: Any) -> tuple[str, CanonicalSchema]:
    named = schema.get("$schema") if isinstance(schema, dict) else None
    problem = ""
    for draft in (named,) if isinstance(named, str) else _DRAFTS:
        asked = {"$schema": draft, **schema} if isinstance(schema, dict) else schema
        try:
            return draft, jsonschema_rs.canonicalize(
                asked, validate_formats=True, offline=True, pattern_options=PATTERNS
            )
        except ValidationError as e:
            problem = problem or f"it is no JSON Schema at {_pointer(e.instance_path)}: {e.message}"[:500]
        except ValueError as e:
            raise SchemaError(str(e)[:500]) from None
    raise SchemaError(problem)


def _walk(json: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every part with its path, from the top, in order."""
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), json)]
    while todo:
        path, node = todo.pop()
        yield path, node
        inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        todo += [((*path, name), part) for name, part in reversed([*inner])]


def _pointer(path: Iterable[str | int]) -> str:
    """A JSON Pointer (RFC 6901), from #."""
    return "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
