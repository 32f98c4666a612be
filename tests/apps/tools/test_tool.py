"""A typed function with a docstring is a tool; what is missing is said where it is defined."""

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jsonschema_rs
import pytest

from myna.apps.tools import Tool, tool
from myna.records import MynaError, ToolError


@tool(effect="read")
def weather(city: str, days: int = 3, unit: Literal["C", "F"] = "C") -> str:
    """What the weather will be.

    Args:
        city: A town, 例如 杭州.
        days: How many days ahead.
    """
    return f"{city}: sun for {days} days, in {unit}"


def test_the_signature_is_the_schema_and_the_docstring_describes_it() -> None:
    assert weather.name == "weather"
    assert weather.description == "What the weather will be."
    assert weather.parameters == {
        "type": "object",
        "additionalProperties": False,
        "required": ["city"],
        "properties": {
            "city": {"type": "string", "description": "A town, 例如 杭州."},
            "days": {"type": "integer", "default": 3, "description": "How many days ahead."},
            "unit": {"enum": ["C", "F"], "default": "C", "type": "string"},
        },
    }
    jsonschema_rs.meta.validate(weather.parameters)


def test_arguments_become_the_types_of_the_signature() -> None:
    @dataclass
    class Point:
        x: int
        y: int

    @tool(effect="read")
    def days_between(schema: datetime.date, copy: datetime.date, _at: Point, title: str = "") -> dict[str, Any]:
        """Names that mean something to pydantic are names like any other."""
        return {"days": (copy - schema).days, "at": _at, "title": title}

    assert sorted(days_between.parameters["properties"]) == ["_at", "copy", "schema", "title"]
    given = {"schema": "2026-01-01", "copy": "2026-02-01", "_at": {"x": 1, "y": 2}}
    assert asyncio.run(days_between.check(given)) is None
    assert asyncio.run(days_between.run(given)) == '{"days":31,"at":{"x":1,"y":2},"title":""}'
    with pytest.raises(ToolError, match="schema"):
        asyncio.run(days_between.run(given | {"schema": "not a day"}))


def test_a_function_that_is_not_async_keeps_the_loop_free() -> None:
    import threading

    @tool(effect="read")
    def where() -> str:
        """The thread it runs on."""
        return threading.current_thread().name

    assert asyncio.run(where.run({})) == "tool"


def no_docstring(city: str) -> str:
    return city


def no_type(city) -> str:  # type: ignore[no-untyped-def]
    """A town."""
    return str(city)


def open_arguments(*cities: str) -> str:
    """Towns."""
    return str(cities)


def yields() -> Any:
    """Never ends."""
    yield "x"


def no_schema(work: Callable[[], None]) -> str:
    """A function is no JSON."""
    return str(work)


def misspelt(city: str) -> str:
    """A town.

    Args:
        town: The town.
    """
    return city


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_docstring, "no docstring"),
        (no_type, "'city' has no type"),
        (open_arguments, "cannot be given by name"),
        (yields, "yields"),
        (no_schema, "no JSON Schema"),
        (misspelt, "'town'"),
    ],
)
def test_what_is_missing_is_an_error_at_the_definition(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(MynaError, match=said):
        tool(effect="read")(function)


def test_a_tool_without_an_effect_is_refused() -> None:
    with pytest.raises(MynaError, match="what may it change"):
        tool(misspelt)
    with pytest.raises(MynaError, match="what may it change"):
        tool(timeout=3)
    with pytest.raises(MynaError, match="'rade'"):
        tool(effect="rade")(weather_again)  # type: ignore[arg-type]


def weather_again() -> str:
    """What the weather was."""
    return ""


@pytest.mark.parametrize("change", ["name", "description", "parameters", "effect", "source"])
def test_the_definition_changes_with_everything_that_was_agreed_to(change: str) -> None:
    other: dict[str, Any] = {"effect": "write", "parameters": {"type": "object"}}
    assert replace(weather, **{change: other.get(change, "another")}).definition != weather.definition
    assert replace(weather, timeout=1.0).definition == weather.definition


def test_a_schema_changed_in_place_is_another_definition() -> None:
    own = replace(weather, parameters={"type": "object", "properties": {}})
    before = own.definition
    own.parameters["properties"]["bcc"] = {"type": "string"}
    assert own.definition != before


def test_names_are_those_every_endpoint_takes() -> None:
    assert isinstance(tool(effect="read", name="tian_qi")(weather_again), Tool)
    with pytest.raises(MynaError, match="name="):
        tool(effect="read", name="天气")(weather_again)
