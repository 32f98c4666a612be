"""What a model may ask for: tools, the one dispatcher that runs them, and approvals. No torch.

    @tool(effect="read")
    def population(city: str) -> int:
        \"\"\"People living in the city proper.\"\"\"

    desk = Dispatcher((population,))
    for outcome in await desk.dispatch(message.tool_calls, tainted=False):
        conversation += outcome.message

Tools from an OpenAPI document are in `openapi`, those of an MCP server in `mcp_client`; ours are served by `mcp_server`;
`sandbox` runs Python.
"""

from myna.apps.tools.approvals import Approvals, Ask, Asked, at_terminal, later, never
from myna.apps.tools.dispatch import Dispatcher, Outcome, Status, this_call
from myna.apps.tools.tool import Effect, Tool, Untrusted, Waits, tool

__all__ = [
    "Approvals",
    "Ask",
    "Asked",
    "Dispatcher",
    "Effect",
    "Outcome",
    "Status",
    "Tool",
    "Untrusted",
    "Waits",
    "at_terminal",
    "later",
    "never",
    "this_call",
    "tool",
]
