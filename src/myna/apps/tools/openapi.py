"""An OpenAPI 3.0 or 3.1 document as tools, one for each operation: GET and HEAD read, all else writes.

described = openapi_tools(read_document(Path("shop.yaml")), headers={"Authorization": "Bearer ..."})
desk = Dispatcher(described.tools, ask=at_terminal)
for line in described.skipped: ...          # what could not be made a tool, and why
"""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from myna.apps.tools.http_call import Host, as_json, origin, send
from myna.apps.tools.openapi_schema import Schemas, resolve
from myna.apps.tools.schema_check import checked
from myna.apps.tools.tool import CAP, TIMEOUT, Tool
from myna.records import DataError, Json, MynaError, ToolError

if TYPE_CHECKING:
    import httpx

METHODS = ("get", "head", "post", "put", "patch", "delete")
MOST_BYTES = 16 << 20
MOST_OPERATIONS = 2_000
MOST_DESCRIPTION = 1_000  # characters
MOST_PARTS = 1_000_000  # of a YAML document with its aliases written out
YAML_SECONDS, YAML_MEMORY = 60, 1 << 30
READ_YAML = """
import json, sys, yaml
found = yaml.load(sys.stdin.buffer, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
todo, left = [found], int(sys.argv[1])
while todo:
    part = todo.pop()
    left -= 1
    if left < 0:
        sys.exit("it is too large when its aliases are written out")
    todo += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
print(json.dumps(found, default=str))
"""
# OpenAPI 3.1 says of the first three that a parameter of this name is ignored; the others are the connection's business.
NOT_HEADERS = {
    "accept",
    "content-type",
    "authorization",
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "cookie",
}
NOT_HEADERS |= {"proxy-authorization", "te", "trailer", "upgrade", "expect"}
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Described:
    """`skipped` says of each operation or parameter that is not here why."""

    tools: tuple[Tool, ...]
    skipped: tuple[str, ...]
    base: str


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    where: str  # path, query or header
    argument: str  # what the model calls it
    required: bool
    style: str
    explode: bool


