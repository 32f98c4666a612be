"""A Python function as a tool: signature -> JSON Schema, arguments -> a call, what it returns -> text."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, get_type_hints

import docstring_parser
import jsonschema_rs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticSerializationError, to_json

from myna.records import Json, MynaError, ToolError

MOST_THREADS = 32  # calls of functions that are not async, those that were given up but never ended included


@dataclass(frozen=True, slots=True)
class Function:
    """What `@tool` read from a function."""

    function: Callable[..., Any]
    description: str
    parameters: Json
    model: type[BaseModel]
    names: tuple[str, ...]
    validator: Any

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Function":
        where = f"the tool {getattr(function, '__qualname__', function)!r}"
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise MynaError(f"{where} yields; a tool returns its result once")
        description, told = _docstring(function, where)
        parameters = inspect.signature(function).parameters
        if unknown := sorted(told.keys() - parameters.keys()):
            raise MynaError(f"{where}: its docstring describes {unknown[0]!r}, which is no argument of it")
        model = _model(function, where, told)
        schema = _untitled(model.model_json_schema())
        schema.setdefault("properties", {})
        names = tuple(parameters)
        return cls(function, description, schema, model, names, jsonschema_rs.validator_for(schema, offline=True))

    async def check(self, arguments: Json) -> str | None:
        """The schema is of our own making, so it is checked in process."""
        for error in self.validator.iter_errors(arguments):
            path = "/".join(str(part) for part in error.instance_path)
            return f"{path}: {error.message}"[:500] if path else error.message[:500]
        return None

    async def run(self, arguments: Json) -> str:
        """Raises ToolError where a type refuses what the schema lets through (a validator of its own, say)."""
        try:
            made = self.model.model_validate(arguments)
        except ValidationError as e:
            first = e.errors(include_url=False, include_context=False, include_input=False)[0]
            raise ToolError(f"{'/'.join(str(part) for part in first['loc'])}: {first['msg']}"[:500]) from None
        given = {name: getattr(made, f"argument_{i}") for i, name in enumerate(self.names)}
        if inspect.iscoroutinefunction(self.function):
            return as_text(await self.function(**given))
        return await in_thread(lambda: as_text(self.function(**given)))


def _docstring(function: Callable[..., Any], where: str) -> tuple[str, dict[str, str]]:
    """(what the function does, what its arguments are)."""
    parsed = docstring_parser.parse(inspect.getdoc(function) or "")
    said = "\n\n".join(filter(None, (parsed.short_description, parsed.long_description)))
    if not said.strip():
        raise MynaError(f"{where} has no docstring, and that is what the model reads")
    return said, {p.arg_name: p.description for p in parsed.params if p.args[0] != "attribute" and p.description}


def _model(function: Callable[..., Any], where: str, told: dict[str, str]) -> type[BaseModel]:
    """A pydantic model of the arguments. Its fields are numbered and go by alias: an argument may be called `schema`, `copy` or
    `_x`, which mean something else to pydantic."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as e:
        raise MynaError(f"{where}: a type cannot be resolved: {e}") from None
    fields: dict[str, Any] = {}
    for i, (name, parameter) in enumerate(inspect.signature(function).parameters.items()):
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise MynaError(f"{where}: {parameter} cannot be given by name, and a model gives arguments by name")
        if name not in hints:
            raise MynaError(f"{where}: the argument {name!r} has no type")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"argument_{i}"] = (hints[name], Field(default, alias=name, description=told.get(name)))
    try:
        model = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
        model.model_json_schema()
    except Exception as e:  # pydantic has a family of errors for types that have no schema
        raise MynaError(f"{where}: a type has no JSON Schema: {str(e).splitlines()[0][:300]}") from None
    return model


def _untitled(schema: Any) -> Any:
    """Without the titles that pydantic makes of names: they cost tokens and say nothing. A property may be called `title`."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: part for key, part in schema.items() if not (key == "title" and isinstance(part, str))}
    named = ("properties", "$defs")
    return {
        key: {name: _untitled(one) for name, one in part.items()} if key in named else _as_is(key, part)
        for key, part in kept.items()
    }


def _as_is(key: str, part: Any) -> Any:
    return part if key in ("default", "const", "enum", "examples") else _untitled(part)


def as_text(value: object) -> str:
    """What a tool returned, for the model: text as it is, anything else as JSON. Raises ToolError for what is neither."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview | Iterator) or inspect.isawaitable(value):
        raise ToolError(f"The tool returned {type(value).__name__}, which is no text and no JSON.")
    try:
        return to_json(value).decode()
    except (PydanticSerializationError, ValueError, RecursionError) as e:
        raise ToolError(f"The tool returned {type(value).__name__}, which is no text and no JSON: {e}"[:300]) from None


_running: set[threading.Thread] = set()


async def in_thread(work: Callable[[], str]) -> str:
    """`work()`, on a daemon thread of its own: one that never returns holds up neither the others nor the end of the program.
    A thread cannot be stopped; where this is cancelled, its result is dropped. Raises ToolError when MOST_THREADS are alive."""
    _running.difference_update([thread for thread in _running if not thread.is_alive()])
    if len(_running) >= MOST_THREADS:
        raise ToolError(f"{MOST_THREADS} calls of tools are still running; no more are begun until one of them ends.")
    loop, context = asyncio.get_running_loop(), copy_context()
    done: asyncio.Future[str] = loop.create_future()

    def settle(result: str | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result or "")

    def body() -> None:
        result: str | None = None
        error: BaseException | None = None
        try:
            result = context.run(work)
        except StopIteration as e:  # no future may hold it
            error = RuntimeError(f"StopIteration: {e}")
        except BaseException as e:
            error = e
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    thread = threading.Thread(target=body, name="tool", daemon=True)
    _running.add(thread)
    thread.start()
    return await done
