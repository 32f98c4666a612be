"""Our tools served over MCP, by the official SDK. Every call goes through the dispatcher, and counts as tainted: what a foreign model
has read is not known here. So writes and dangers run only where the server's owner grants them (`ask`)."""

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from myna.apps.tools.dispatch import Dispatcher, Outcome
from myna.apps.tools.tool import Tool, canonical
from myna.records import MynaError, ToolCall

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from mcp.types import CallToolResult
    from mcp.types import Tool as Offered


def mcp_server(desk: Dispatcher, name: str = "myna") -> "Server[Any]":
    """The SDK's server of a dispatcher's tools. Run it on stdio with `serve_stdio`, over HTTP as `server.streamable_http_app()`."""
    try:
        from mcp.server.lowlevel import Server
        from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams
    except ImportError:
        raise MynaError('serving tools over MCP needs the SDK: pip install "myna[mcp]"') from None
    from myna import __version__

    async def list_tools(context: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_offered(tool) for tool in desk.tools])

    async def call_tool(context: Any, params: CallToolRequestParams) -> CallToolResult:
        call = ToolCall(uuid.uuid4().hex, params.name, canonical(params.arguments or {}))
        (outcome,) = await replace(desk, run=uuid.uuid4().hex).dispatch([call], tainted=True)
        return _result(outcome)

    return Server(name, version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


def _offered(tool: Tool) -> "Offered":
    """A tool as MCP describes it. Its effect, and whether it goes out, are said in annotations, which its clients may believe or not."""
    from mcp.types import Tool as Offered
    from mcp.types import ToolAnnotations

    effect = ToolAnnotations(
        read_only_hint=tool.effect == "read",
        destructive_hint=tool.effect == "danger",
        open_world_hint=True if tool.untrusted else tool.egress,
    )
    return Offered(
        name=tool.name,
        description=tool.description,
        input_schema={"type": "object"} | tool.parameters,
        annotations=effect,
    )


def _result(outcome: Outcome) -> "CallToolResult":
    from mcp.types import CallToolResult, TextContent

    return CallToolResult(content=[TextContent(type="text", text=outcome.result)], is_error=outcome.status != "ok")


async def serve_stdio(server: "Server[Any]") -> None:
    """Serve whoever started this process, until he closes our stdin."""
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
