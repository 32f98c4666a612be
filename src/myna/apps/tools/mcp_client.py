"""The tools of an MCP server, by the official SDK, as tools of ours. Nothing of a server is called that its user has not agreed to: what
is new, or no longer what it was, is blocked until he does.

    async with connect("files", Stdio(("python", "server.py")), Pins(Path("pins.json"))) as server:
        for offer in server.offers: print(offer.name, offer.state)
        desk = Dispatcher((*own, *server.tools))

A server's word counts for nothing but caution: its hint "destructive" makes a tool dangerous, its hint "read only" makes none a read.
Results are a stranger's text. Names are `server__tool`, so no server can shadow a tool of ours or of another.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from myna.apps.tools.mcp_pins import Pins
from myna.apps.tools.schema_check import checked
from myna.apps.tools.tool import CAP, TIMEOUT, Effect, Tool, canonical
from myna.records import Json, MynaError, ToolError

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult
    from mcp.types import Tool as Offered

log = logging.getLogger(__name__)
logging.getLogger("mcp").addHandler(
    logging.NullHandler()
)  # the SDK's tracebacks go to whoever set up logging, not to stderr

START = 30.0  # seconds to start, shake hands and list
CLOSE = 10.0  # and to end
MOST_PAGES, MOST_TOOLS = 50, 1_000
MOST_DESCRIPTION = 4_000  # characters
MOST_SCHEMA = 64 << 10  # characters
MOST_RESPONSE = 8 << 20  # bytes of one HTTP response
SERVER = re.compile(r"[A-Za-z0-9-]{1,24}")  # no underscore, so that server__tool can be read in one way

State = Literal["agreed", "new", "changed", "refused"]


@dataclass(frozen=True, slots=True)
class Stdio:
    """A server that is a command. It sees `env` and what a shell has, and no other variable of ours."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return f"mcp stdio {canonical(list(self.command))}"


@dataclass(frozen=True, slots=True)
class Http:
    """A server at an address (streamable HTTP). `headers` are the user's, an API key say."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        return f"mcp {self.url}"


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as its server describes it. `definition` is a hash of all of that and of where the server is; `why` says why it is
    blocked; `hint` is what the server says of its effect; `egress` as a tool has it."""

    name: str
    description: str
    parameters: Json
    definition: str
    hint: Effect
    state: State
    why: str = ""
    egress: bool | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """A connection. `tools` are those that were agreed to, `offers` all there are."""

    name: str
    tools: tuple[Tool, ...]
    offers: tuple[Offer, ...]


@asynccontextmanager
async def connect(
    name: str, where: Stdio | Http, pins: Pins, *, timeout: float = TIMEOUT, cap: int = CAP
) -> AsyncIterator[Server]:
    """Talk to a server. `name` is yours, letters, digits and -. Raises MynaError when it does not start, shake hands and list its
    tools within START seconds."""
    if not SERVER.fullmatch(name):
        raise MynaError(f"{name!r} cannot name a server: say 1 to 24 letters, digits and -")
    try:
        import mcp.client  # noqa: F401
    except ImportError:
        raise MynaError('MCP servers need the SDK: pip install "myna[mcp]"') from None
    from myna.apps.tools.mcp_stdio import Said

    said, closing = Said(), asyncio.Event()
    opened: asyncio.Future[tuple[Client, list[Offered]]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_hold(where, said, opened, closing))
    try:
        try:
            client, listed = await opened
        except Exception as e:  # a lying server makes the SDK raise whatever it likes
            why = "; ".join(filter(None, (_reason(e), str(said))))
            raise MynaError(f"the MCP server {name!r} gives no list of tools: {why}"[:1500]) from None
        names = [one.name for one in listed]
        offers = tuple(_offer(name, where, one, pins, names) for one in listed)
        agreed = (offer for offer in offers if offer.state == "agreed")
        yield Server(name, tuple(_tool(client, name, where, o, pins, timeout, cap, said) for o in agreed), offers)
    finally:
        closing.set()
        if not opened.done():
            task.cancel()
        await asyncio.wait({task}, timeout=CLOSE)


async def _hold(where: Stdio | Http, said: Any, opened: "asyncio.Future[Any]", closing: asyncio.Event) -> None:
    """Opens the connection and keeps it until `closing`. A task of its own, so that what the caller raises meanwhile is not
    wrapped into the groups of the SDK's tasks, nor stopped by their cancellations."""
    from mcp import Client

    try:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(START):
                transport = await _transport(stack, where, said)
                client = await stack.enter_async_context(Client(transport, cache=None, read_timeout_seconds=START))
                listed = await _list(client)
            if not opened.done():
                opened.set_result((client, listed))
            await closing.wait()
    except Exception as e:
        if not opened.done():
            opened.set_exception(e)
        else:
            log.info("the connection to an MCP server ended: %s", _reason(e))


async def _transport(stack: AsyncExitStack, where: Stdio | Http, said: Any) -> Any:
    from myna.apps.tools.mcp_stdio import stdio

    if isinstance(where, Stdio):
        return stdio(where.command, where.env, said)
    from mcp.client.streamable_http import streamable_http_client

    from myna.apps.tools.mcp_http import limited

    client = await stack.enter_async_context(limited(where.headers, MOST_RESPONSE))
    return streamable_http_client(where.url, http_client=client)