def read_document(path: Path) -> Json:
    """Raises DataError when the file is neither JSON nor YAML, too large, or no OpenAPI 3 document. YAML is read in a child process
    with a limit of time and memory."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise DataError(f"{path} has {size} bytes; {MOST_BYTES} are the most an OpenAPI document may have")
    text = path.read_bytes()
    try:
        found = json.loads(text) if text.lstrip()[:1] == b"{" else _yaml(text, path)
    except (ValueError, RecursionError) as e:
        raise DataError(f"{path} cannot be read: {e}") from None
    version = str(found.get("openapi", "")) if isinstance(found, dict) else ""
    if not re.match(r"3\.[01]\.", version + "."):
        raise DataError(f"{path}: no OpenAPI 3.0 or 3.1 document (openapi: {version[:20]!r}); convert older ones first")
    return found


def _yaml(text: bytes, path: Path) -> Any:
    """Aliases of aliases grow without bound and merges take for ever; the child pays for them."""
    command = [sys.executable, "-I", "-c", READ_YAML, str(MOST_PARTS)]
    try:
        done = subprocess.run(command, input=text, capture_output=True, timeout=YAML_SECONDS, preexec_fn=_limit)
    except subprocess.TimeoutExpired:
        raise DataError(f"{path} takes longer than {YAML_SECONDS} seconds to read") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["the reader died of it"]
        raise DataError(f"{path} cannot be read as YAML: {' '.join(said[-4:])[:400]}")
    return json.loads(done.stdout)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (YAML_MEMORY, YAML_MEMORY))


def openapi_tools(
    document: Json,
    *,
    base: str | None = None,
    headers: Mapping[str, str] | None = None,
    prefix: str = "",
    timeout: float = TIMEOUT,
    cap: int = CAP,
    transport: "httpx.AsyncBaseTransport | None" = None,
) -> Described:
    """The operations of a document as tools.

    base     where to send requests, instead of the first of the document's servers; may then be private
    headers  of your own, sent with every request and never shown to the model
    prefix   goes before each tool's name

    Raises DataError when there is no server to call.
    """
    host = Host(_base(document, base), dict(headers or {}), base is not None, transport)
    tools: dict[str, Tool] = {}
    skipped: list[str] = []
    for path, method, item, operation in _operations(document, skipped):
        where = f"{method.upper()} {path}"
        if len(tools) >= MOST_OPERATIONS:
            skipped.append(f"{where}: there are more than {MOST_OPERATIONS} operations")
            continue
        try:
            made = _tool(document, host, path, method, item, operation, skipped)
        except (MynaError, KeyError, TypeError, AttributeError, ValueError) as e:
            skipped.append(
                str(e) if isinstance(e, MynaError) else f"{where}: it is malformed ({type(e).__name__}: {e})"[:300]
            )
            continue
        name = _free(prefix + _name(operation, method, path), tools)
        tools[name] = Tool(
            name=name,
            timeout=timeout,
            cap=cap,
            untrusted=True,
            source=f"openapi {host.base} {where}",
            egress=True,
            **made,
        )
    return Described(tuple(tools.values()), tuple(skipped), host.base)


def _base(document: Json, base: str | None) -> str:
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers and isinstance(servers[0], dict) else {}
    url = str(first.get("url", ""))
    for name, variable in (first.get("variables") or {}).items():
        url = url.replace(f"{{{name}}}", str(variable.get("default", "")))
    found = base if base is not None else url
    try:
        origin(found)
    except ToolError:
        if base is None:
            said = f"the document's server is {url[:100]!r}, which is no address; name one with base=... (--base)"
            raise DataError(said) from None
        raise DataError(f"{base[:100]!r} is no http or https address") from None
    return found.split("?")[0].split("#")[0].rstrip("/")


def _operations(document: Json, skipped: list[str]) -> list[tuple[str, str, Json, Json]]:
    found = []
    paths = document.get("paths")
    for path, item in paths.items() if isinstance(paths, dict) else ():
        try:
            item = resolve(document, item, path)
        except DataError as e:
            skipped.append(str(e))
            continue
        for method in METHODS:
            if isinstance(item, dict) and isinstance(item.get(method), dict):
                found.append((path, method, item, item[method]))
    return found


def _name(operation: Json, method: str, path: str) -> str:
    given = operation.get("operationId")
    if isinstance(given, str) and (plain := re.sub(r"[^A-Za-z0-9_-]+", "_", given).strip("_")):
        return plain
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{method} {path}").strip("_")


def _free(name: str, taken: Mapping[str, object]) -> str:
    name, i = name[:64], 2
    short = name
    while name in taken:
        name, i = f"{short[:60]}_{i}", i + 1
    return name


def _tool(
    document: Json, host: Host, path: str, method: str, item: Json, operation: Json, skipped: list[str]
) -> dict[str, Any]:
    """What the operation says of its tool."""
    where = f"{method.upper()} {path}"
    if not path.startswith("/"):  # behind a bare host it would be another host: "@evil.example.com"
        raise DataError(f"{where}: a path begins with /")
    schemas = Schemas(document, where)
    properties: Json = {}
    own = NOT_HEADERS | {name.lower() for name in host.headers}
    parameters = _parameters(document, item, operation, where, own, schemas, properties, skipped)
    required = [p.argument for p in parameters if p.required]
    kind = _body(document, operation, where, schemas, properties, required) if method not in ("get", "head") else ""
    if unknown := set(re.findall(r"\{([^{}]*)\}", path)) - {p.name for p in parameters if p.where == "path"}:
        raise DataError(f"{where}: nothing says what {{{min(unknown)}}} in its path is")
    schema: Json = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if schemas.defs:
        schema["$defs"] = schemas.defs
    said = "\n\n".join(str(operation[key]) for key in ("summary", "description") if operation.get(key))

    async def run(arguments: Json) -> str:
        return await _call(host, method, path, parameters, kind, arguments)

    return {
        "description": (said or where)[:MOST_DESCRIPTION],
        "parameters": schema,
        "effect": "read" if method in ("get", "head") else "write",
        "run": run,
        "check": checked(schema),
    }


def _parameters(
    document: Json,
    item: Json,
    operation: Json,
    where: str,
    own: set[str],
    schemas: Schemas,
    properties: Json,
    skipped: list[str],
) -> list[_Parameter]:
    """What can be said in a path, a query or a header that is not among our `own`. An operation's own parameter replaces its path's of the same name."""
    rows = [
        resolve(document, row, where) for row in [*(item.get("parameters") or ()), *(operation.get("parameters") or ())]
    ]
    found: list[_Parameter] = []
    for row in {(row["name"], row["in"]): row for row in rows}.values():
        name, place, must = str(row["name"]), row["in"], bool(row.get("required")) or row["in"] == "path"
        if place == "header" and name.lower() in own:
            continue
        if place not in ("path", "query", "header") or "schema" not in row:
            if must:
                raise DataError(f"{where}: it requires the {place} parameter {name!r}, which no tool can give")
            skipped.append(f"{where}: the {place} parameter {name!r} is left out")
            continue
        argument = name if name not in properties else f"{place}_{name}"
        schema = schemas.take(row["schema"])
        told = {"description": str(row["description"])[:MOST_DESCRIPTION]} if row.get("description") else {}
        properties[argument] = (schema if isinstance(schema, dict) else {}) | told
        style = row.get("style") or ("form" if place == "query" else "simple")
        found.append(_Parameter(name, place, argument, must, style, bool(row.get("explode", style == "form"))))
    return found


def _body(document: Json, operation: Json, where: str, schemas: Schemas, properties: Json, required: list[str]) -> str:
    """The media type of the body, which becomes the argument `body`; "" without one."""
    body = resolve(document, operation.get("requestBody") or {}, where)
    content = body.get("content") or {}
    json_kinds = [
        kind for kind in content if re.fullmatch(r"application/([\w.+-]+\+)?json", kind.split(";")[0].strip())
    ]
    kinds = json_kinds or [kind for kind in content if kind.split(";")[0].strip() == FORM]
    if not kinds:
        if content and body.get("required"):
            raise DataError(f"{where}: its body is {', '.join(content)[:100]}, and a tool sends JSON or a form")
        return ""
    argument = "body" if "body" not in properties else "request_body"
    properties[argument] = schemas.take(content[kinds[0]].get("schema") or {})
    if body.get("required"):
        required.append(argument)
    return f"{argument} {FORM if kinds[0] not in json_kinds else 'json'}"


async def _call(host: Host, method: str, path: str, parameters: list[_Parameter], kind: str, arguments: Json) -> str:
    query: list[tuple[str, str]] = []
    headers: dict[str, str] = {}
    for p in parameters:
        if p.argument not in arguments:
            continue
        value = arguments[p.argument]
        if p.where == "path":
            path = path.replace(f"{{{p.name}}}", _segment(p, value))
        elif p.where == "query":
            query += _query(p, value)
        else:
            headers[p.name] = _header(p, value)
    argument, _, form = kind.partition(" ")
    body = None
    if argument in arguments:
        value = arguments[argument]
        body = (
            (FORM, urlencode(value, doseq=True).encode())
            if form == FORM and isinstance(value, dict)
            else as_json(value)
        )
    return await send(host, method.upper(), path, query, headers, body)


def _segment(p: _Parameter, value: Any) -> str:
    """One piece of a path, so written that it stays one: "..", which servers walk up for, is refused."""
    text = ",".join(_plain(one) for one in value) if isinstance(value, list) else _plain(value)
    if text in ("", ".", ".."):
        raise ToolError(f"{p.argument} is {text!r}, which cannot stand in a path.")
    return quote(text, safe=",")


def _query(p: _Parameter, value: Any) -> list[tuple[str, str]]:
    """OpenAPI's styles of a query: form, deepObject, and lists divided by commas, blanks or pipes."""
    if isinstance(value, dict):
        if p.style == "deepObject":
            return [(f"{p.name}[{key}]", _plain(one)) for key, one in value.items()]
        return [(key, _plain(one)) for key, one in value.items()] if p.explode else [(p.name, json.dumps(value))]
    if not isinstance(value, list):
        return [(p.name, _plain(value))]
    if p.explode:
        return [(p.name, _plain(one)) for one in value]
    between = {"spaceDelimited": " ", "pipeDelimited": "|"}.get(p.style, ",")
    return [(p.name, between.join(_plain(one) for one in value))]


def _header(p: _Parameter, value: Any) -> str:
    text = ",".join(_plain(one) for one in value) if isinstance(value, list) else _plain(value)
    if not text.isascii() or not text.isprintable():
        raise ToolError(f"{p.argument} holds characters that no header may hold.")
    return text


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
