"""An OpenAPI document becomes tools that reach one host and nothing else; starlette, which nobody here wrote, reads what they send."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from myna.apps.tools import Dispatcher, Outcome, Tool, schema_check
from myna.apps.tools.http_call import Host, public, send
from myna.apps.tools.openapi import Described, openapi_tools, read_document
from myna.records import DataError, Json, MynaError, ToolCall, ToolError

KEY = "sk-the-key-of-the-user"

DOCUMENT: Json = yaml.safe_load("""
openapi: 3.0.3
servers: [{url: 'https://{place}.example.com/v1', variables: {place: {default: shop}}}]
paths:
  /items/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get:
      operationId: getItem
      summary: One item.
      parameters:
        - {name: fields, in: query, description: Which fields., schema: {type: array, items: {type: string}}}
        - {name: tags, in: query, explode: false, schema: {type: array, items: {type: string}}}
        - {name: filter, in: query, style: deepObject, schema: {type: object}}
        - {name: X-Trace, in: header, schema: {type: string}}
        - {name: Authorization, in: header, schema: {type: string}}
        - {name: x-key, in: header, schema: {type: string}}
        - {name: session, in: cookie, schema: {type: string}}
    delete: {description: Remove it.}
  /items:
    post:
      operationId: 创建 item
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: '#/components/schemas/Item'}}}
    put:
      operationId: upload
      requestBody: {required: true, content: {multipart/form-data: {schema: {type: object}}}}
    patch:
      operationId: away
      requestBody: {content: {application/json: {schema: {$ref: 'https://example.com/schema.json'}}}}
  /search:
    post:
      requestBody: {content: {application/x-www-form-urlencoded: {schema: {type: object, properties: {q: {type: string}}}}}}
components:
  schemas:
    Item:
      type: object
      required: [name]
      properties:
        name: {type: string, nullable: true, example: pear}
        price: {type: number, minimum: 0, exclusiveMinimum: true}
        parts: {type: array, items: {$ref: '#/components/schemas/Item'}}
