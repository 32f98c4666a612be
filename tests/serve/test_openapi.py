"""The OpenAPI document: it tells of every endpoint, and every reply is what it says."""

import asyncio
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, get_args

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_server import Live
from pydantic import BaseModel
from starlette.routing import Route

from myna.chat import Chat
from myna.provider import Scripted
from myna.provider.wire import events
from myna.provider.wire.replies import ErrorReply
from myna.records import Candidate, Delta, Message, ProviderError, ToolCall, Usage
from myna.serve import create_app
from myna.serve.app import App
from myna.serve.moderations import Finds
from myna.serve.openapi import OPERATIONS, Operation, document

Start = Callable[..., Live]
BY_PATH = {op.path: op for op in OPERATIONS}
PAGES = {"/", "/docs", "/page/{name}"}
CALLS = (ToolCall("a", "now", '{"tz": "UTC"}'),)
TURN = Message("assistant", "你好", reasoning_content="想", tool_calls=CALLS)
CUT = Candidate((Message("assistant", "cut"),), finish_reason="length")
HI: Any = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
USAGE = {"stream_options": {"include_usage": True}}


def kinds_of(event: Any) -> set[str]:
    """The `type`s that a union of events knows."""
    members = get_args(event.model_fields["root"].annotation)
    return {kind for member in members for kind in get_args(member.model_fields["type"].annotation)}


ASKED: list[tuple[str, Any]] = [
    ("/v1/chat/completions", HI | {"n": 3, "logprobs": True, "top_logprobs": 2}),
    ("/v1/completions", {"prompt": ["a", "b"], "logprobs": 2}),
    ("/v1/responses", {"input": "Hi"} | LOGPROBS),
    ("/v1/messages", HI | {"max_tokens": 9}),
    ("/v1/messages/count_tokens", HI),
    ("/v1/moderations", {"input": ["a bad word", "fine"]}),
    ("/tokenize", {"prompt": "Hi", "return_token_strs": True}),
    ("/v1/tokenize", {"content": "Hi 👋", "with_pieces": True}),
    ("/v1/tokenize", {"content": "Hi"}),
    ("/detokenize", {"tokens": [1, 2]}),
    ("/apply-template", HI),
    ("/api/chat", HI | {"stream": False, "logprobs": True, "top_logprobs": 1}),
    ("/api/generate", {"model": "scripted", "prompt": "Hi", "stream": False}),
    ("/api/generate", {"model": "scripted"}),
    ("/api/show", {"model": "scripted"}),
    *[(op.path, None) for op in OPERATIONS if op.body is None and op.replies and "{" not in op.path],
]
WRONG: list[Any] = [{"model": 7}, {"model": "other", "max_tokens": 1} | HI | {"model": "other"}]


@pytest.fixture(scope="module")
def server(smollm2: Path) -> Any:
    provider = Scripted(cycle(["Hi", TURN, CUT]), chat=Chat.load(smollm2), max_len=512)
    with Live(
        create_app(provider, check=Finds("rude", ["rude"], lambda text: ["rude"] if "bad word" in text else []))
    ) as live:
        yield live


def fits(op: Operation, row: Any) -> None:
    """One of the described replies, to the field."""
    errors = []
    for model in op.replies:
        try:
            model.model_validate(row, strict=True)
        except ValueError as e:
            errors.append(e)
        else:
            return
    raise AssertionError(errors)


def test_every_endpoint_is_described_and_nothing_else() -> None:
    app: App = create_app(Scripted())
    routes = [route for route in app._router.routes if isinstance(route, Route)]
    ways = {(route.path.replace(":path", ""), way.lower()) for route in routes for way in (route.methods or {"GET"})}
    assert {(path, way) for path, way in ways if path not in PAGES and way != "head"} == {
        (op.path, op.method) for op in OPERATIONS
    }


def test_every_reference_of_the_document_leads_somewhere() -> None:
    schemas = document()["components"]["schemas"]

    def references(value: Any) -> Any:
        if isinstance(value, dict):
            yield from [value["$ref"]] if "$ref" in value else []
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
            yield from references(inner)

    found = set(references(document()))
    assert found
    assert all(ref.removeprefix("#/components/schemas/") in schemas for ref in found)


@pytest.mark.parametrize(("path", "body"), ASKED, ids=lambda x: str(x)[:50])
def test_every_reply_is_as_described(server: Live, path: str, body: Any) -> None:
    for _ in range(3):  # the script has three turns
        url = server.url + path
        reply = httpx.get(url, timeout=20) if body is None else httpx.post(url, json=body, timeout=20)
        assert reply.status_code == 200, reply.text
        fits(BY_PATH[path], reply.json())


