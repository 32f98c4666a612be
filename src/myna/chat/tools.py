"""Tools as a conversation has them: OpenAI's {"type": "function", "function": {"name", "description", "parameters"}}."""

from collections.abc import Iterable

from myna.records import Json, ToolCall

# What a template is asked to write, to see how it writes calls. Mistral's wants ids of nine letters and digits; Kimi's has
# the name of the function nowhere but in the id.
PROBE = ToolCall("", "find_town", '{"name_of_town": "Ulm"}')
PROBE_IDS = ("call00001", "functions.find_town:0")
PROBE_TOOL: Json = {
    "type": "function",
    "function": {
        "name": PROBE.name,
        "description": "Find a town.",
        "parameters": {"type": "object", "properties": {"name_of_town": {"type": "string"}}, "required": []},
    },
}


def schemas(tools: Iterable[Json]) -> dict[str, Json]:
    """name -> JSON Schema of the parameters; {} where a tool gives none. What has no name is left out."""
    functions = [tool["function"] if isinstance(tool.get("function"), dict) else tool for tool in tools]
    found = {f["name"]: f.get("parameters") for f in functions if isinstance(f.get("name"), str)}
    return {name: schema if isinstance(schema, dict) else {} for name, schema in found.items()}


def shown(tool: Json) -> Json:
    """A tool as a template is given it: `strict` is said to the server, and no model was taught it."""
    function = tool.get("function")
    if not isinstance(function, dict) or "strict" not in function:
        return tool
    return tool | {"function": {key: value for key, value in function.items() if key != "strict"}}