""")


async def echo(request: Request) -> Response:
    body = (await request.body()).decode()
    told = {
        "method": request.method,
        "path": request.scope["raw_path"].decode(),
        "query": list(request.query_params.multi_items()),
        "headers": dict(request.headers),
        "body": json.loads(body) if request.headers.get("content-type") == "application/json" else body,
    }
    return JSONResponse(told)


async def status(request: Request) -> Response:
    match request.path_params["what"]:
        case "large":
            return Response("水" * 1_500_000, media_type="text/plain; charset=utf-8")
        case "image":
            return Response(b"\x89PNG" * 100, media_type="image/png")
        case "broken":
            return Response(f"no: {request.headers['x-key']}", status_code=500)
        case "away":
            return RedirectResponse("https://elsewhere.example.com/")
        case "down":
            return RedirectResponse("http://shop.example.com/v1/items/1")
        case "loop":
            return RedirectResponse("/v1/status/loop")
        case _:
            return RedirectResponse("/v1/items/1")


ANY = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]
APP = Starlette(routes=[Route("/v1/status/{what}", status, methods=ANY), Route("/{rest:path}", echo, methods=ANY)])


def described(document: Json = DOCUMENT, **more: Any) -> Described:
    return openapi_tools(document, headers={"X-Key": KEY}, transport=httpx.ASGITransport(APP), **more)


def tool_of(found: Described, name: str) -> Tool:
    return {tool.name: tool for tool in found.tools}[name]


def run(found: Described, name: str, **arguments: Any) -> Outcome:
    desk = Dispatcher(found.tools)
    (outcome,) = asyncio.run(desk.dispatch([ToolCall("c", name, json.dumps(arguments))], tainted=False))
    return outcome


def test_operations_are_tools_with_the_effect_of_their_method() -> None:
    found = described()
    effects = {tool.name: tool.effect for tool in found.tools}
    assert effects == {"getItem": "read", "delete_items_id": "write", "item": "write", "post_search": "write"}
    assert all(tool.untrusted for tool in found.tools)
    assert found.base == "https://shop.example.com/v1"


def test_what_is_left_out_is_said() -> None:
    skipped = "\n".join(described().skipped)
    assert "'session' is left out" in skipped
    assert "PUT /items: its body is multipart/form-data" in skipped
    assert "leads out of the document" in skipped
    assert len(described().skipped) == 3


def test_schemas_come_along_and_speak_json_schema() -> None:
    schema = tool_of(described(), "item").parameters
    assert schema["properties"]["body"] == {"$ref": "#/$defs/Item"}
    assert schema["$defs"]["Item"]["properties"] == {
        "name": {"type": ["string", "null"]},
        "price": {"type": "number", "exclusiveMinimum": 0},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
    }


def test_arguments_arrive_as_the_document_says() -> None:
    found = described()
    given = {"id": "a/b?c 好", "fields": ["x", "y&z"], "tags": ["p", "q"], "filter": {"min": 3}, "X-Trace": "t1"}
    told = json.loads(run(found, "getItem", **given).result)
    assert told["path"] == "/v1/items/a%2Fb%3Fc%20%E5%A5%BD"
    assert told["query"] == [["fields", "x"], ["fields", "y&z"], ["tags", "p,q"], ["filter[min]", "3"]]
    assert told["headers"]["x-trace"] == "t1"
    told = json.loads(run(found, "item", body={"name": "梨", "parts": [{"name": None}]}).result)
    assert (told["method"], told["body"]) == ("POST", {"name": "梨", "parts": [{"name": None}]})
    assert json.loads(run(found, "post_search", body={"q": "a b&c"}).result)["body"] == "q=a+b%26c"


def test_arguments_are_checked_through_references() -> None:
    found = described()
    for body in ({"parts": []}, {"name": "x", "price": 0}, {"name": "x", "parts": [{"price": 1}]}, "x"):
        assert run(found, "item", body=body).status == "invalid"
    assert run(found, "getItem").status == "invalid"
    assert run(found, "getItem", id="1", other="2").status == "invalid"


def test_the_users_headers_are_sent_and_never_shown() -> None:
    found = described()
    shown = json.dumps([tool.schema for tool in found.tools])
    assert KEY not in shown
    assert "x-key" not in shown.lower()
    assert "Authorization" not in shown
    outcome = run(found, "getItem", id="1")
    assert json.loads(outcome.result)["headers"]["x-key"] == "[hidden]"  # it arrived, and its echo is masked
    broken = described(probe("/status/broken"))
    assert run(broken, "get_status_broken").result == "error: shop.example.com answered 500: no: [hidden]"


def probe(path: str, method: str = "get", **more: Any) -> Json:
    return {
        "openapi": "3.1.0",
        "servers": DOCUMENT["servers"],
        "paths": {path: {method: {"description": "Probe."}}},
    } | more


@pytest.mark.parametrize("id", ["..", ".", ""])
def test_no_argument_walks_up_the_path(id: str) -> None:
    assert "cannot stand in a path" in run(described(), "getItem", id=id).result


def test_no_header_is_split() -> None:
    assert "no header may hold" in run(described(), "getItem", id="1", **{"X-Trace": "a\r\nX-Key: b"}).result


@pytest.mark.parametrize(
    ("path", "method", "said"),
    [
        ("/status/away", "get", "redirects to another host"),
        ("/status/down", "get", "redirects to another host"),
        ("/status/loop", "get", "redirected more than 3 times"),
        ("/status/here", "post", "may have been done"),
    ],
)
def test_nothing_leads_to_another_host(path: str, method: str, said: str) -> None:
    found = described(probe(path, method))
    outcome = run(found, found.tools[0].name)
    assert outcome.status == "error"
    assert said in outcome.result


@pytest.mark.parametrize("path", ["@evil.example.com/x", ".evil.example.com/x", ":9/x", "\\\\evil.example.com/x"])
def test_a_path_that_makes_another_host_is_no_path(path: str) -> None:
    document = probe(path, servers=[{"url": "https://shop.example.com"}])
    assert described(document).tools == ()
    host = Host("https://shop.example.com", {}, False, httpx.ASGITransport(APP))
    with pytest.raises(ToolError):
        asyncio.run(send(host, "GET", path, [], {}, None))


def test_a_read_follows_a_redirect_within_its_host() -> None:
    assert json.loads(run(described(probe("/status/here")), "get_status_here").result)["path"] == "/v1/items/1"


def test_responses_are_bounded_and_their_kind_is_said() -> None:
    large = run(described(probe("/status/large")), "get_status_large")
    assert large.cut > 0
    assert len(large.result) < 20_200
    assert (
        run(described(probe("/status/image")), "get_status_image").result
        == "[400 bytes of image/png, which is no text]"
    )


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    own = uvicorn.Server(uvicorn.Config(APP, port=port, log_level="error"))
    thread = threading.Thread(target=own.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not own.started and time.monotonic() < end:
        time.sleep(0.02)
    yield f"http://localhost:{port}"
    own.should_exit = True
    thread.join(10)


def test_a_document_cannot_name_a_private_address_and_its_user_can(server: str) -> None:
    document = probe("/x", servers=[{"url": server}])
    refused = run(openapi_tools(document), "get_x")
    assert refused.status == "error"
    assert "private address" in refused.result
    assert json.loads(run(openapi_tools(document, base=server), "get_x").result)["headers"]["host"] == server[7:]


@pytest.mark.parametrize(
    "number",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "224.0.0.1",
    ],
)
def test_private_addresses_are_known_in_all_their_spellings(number: str) -> None:
    assert not public(number)
    assert public("93.184.216.34")
    assert public("2606:2800:220:1::1")


def bomb() -> str:
    lines = ["openapi: 3.0.0", "a0: &a0 [x, x]"]
    return "\n".join([*lines, *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "swagger: '2.0'",
        "openapi: 4.0.0",
        "{",
        "a: [",
        "\x00",
        "!!python/object/apply:os.system ['true']",
        bomb(),
        "openapi: 3.0.0\na: " + "[" * 20000,
        '{"a":' * 20000,
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_document_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"spec\.yaml"):
        read_document(path)


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(DOCUMENT, allow_unicode=True))
    (tmp_path / "a.json").write_text(json.dumps(DOCUMENT))
    assert read_document(tmp_path / "a.yaml") == read_document(tmp_path / "a.json") == DOCUMENT


def shapes() -> list[Json]:
    wide = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(9000)}}
    deep: Json = {}
    for _ in range(200):
        deep = {"items": deep}
    twice = {f"d{i}": {"allOf": [{"$ref": f"#/x/d{i + 1}"}] * 2} for i in range(30)} | {"d30": {}}
    circle = {"$ref": "#/x/b"}
    return [
        {"schema": s, "x": x} for s, x in ((wide, {}), (deep, {}), ({"$ref": "#/x/d0"}, twice), (circle, {"b": circle}))
    ]


@pytest.mark.parametrize("shape", shapes(), ids=["wide", "deep", "doubling", "circle"])
def test_a_schema_that_explodes_is_left_out_or_refuses_its_calls(shape: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_check, "SECONDS", 1.0)
    row = {"name": "q", "in": "query", "required": True, "schema": shape["schema"]}
    document = probe("/p", x=shape["x"])
    document["paths"]["/p"]["get"]["parameters"] = [row]
    found = described(document)
    if shape["x"].keys() >= {"d30"}:  # small to write down, endless to check: the child that checks it is given up
        assert run(found, "get_p", q={}).status == "invalid"
    else:
        assert (found.tools, len(found.skipped)) == ((), 1)


@pytest.mark.parametrize(
    "paths",
    [
        [],
        None,
        {"/a": None},
        {"/a": {"get": {"parameters": "x"}}},
        {"/a": {"get": {"parameters": [{"in": 3}]}}},
        {"/a/{b}": {"get": {}}},
        {"/a": {"$ref": "#/nowhere"}},
        {"/a": {"post": {"requestBody": {"content": []}}}},
    ],
)
def test_malformed_operations_are_skipped_or_harmless(paths: Any) -> None:
    found = described(probe("/x") | {"paths": paths})
    assert all(isinstance(line, str) and len(line) < 500 for line in found.skipped)
    assert len(found.tools) <= 1


@pytest.mark.parametrize(
    "servers", [[], None, [{"url": "/v1"}], [{"url": "file:///etc/passwd"}], [{"url": "http://u:p@h/"}]]
)
def test_a_document_without_a_server_asks_for_one(servers: Any) -> None:
    with pytest.raises(MynaError, match="--base"):
        openapi_tools(probe("/x", servers=servers))
