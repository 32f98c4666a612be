"""Tools on the wire: what may be called, and whether it has to be."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from myna.provider.wire.body import unsupported
from myna.records import DataError, Json, RequestError, ToolChoice
from myna.records.fields import Fields


class Function(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    type: Literal["function"]
    function: Function


def read_choice(
    tools: list[Tool], given: list[Json], choice: object, parallel: bool | None
) -> tuple[ToolChoice | None, tuple[Json, ...]]:
    """(`tool_choice` with `parallel_tool_calls`, None where the request leaves both open; those tools of `given` that the
    choice allows). RequestError, too, where names do not tell the tools apart."""
    names = [tool.function.name for tool in tools]
    for i, name in enumerate(names):
        if not name or name in names[:i]:
            path = f"tools.{i}.function.name"
            raise RequestError(f"{path}: {'another tool has this name' if name else 'it is empty'}.", param=path)
    if choice is None and parallel is not False:
        return None, tuple(given)
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        inner = choice.get("allowed_tools")
        return allow(
            inner if isinstance(inner, dict) else {}, given, parallel is not False, "tool_choice.allowed_tools"
        )
    return _read_choice(choice, parallel is not False).check(frozenset(names)), tuple(given)


def allow(choice: Json, tools: Sequence[Json], parallel: bool, path: str) -> tuple[ToolChoice, tuple[Json, ...]]:
    """A `mode` among some `tools`, which are named as chat or as Responses do. The others are left out of the prompt: there is no
    other way to be sure that none of them is called."""
    mode, some = choice.get("mode"), choice.get("tools")
    if mode not in ("auto", "required") or not isinstance(some, list) or not some:
        message = f"{path}: it needs a mode, 'auto' or 'required', and a list of tools, not empty."
        raise RequestError(message, param=path, code="invalid_type")
    names = [_name_of(one) for one in some]
    for i, name in enumerate(names):
        if name not in [tool["function"]["name"] for tool in tools]:
            raise RequestError(f"{path}.tools.{i}: {name!r} is not among the tools.", param=f"{path}.tools.{i}")
    return ToolChoice(mode, parallel=parallel), tuple(tool for tool in tools if tool["function"]["name"] in names)


def _name_of(one: object) -> object:
    if not isinstance(one, dict) or one.get("type") != "function":
        return None
    function = one.get("function")
    return function.get("name") if isinstance(function, dict) else one.get("name")


def write_choice(choice: ToolChoice | None) -> Json:
    """The fields of a request that say so; none where nothing is asked for."""
    if choice is None:
        return {}
    named = {"type": "function", "function": {"name": choice.name}}
    mode = {"tool_choice": named if choice.mode == "named" else choice.mode}
    return mode if choice.parallel else mode | {"parallel_tool_calls": False}


def _read_choice(choice: object, parallel: bool) -> ToolChoice:
    match choice or "auto":
        case ("auto" | "none" | "required") as mode:
            return ToolChoice(mode, parallel=parallel)
        case {"type": str(kind)} if kind != "function":
            raise unsupported("tool_choice.type", kind, "'function' and 'allowed_tools' are")
    try:
        function = Fields(choice, "tool_choice").take("function", dict)
        return ToolChoice("named", Fields(function, "tool_choice.function").take("name", str), parallel)
    except DataError as e:
        forms = '\'auto\', \'none\', \'required\', {"type": "function", "function": {"name": ...}} or allowed_tools'
        path = str(e).partition(": ")[0]
        raise RequestError(f"{e}. A choice is {forms}.", param=path, code="invalid_type") from None
