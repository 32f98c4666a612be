"""What goes into a function and comes out of it, as JSON by its types: dataclasses, pydantic models, lists, texts. Never pickle.

Arguments before the * are inputs: data, kept in the journal. Those after it are means, which are not: a provider, a connection.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_type_hints

import orjson

from myna.apps.flow.errors import FlowError, words
from myna.provider import Provider
from myna.records import RequestError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

LARGEST = 8 << 20  # bytes of JSON that a step's inputs, or its output, may have


@dataclass(frozen=True)
class Shape:
    """A function's inputs, means and output. `function` is async; `hints` are the types of all it takes, and "return"."""

    function: Callable[..., Any]
    where: str
    signature: inspect.Signature
    hints: Mapping[str, Any]

    @classmethod
    def of(cls, function: Callable[..., Any], what: str) -> "Shape":
        """Raises FlowError where it is not async, or an argument has no type, or data and means stand on the wrong side of the *."""
        where = f"the {what} {getattr(function, '__qualname__', function)!r}"
        if not inspect.iscoroutinefunction(function):
            raise FlowError(f"{where} is no `async def`. What blocks goes into `await asyncio.to_thread(...)`.")
        signature = inspect.signature(function)
        try:
            hints = get_type_hints(function, include_extras=True)
        except NameError as e:
            raise FlowError(f"{where}: a type cannot be resolved: {e}") from None
        for name in (*signature.parameters, "return"):
            if name not in hints:
                raise FlowError(f"{where}: {name} has no type; the journal keeps values by their types")
        shape = cls(function, where, signature, {**hints, "return": hints["return"] or type(None)})
        shape._check_sides()
        return shape

    @property
    def inputs(self) -> list[str]:
        return [p.name for p in self.signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]

    @property
    def means(self) -> list[str]:
        return [p.name for p in self.signature.parameters.values() if p.kind is p.KEYWORD_ONLY]

    @property
    def providers(self) -> list[str]:
        """The means that answer: their calls are counted."""
        return [name for name in self.means if self.hints[name] is Provider]

    @cached_property
    def adapters(self) -> dict[str, "TypeAdapter[Any]"]:
        """By input, and "return"."""
        from pydantic import TypeAdapter

        return {name: TypeAdapter(self.hints[name]) for name in (*self.inputs, "return")}

    def _check_sides(self) -> None:
        for p in self.signature.parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
                raise FlowError(f"{self.where}: {p} has no name of its own, and inputs are kept by name")
            data = is_data(self.hints[p.name])
            if data and p.kind is p.KEYWORD_ONLY:
                raise FlowError(
                    f"{self.where}: {p.name} is data, and belongs before the *; what stands after it is not kept"
                )
            if not data and p.kind is not p.KEYWORD_ONLY:
                raise FlowError(
                    f"{self.where}: {p.name} is no data (it has no JSON), and belongs after a *: it cannot be kept"
                )
        if not is_data(self.hints["return"]):
            raise FlowError(f"{self.where}: what it returns is no data (it has no JSON), and cannot be kept")

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(inputs, means), with their defaults. Raises FlowError where an argument is missing or too many."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as e:
            raise FlowError(f"{self.where}: {e}") from None
        bound.apply_defaults()
        given = bound.arguments
        return {n: given[n] for n in self.inputs}, {n: given[n] for n in self.means}

    def write_inputs(self, given: Mapping[str, Any]) -> bytes:
        """The JSON object of some inputs. Raises FlowError."""
        rows = {
            name: orjson.Fragment(to_json(self.adapters[name], given[name], f"{self.where}: {name}"))
            for name in self.inputs
        }
        data = orjson.dumps(rows)
        if len(data) > LARGEST:
            raise FlowError(
                f"{self.where}: inputs of {len(data):,} bytes; {LARGEST:,} can be kept. Pass a file's path and read it inside."
            )
        return data

    def read_inputs(self, data: bytes) -> dict[str, Any]:
        """The inputs of a JSON object; those that are left out have their defaults. Raises RequestError naming the input."""
        try:
            rows = orjson.loads(data)
        except orjson.JSONDecodeError as e:
            raise RequestError(f"{self.where}: the inputs are not JSON: {e}", param="inputs") from None
        if not isinstance(rows, dict):
            raise RequestError(f"{self.where}: inputs are an object of names and values", param="inputs")
        if unknown := sorted(rows.keys() - set(self.inputs)):
            raise RequestError(
                f"inputs.{unknown[0]}: {self.where} has {', '.join(self.inputs) or 'none'}",
                param=f"inputs.{unknown[0]}",
            )
        given = {}
        for name in self.inputs:
            if name in rows:
                given[name] = self._read_input(name, rows[name])
            elif (default := self.signature.parameters[name].default) is inspect.Parameter.empty:
                raise RequestError(f"inputs.{name}: missing", param=f"inputs.{name}")
            else:
                given[name] = default
        return given

    def _read_input(self, name: str, row: object) -> Any:
        from pydantic import ValidationError

        try:
            return self.adapters[name].validate_json(orjson.dumps(row))
        except ValidationError as e:
            raise RequestError(f"inputs.{name}: {_first(e)}", param=f"inputs.{name}") from None

    def write_output(self, value: Any) -> tuple[bytes, Any]:
        """Its JSON, and the value that this JSON gives: the one that is used, at once and after every resume. Raises FlowError."""
        data = to_json(self.adapters["return"], value, f"{self.where}: its output")
        return data, self.adapters["return"].validate_json(data)

    def read_output(self, data: bytes) -> Any:
        """Raises FlowError where the JSON is no longer one of this type."""
        from pydantic import ValidationError

        try:
            return self.adapters["return"].validate_json(data)
        except ValidationError as e:
            said = inspect.formatannotation(self.hints["return"])
            raise FlowError(f"{self.where} gives {said}, and {_short(data.decode())} is none: {_first(e)}") from None


