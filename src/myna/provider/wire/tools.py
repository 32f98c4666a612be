"""Tools on the wire: what may be called, and whether it has to be."""

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


def read_choice(tools: list[Tool], choice: object, parallel: bool | None) -> ToolChoice | None:
    """`tool_choice` and `parallel_tool_calls`; None where the request leaves both open. RequestError, too, where names do
    not tell the tools apart."""
    names = [tool.function.name for tool in tools]
    for i, name in enumerate(names):
        if not name or name in names[:i]:
            path = f"tools.{i}.function.name"
            raise RequestError(f"{path}: {'another tool has this name' if name else 'it is empty'}.", param=path)
    if choice is None and parallel is not False:
        return None
    return _read_choice(choice, parallel is not False).check(frozenset(names))


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
            raise unsupported("tool_choice.type", kind, "'function' is")
    try:
        function = Fields(choice, "tool_choice").take("function", dict)
        return ToolChoice("named", Fields(function, "tool_choice.function").take("name", str), parallel)
    except DataError as e:
        forms = '\'auto\', \'none\', \'required\' or {"type": "function", "function": {"name": ...}}'
        path = str(e).partition(": ")[0]
        raise RequestError(f"{e}. A choice is {forms}.", param=path, code="invalid_type") from None