async def _list(client: "Client") -> "list[Offered]":
    """All pages. Raises MynaError for a list without end."""
    found: list[Offered] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        if len(found) > MOST_TOOLS:
            raise MynaError(f"it has more than {MOST_TOOLS} tools")
        if not (cursor := page.next_cursor):
            return found
    raise MynaError(f"its list has more than {MOST_PAGES} pages")


def _offer(server: str, where: Stdio | Http, one: "Offered", pins: Pins, names: list[str]) -> Offer:
    said = one.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"meta", "icons"})
    description, hints = one.description or one.title or "", one.annotations
    try:
        definition = hashlib.sha256(canonical([where.source, said]).encode()).hexdigest()
        size = len(canonical(one.input_schema))
    except (ValueError, RecursionError):
        return Offer(one.name[:64], "", {}, "", "write", "refused", "its definition is no JSON, or too deep")
    hint: Effect = "danger" if hints and hints.destructive_hint else "write"
    hint = "read" if hints and hints.read_only_hint and not hints.destructive_hint else hint
    state, why = _state(server, one.name, definition, pins)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", one.name) or len(f"{server}__{one.name}") > 64:
        state, why = "refused", "its name is not of letters, digits, _ and -, or too long"
    elif names.count(one.name) > 1:
        state, why = "refused", "the server has two tools of this name"
    elif len(description) > MOST_DESCRIPTION or size > MOST_SCHEMA:
        state, why = (
            "refused",
            f"its description or schema is longer than {MOST_DESCRIPTION} or {MOST_SCHEMA} characters",
        )
    # A command of this machine may keep to it; that it does is not believed ("open world" false), that it does not is.
    egress = True if isinstance(where, Http) or (hints and hints.open_world_hint) else None
    return Offer(one.name[:64], description[:MOST_DESCRIPTION], one.input_schema, definition, hint, state, why, egress)


def _state(server: str, tool: str, definition: str, pins: Pins) -> tuple[State, str]:
    pinned = pins.of(server, tool)
    if pinned is None:
        return "new", "nobody has agreed to it"
    if pinned[0] != definition:
        return "changed", "it is no longer what was agreed to"
    return "agreed", ""


def agree(pins: Pins, server: Server, tool: str, effect: Effect | None = None) -> None:
    """Agree to a tool as it is offered now. Without an effect it is a write, or a danger where the server itself says so. Raises
    MynaError for a tool that is not there or was refused."""
    for offer in server.offers:
        if offer.name == tool and offer.state != "refused":
            pins.agree(server.name, tool, offer.definition, effect or ("danger" if offer.hint == "danger" else "write"))
            return
    why = next((f": {offer.why}" for offer in server.offers if offer.name == tool), "")
    raise MynaError(f"{server.name} offers no tool {tool!r} that can be agreed to{why}")


def _tool(
    client: "Client", server: str, where: Stdio | Http, offer: Offer, pins: Pins, timeout: float, cap: int, said: Any
) -> Tool:
    pinned = pins.of(server, offer.name)
    assert pinned

    async def run(arguments: Json) -> str:
        from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult

        # Not client.call_tool: it checks the result against the server's own output schema, in this process and without a limit.
        asked = CallToolRequest(params=CallToolRequestParams(name=offer.name, arguments=arguments))
        try:
            result = await client.session.send_request(asked, CallToolResult, request_read_timeout_seconds=timeout)
        except Exception as e:  # a lying server makes the SDK raise whatever it likes
            raise ToolError("; ".join(filter(None, (f"{server}: {_reason(e)}", str(said))))[:1000]) from None
        text = _text(result, cap)
        if result.is_error:
            raise ToolError(text)
        return text

    return Tool(
        name=f"{server}__{offer.name}",
        description=offer.description or offer.name,
        parameters=offer.parameters,
        effect=pinned[1],
        run=run,
        check=checked(offer.parameters),
        timeout=timeout,
        cap=cap,
        untrusted=True,
        source=f"{where.source} {offer.definition}",
        egress=offer.egress,
    )


def _text(result: "CallToolResult", cap: int) -> str:
    """What a result says in words; other things are named. Structured content counts where there are no words."""
    parts: list[str] = []
    for block in result.content:
        match block.type:
            case "text":
                parts.append(block.text)
            case "resource" if hasattr(block.resource, "text"):
                parts.append(block.resource.text)
            case kind:
                parts.append(f"[{kind}, which is not shown]")
    if not parts and result.structured_content is not None:
        try:
            parts.append(canonical(result.structured_content))
        except (ValueError, RecursionError):
            raise ToolError("Its result is no JSON.") from None
    return "\n".join(parts)


def _reason(e: BaseException) -> str:
    """An error in a few words; of a group, those of its first."""
    while isinstance(e, BaseExceptionGroup):
        e = e.exceptions[0]
    if isinstance(e, TimeoutError):
        return f"no answer within {START:g} seconds"
    if isinstance(e, FileNotFoundError | PermissionError) and e.filename:
        return f"{e.filename}: {e.strerror}"
    return f"{type(e).__name__}: {str(e)[:500]}"