def is_data(hint: Any) -> bool:
    """Whether values of a type have a JSON."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

    try:
        TypeAdapter(hint).json_schema(mode="serialization")
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
        return False
    return True


def to_json(adapter: "TypeAdapter[Any]", value: Any, what: str) -> bytes:
    """The JSON of a value of this type. Raises FlowError where it has none, is too large, or JSON gives another value back: NaN,
    what a type does not say, a set (whose order is another one each time)."""
    from pydantic import PydanticSchemaGenerationError, ValidationError
    from pydantic_core import PydanticSerializationError

    try:
        if _has_set(adapter.dump_python(value, warnings=False)):
            raise FlowError(f"{what} holds a set, which has no order; a sorted list does")
        data = orjson.dumps(adapter.dump_python(value, mode="json", warnings=False))
        if len(data) > LARGEST:
            raise FlowError(
                f"{what} has {len(data):,} bytes; {LARGEST:,} can be kept. Write a file, and pass its path."
            )
        made = adapter.validate_json(data)
    except ValidationError as e:
        raise FlowError(f"{what} is not what its type says: {_first(e)}") from None
    except (PydanticSerializationError, PydanticSchemaGenerationError, TypeError, ValueError, RecursionError) as e:
        raise FlowError(f"{what} is no JSON: {words(e)[:300]}") from None
    if type(made) is not type(value) or made != value:
        raise FlowError(
            f"{what} is {_shown(value)}, and JSON gives {_shown(made)} back; say its type, or keep what JSON has"
        )
    return data


def _has_set(value: Any) -> bool:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, set | frozenset):
            return True
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one
    return False


def _first(error: Any) -> str:
    """The first thing that pydantic finds wrong."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:500].removeprefix(": ")


def _shown(value: Any) -> str:
    try:
        return f"{_short(repr(value))} ({type(value).__name__})"
    except Exception:
        return type(value).__name__


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}..."
