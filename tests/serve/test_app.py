"""The application: who may call, what is refused, what a stream is made of, and what happens when the client is gone."""

import asyncio
import json
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_server import Live

from myna.provider import Scripted, complete
from myna.provider.http import Http
from myna.provider.scripted import every
from myna.records import (
    Candidate,
    ChatError,
    Conversation,
    Delta,
    Document,
    Message,
    ProviderError,
    Reply,
    RequestError,
    Sampled,
    Sampling,
    ToolCall,
    Unavailable,
    Usage,
)
from myna.serve import Limits, create_app

Start = Callable[..., Live]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
TURN = Message("assistant", "你好, world 👋", reasoning_content="先想一想")
CALLS = Message("assistant", "", tool_calls=(ToolCall("a", "now", "{}"), ToolCall("b", "then", '{"x": 1}')))


def post(live: Live, path: str = "/v1/chat/completions", **options: Any) -> httpx.Response:
    return httpx.post(live.url + path, **({"json": CHAT} | options), timeout=20)


def error_of(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return response.status_code, body["error"]["code"]


def lines(response: httpx.Response) -> list[str]:
    return [line for line in response.text.split("\n\n") if line]


# The same answer, however it is asked for.


@pytest.mark.parametrize("turn", ["Hello, 世界", TURN, CALLS, Candidate((TURN,), finish_reason="length")])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(n=2, logprobs=2)])
def test_over_http_the_folded_stream_is_the_providers_own_reply(live: Start, turn: Any, sampling: Sampling) -> None:
    here = asyncio.run(complete(Scripted(cycle([turn])), Conversation.ask("Hi"), sampling))
    server = live(Scripted(cycle([turn])))

    async def there() -> Reply:
        async with Http(f"{server.url}/v1", "scripted") as provider:
            return await complete(provider, Conversation.ask("Hi"), sampling)

    far = asyncio.run(there())
    assert (far.candidates, far.usage) == (here.candidates, here.usage)
    assert sampling.logprobs is None or far.sampled == here.sampled


def test_token_ids_survive_http(live: Start) -> None:
    tokens = (Sampled(5, b"\xe4\xbd", -0.5, (Sampled(6, b"x", -1.0),)), Sampled(7, b"\xa0", -0.25))
    said = asyncio.run(complete(Scripted(["你"]), Document("x"))).candidates
    server = live([Reply(said, (tokens,), Usage(3, 2, 1))])

    async def there() -> Reply:
        async with Http(f"{server.url}/v1", "scripted") as provider:
            return await complete(provider, Conversation.ask("Hi"), Sampling(logprobs=1))

    reply = asyncio.run(there())
    assert (reply.sampled, reply.usage) == ((tokens,), Usage(3, 2, 1))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_whole_body_is_the_sum_of_the_chunks(live: Start, path: str, size: int) -> None:
    server = live(Scripted(cycle([TURN, "b"]), split=every(size)))
    body = CHAT if "chat" in path else {"prompt": ["x", "y"], "logprobs": 1}
    whole = post(server, path, json=body | {"n": 2}).json()
    *events, done = lines(
        post(server, path, json=body | {"n": 2, "stream": True, "stream_options": {"include_usage": True}})
    )
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert done == "data: [DONE]"
    assert chunks[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        said = choice.get("message") or choice
        for name in ("content", "reasoning_content", "text"):
            assert "".join(p.get("delta", p).get(name, "") for p in parts) == said.get(name, "")
        assert [p["finish_reason"] for p in parts if p["finish_reason"]] == [choice["finish_reason"]]
        if "text" in choice:
            assert [t for p in parts if p["logprobs"] for t in p["logprobs"]["tokens"]] == choice["logprobs"]["tokens"]


# Refusals.


def test_errors_have_one_shape_everywhere(live: Start) -> None:
    server = live([ChatError("roles must alternate"), ZeroDivisionError("secret")])
    assert error_of(httpx.get(f"{server.url}/nothing")) == (404, "not_found")
    assert error_of(httpx.get(f"{server.url}/v1/chat/completions")) == (405, "method_not_allowed")
    assert error_of(httpx.get(f"{server.url}/v1/models/other")) == (404, "model_not_found")
    assert error_of(httpx.get(f"{server.url}/page/../app.py")) == (404, "not_found")
    assert error_of(post(server, content=b"{", json=None)) == (400, "invalid_json")
    assert error_of(post(server, json=CHAT | {"model": "gpt"})) == (404, "model_not_found")
    assert error_of(post(server, json=CHAT | {"temperature": "hot"})) == (400, "invalid_type")
    assert error_of(post(server)) == (400, "invalid_value")
    bug = post(server)
    assert error_of(bug) == (500, "internal_error")
    assert "secret" not in bug.text
    assert bug.headers["x-request-id"] in bug.text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "model",
    "messages",
    "prompt",
    "temperature",
    "n",
    "stop",
    "logprobs",
    "tools",
    "stream",
    "logit_bias",
    "seed",
]
FIELDS += ["stream_options", "tool_choice", "response_format", "max_tokens", "echo", "top_logprobs", "unknown"]


@pytest.fixture(scope="module")
def endless() -> Iterator[Live]:
    with Live(create_app(Scripted(cycle(["ok"])))) as server:
        yield server


@settings(max_examples=60)
@given(
    st.sampled_from(["chat/completions", "completions"]),
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=5),
)
def test_no_body_makes_the_server_fail(endless: Live, path: str, body: dict[str, Any]) -> None:
    base = CHAT if path.startswith("chat") else {"prompt": "Hi"}
    response = post(endless, f"/v1/{path}", content=json.dumps(base | body).encode(errors="replace"), json=None)
    assert response.status_code < 500
    if response.status_code != 200:
        error_of(response)