@pytest.mark.parametrize("path", sorted({path for path, body in ASKED if body is not None}))
def test_every_refusal_is_as_described(server: Live, path: str) -> None:
    for wrong in (b"{", b"[]", b'{"model": 7}', b'{"messages": 1, "prompt": 1, "input": 1, "tokens": 1, "model": "x"}'):
        reply = httpx.post(server.url + path, content=wrong, timeout=20)
        assert 400 <= reply.status_code < 500
        BY_PATH[path].error.model_validate(reply.json(), strict=True)


class Flawed:
    """A model whose answer has not quite the form that was asked for."""

    name = "scripted"

    async def stream(self, what: Any, sampling: Any = None) -> Any:
        yield Delta()
        yield Delta(text="7", finish_reason="stop", flaw="7 is less than the minimum")
        yield Delta(usage=Usage(1, 1))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"])
def test_a_flaw_is_told_in_every_api(live: Start, path: str) -> None:
    server = live(Flawed())
    body = HI | {"input": "Hi", "max_tokens": 9}
    whole = httpx.post(server.url + path, json=body | {"stream": False}, timeout=20).json()
    fits(BY_PATH[path], whole)
    assert "7 is less than the minimum" in str(whole)
    assert "7 is less than the minimum" in httpx.post(server.url + path, json=body | {"stream": True}, timeout=20).text


def test_a_reply_with_a_field_more_or_less_is_not_as_described() -> None:
    op = BY_PATH["/v1/messages/count_tokens"]
    for row in ({}, {"input_tokens": 1, "more": 2}, {"input_tokens": -1}):
        with pytest.raises(AssertionError):
            fits(op, row)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def bodies(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Objects with some of the fields that the endpoint knows, most of them wrong."""
    names = [field.alias or name for name, field in model.model_fields.items()]
    good: Any = HI | {"input": "Hi", "prompt": "Hi", "tokens": [1], "max_tokens": 5, "name": "scripted"}
    wild = st.dictionaries(st.sampled_from(names), VALUES, max_size=3)
    return st.builds(lambda some: {k: v for k, v in good.items() if k in names} | some, wild)


@pytest.mark.parametrize("path", sorted({path for path, body in ASKED if body is not None}))
@settings(max_examples=12)
@given(data=st.data())
def test_no_body_is_a_bug(server: Live, path: str, data: st.DataObject) -> None:
    op = BY_PATH[path]
    assert op.body is not None
    body = data.draw(bodies(op.body))
    reply = asyncio.run(_in_process(server.app, path, body))
    if reply.status_code != 200:
        assert reply.status_code < 500, reply.text
        op.error.model_validate(reply.json(), strict=True)


async def _in_process(app: App, path: str, body: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        return await client.post(path, json=body, timeout=20)


STREAMED: list[tuple[str, Any, set[str]]] = [
    ("/v1/chat/completions", HI | {"logprobs": True, "top_logprobs": 1} | USAGE, {"chat.completion.chunk"}),
    ("/v1/completions", {"prompt": "Hi", "logprobs": 1} | USAGE, {"text_completion"}),
    ("/v1/messages", HI | {"max_tokens": 9}, kinds_of(events.MessagesEvent)),
    ("/v1/responses", {"input": "Hi"} | LOGPROBS, kinds_of(events.ResponsesEvent)),
    ("/api/chat", HI | {"logprobs": True}, {"False", "True", "error"}),
    ("/api/generate", {"model": "scripted", "prompt": "Hi"}, {"False", "True", "error"}),
]


@pytest.mark.parametrize(("path", "body", "kinds"), STREAMED, ids=[path for path, _, _ in STREAMED])
def test_every_event_of_a_stream_is_as_described_and_every_described_one_comes(
    live: Start, path: str, body: Any, kinds: set[str]
) -> None:
    event, seen = BY_PATH[path].event, set()
    assert event is not None
    (described,) = [
        media
        for kind, media in document()["paths"][path]["post"]["responses"]["200"]["content"].items()
        if kind != "application/json"
    ]
    assert described["x-event-schema"]["$ref"].endswith(event.__name__)
    script: list[Any] = ["Hi", TURN, CUT, ("half", ProviderError("broken"))]
    server = live(Scripted(script))
    for turn in script:
        text = httpx.post(server.url + path, json=body | {"stream": True}, timeout=20).text
        lines = [line.removeprefix("data: ") for line in text.splitlines()]
        rows = [orjson.loads(line) for line in lines if line.startswith("{")]
        assert rows
        for row in rows:
            if "completions" in path and isinstance(turn, tuple) and "error" in row:
                ErrorReply.model_validate(row, strict=True)
                continue
            event.model_validate(row, strict=True)
            seen.add(str(row.get("type") or row.get("object") or row.get("done", "error")))
    assert seen == kinds
