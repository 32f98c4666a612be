"""myna tools: what a model could call, before it may: an OpenAPI document's tools, an MCP server's, and ours served over MCP."""

import asyncio
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from myna.apps.flow.errors import place, words
from myna.apps.tools import Asked, Dispatcher, Effect, Tool
from myna.commands.options import printable
from myna.records import Json, MynaError

app = App(name="tools", default_parameter=Parameter(negative_iterable=()))
PINS = Path("mcp-tools.json")


@app.command
def show(document: Path, /, *, base: str | None = None, schema: str | None = None) -> None:
    """The tools of an OpenAPI 3 document, JSON or YAML: their effects, and what was left out and why. Or those of a Python file.

    Parameters
    ----------
    document
        The file. A Python file is yours, and is run.
    base
        Where requests go, instead of the document's first server.
    schema
        The name of a tool whose schema to print, as a model is shown it.
    """
    from myna.apps.tools.openapi import openapi_tools, read_document

    if not document.is_file():
        raise MynaError(f"{document}: no such file")
    if document.suffix == ".py":
        _print_tools(tools_of(document), schema)
        return
    found = openapi_tools(read_document(document), base=base)
    _print_tools(found.tools, schema)
    if schema is not None:
        return
    aside = Console(stderr=True, highlight=False, soft_wrap=True)
    aside.print(printable(f"{len(found.tools)} tools, which call {found.base}; {len(found.skipped)} things left out"))
    for line in found.skipped:
        aside.print(printable(f"  {line}"))


@app.command
def mcp(
    name: str,
    /,
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    url: str | None = None,
    pins: Path = PINS,
    agree: tuple[str, ...] = (),
    effect: Effect | None = None,
    schema: str | None = None,
) -> None:
    """The tools of an MCP server, and which of them you have agreed to: `myna tools mcp files -- python server.py`.

    Parameters
    ----------
    name
        What you call the server; its tools are NAME__TOOL.
    command
        The command that starts it, after --.
    url
        Its address, instead of a command.
    pins
        Your file of what you agreed to.
    agree
        A tool to agree to as it is now; may be repeated.
    effect
        What those may change; write, or danger where the server says so, if not given.
    schema
        The name of a tool whose schema to print.
    """
    from myna.apps.tools import mcp_client
    from myna.apps.tools.mcp_pins import Pins

    if bool(url) == bool(command) or (command and "://" in command[0]):
        raise MynaError(f"Which server? myna tools mcp {name} -- COMMAND, or myna tools mcp {name} --url URL")
    where = mcp_client.Http(url) if url else mcp_client.Stdio(command)

    async def look() -> mcp_client.Server:
        async with mcp_client.connect(name, where, Pins(pins)) as server:
            for tool in agree:
                mcp_client.agree(Pins(pins), server, tool, effect)
            return server

    server = asyncio.run(look())
    if schema is not None:
        _print_schema({offer.name: offer.parameters for offer in server.offers}, schema)
        return
    table = Table("tool", "state", "what it is for", box=None, header_style="bold")
    for offer in server.offers:
        state = "agreed" if offer.name in agree else f"{offer.state}{f': {offer.why}' if offer.why else ''}"
        table.add_row(printable(offer.name), printable(state), printable(_line(offer.description)))
    Console(highlight=False, soft_wrap=not Console().is_terminal).print(table)
    if any(offer.state in ("new", "changed") and offer.name not in agree for offer in server.offers):
        said = (
            f"Nothing runs that you have not agreed to. Read it with --schema TOOL, then --agree TOOL; kept in {pins}."
        )
        print(said, file=sys.stderr)


@app.command
def serve(file: Path, /, *, port: int | None = None, allow: tuple[Effect, ...] = ()) -> None:
    """Serve the tools of a Python file over MCP: on stdin and stdout, for programs that start this one, or over HTTP.

    Parameters
    ----------
    file
        A Python file of yours with functions under @tool(effect=...). It is run.
    port
        Serve over HTTP at this port of this machine, under /mcp.
    allow
        Serve tools of this effect too, and run every call of them without asking here: write, danger. May be repeated.
    """
    from myna.apps.tools.mcp_server import mcp_server, serve_stdio

    tools = tools_of(file)
    served = tuple(tool for tool in tools if tool.effect == "read" or tool.effect in allow)
    if not served:
        there = ", ".join(f"{tool.name} ({tool.effect})" for tool in tools) or "none"
        raise MynaError(
            f"{file} has no tool to serve; it has: {there}. Tools that write are served with --allow write."
        )

    async def granted(asked: Asked) -> bool:
        return asked.effect in ("read", *allow)  # by whoever started this server; its client asks its own user

    server = mcp_server(Dispatcher(served, ask=granted))
    left = [tool.name for tool in tools if tool not in served]
    print(f"serving {', '.join(t.name for t in served)}; not served: {', '.join(left) or 'none'}", file=sys.stderr)
    if port is None:
        asyncio.run(serve_stdio(server))
        return
    import uvicorn

    asyncio.run(uvicorn.Server(uvicorn.Config(server.streamable_http_app(), port=port)).serve())


def tools_of(file: Path) -> list[Tool]:
    """The tools among a Python file's names, those in tuples and lists too. The file is run."""
    found: list[Tool] = []
    for value in vars(_module(file)).values():
        found += [one for one in (value if isinstance(value, tuple | list) else [value]) if isinstance(one, Tool)]
    return found


def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file.resolve()) if file.is_file() else None
    if spec is None or spec.loader is None:
        raise MynaError(f"{file}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # where types of its functions are looked up
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        at = place(e, str(file.resolve()))
        raise MynaError(f"{file} cannot be run: {words(e)}{f' ({at})' if at else ''}") from e
    return module


def _print_tools(tools: Sequence[Tool], schema: str | None) -> None:
    """All of them, or one's schema."""
    if schema is not None:
        _print_schema({tool.name: tool.schema for tool in tools}, schema)
        return
    table = Table("tool", "effect", "network", "what it is for", box=None, header_style="bold")
    for tool in tools:
        network = {True: "yes", False: "no", None: "not said"}[tool.egress]
        table.add_row(printable(tool.name), tool.effect, network, printable(_line(tool.description)))
    Console(highlight=False, soft_wrap=not Console().is_terminal).print(table)


def _print_schema(schemas: dict[str, Json], name: str) -> None:
    if name not in schemas:
        raise MynaError(f"there is no tool {name!r}; there are: {', '.join(schemas) or 'none'}")
    print(json.dumps(schemas[name], indent=1))  # ASCII, so that nothing in it can hide


def _line(text: str) -> str:
    first = text.strip().split("\n")[0]
    return first if len(first) <= 90 else first[:89] + "…"