def test_fields_nobody_knows_are_named_in_a_header(live: Start) -> None:
    response = post(live(["ok"]), json=CHAT | {"temprature": 1, "bad\r\nname,": 1, "user": "me"})
    assert response.headers["x-ignored-params"] == "temprature,bad??name?,user"


@pytest.mark.parametrize("sizes", [[2000], [500] * 4, [1000, 1]], ids=str)
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_too_large_is_refused_while_it_is_read(sizes: list[int], announced: bool) -> None:
    """Spoken to as ASGI, so that the body arrives in exactly these pieces."""
    pieces = [{"type": "http.request", "body": b"x" * size, "more_body": True} for size in sizes]
    pieces[-1]["more_body"] = False
    length = [(b"content-length", str(sum(sizes)).encode())] if announced else []
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": length, "root_path": ""}
    sent: list[Any] = []

    async def receive() -> Any:
        return pieces.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(create_app(Scripted(), limits=Limits(max_body=1000))(scope, receive, send))
    assert sent[0]["status"] == 413
    assert announced is False or len(pieces) == len(sizes)  # not even read


def test_a_full_server_says_429_and_one_that_is_not_ready_503(live: Start) -> None:
    provider = Scripted([Unavailable("full", retry_after=7, code="queue_full"), Unavailable("loading")])
    server = live(provider)
    full = post(server)
    provider.ready = False
    loading = post(server)
    assert (error_of(full), full.headers["retry-after"]) == ((429, "queue_full"), "7")
    assert (error_of(loading), "retry-after" in loading.headers) == ((503, "not_ready"), True)


def test_alive_is_not_ready(live: Start) -> None:
    provider = Scripted(ready=False)
    server = live(provider)
    health, loading = httpx.get(f"{server.url}/health"), httpx.get(f"{server.url}/ready")
    provider.ready = True
    assert (health.status_code, loading.status_code, httpx.get(f"{server.url}/ready").status_code) == (200, 503, 200)
    assert "retry-after" in loading.headers


def test_one_refused_prompt_refuses_them_all_and_leaves_none_running(live: Start) -> None:
    provider = Scripted(["a" * 9999, RequestError("too long"), "c" * 9999], delay=0.01)
    response = post(live(provider), "/v1/completions", json={"prompt": ["a", "b", "c"]})
    assert error_of(response) == (400, "invalid_value")
    assert sorted(str(seen.outcome) for seen in provider.requests) == ["closed", "closed", "failed"]


class Ending(Scripted):
    """Says the last word, the finish_reason and the usage in one delta, as our engine does."""

    async def stream(self, what: Any, sampling: Sampling = Sampling()) -> Any:
        yield Delta()
        yield Delta(text="all at once", finish_reason="stop", usage=Usage(3, 2, 1))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_an_end_that_comes_in_one_piece_is_told_whole(live: Start, path: str) -> None:
    body = (CHAT if "chat" in path else {"prompt": "Hi"}) | {"stream": True, "stream_options": {"include_usage": True}}
    *_, end, usage, done = lines(post(live(Ending()), path, json=body))
    choice = json.loads(end.removeprefix("data: "))["choices"][0]
    assert (choice.get("delta", {}).get("content") or choice["text"], choice["finish_reason"]) == (
        "all at once",
        "stop",
    )
    assert json.loads(usage.removeprefix("data: "))["usage"]["total_tokens"] == 5
    assert done == "data: [DONE]"


class Stopping(Scripted):
    """Ends without a finish_reason, which no provider may."""

    async def stream(self, what: Any, sampling: Sampling = Sampling()) -> Any:
        async for delta in Scripted(["cut"]).stream(what, sampling):
            if delta.finish_reason:
                return
            yield delta


def test_an_answer_that_just_stops_is_an_error_and_not_a_short_answer(live: Start) -> None:
    server = live(Stopping())
    assert error_of(post(server)) == (502, "provider_failed")
    *_, last = lines(post(server, json=CHAT | {"stream": True}))
    assert "before the answer was finished" in json.loads(last.removeprefix("data: "))["error"]["message"]


def test_an_error_in_mid_stream_ends_it_without_done(live: Start) -> None:
    *_, before, last = lines(post(live([("half", ProviderError("no memory"))]), json=CHAT | {"stream": True}))
    assert json.loads(before.removeprefix("data: "))["choices"][0]["finish_reason"] is None
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "provider_failed"


def test_several_models_are_served_by_name(live: Start) -> None:
    server = Live(create_app({"a": Scripted(["from a"]), "b": Scripted(["from b"])}))
    with server:
        assert post(server, json=CHAT | {"model": "b"}).json()["choices"][0]["message"]["content"] == "from b"
        assert error_of(post(server)) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"])
def test_a_stream_is_kept_by_nobody_on_the_way(live: Start, path: str) -> None:
    """No cache, no proxy that gathers it first, and no length that it cannot have."""
    body = {"model": "scripted", "input": "Hi", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    reply = httpx.post(live(["ok"]).url + path, json=body | {"stream": True}, timeout=20)
    kind = "application/x-ndjson" if path == "/api/chat" else "text/event-stream; charset=utf-8"
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no", "content-type": kind}
    assert headers.items() <= dict(reply.headers).items()
    assert "content-length" not in reply.headers
    assert reply.headers["x-request-id"].startswith("req-")
