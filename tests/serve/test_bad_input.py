"""The table of answers to bad input, row by row: over HTTP, through the real engine, and as the official client's exception.

Rows that are about more than a body have tests of their own: keys in test_keys.py, the queue in test_line.py, loading and
draining in test_ops.py and test_absence.py, streams and clients that leave in test_app.py and test_absence.py.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from live_server import Live

from myna.forms import worker
from myna.provider.replay import replay
from myna.serve import Limits, create_app

HI = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "replay", "messages": HI}
CALL = {"id": "x", "type": "function", "function": {"name": "a", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "a"}}
TEXT_TOOL = {"type": "function", "function": {"name": "a", "parameters": {"type": "string"}}}
UNIQUE = {"type": "array", "uniqueItems": True}


def schema(value: Any, **more: Any) -> dict[str, Any]:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": value} | more}
    }


def chat(**more: Any) -> tuple[str, Any]:
    return "/v1/chat/completions", CHAT | more


def turns(*messages: Any) -> tuple[str, Any]:
    return chat(messages=[*HI, *messages])


def completion(**more: Any) -> tuple[str, Any]:
    return "/v1/completions", {"prompt": "a"} | more


ROWS: list[tuple[tuple[str, Any], int, str, str | None]] = [
    # malformed JSON, a wrong type, out of range: the path, and what is allowed
    (("/v1/chat/completions", b'{"a":'), 400, "invalid_json", None),
    (("/v1/chat/completions", b'{"a":"\xff"}'), 400, "invalid_json", None),
    (("/v1/chat/completions", b"[]"), 400, "invalid_json", None),
    (("/v1/chat/completions", b""), 400, "invalid_json", None),
    (("/v1/chat/completions", b"{}"), 400, "missing_required_parameter", "messages"),
    (chat(temperature="hot"), 400, "invalid_type", "temperature"),
    (chat(max_tokens=True), 400, "invalid_type", "max_tokens"),
    (chat(temperature=-0.1), 400, "invalid_value", "temperature"),
    (chat(top_p=1.5), 400, "invalid_value", "top_p"),
    (chat(n=0), 400, "invalid_value", "n"),
    (chat(n=129), 400, "invalid_value", "n"),
    (chat(max_tokens=0), 400, "invalid_value", "max_tokens"),
    (chat(max_completion_tokens=0), 400, "invalid_value", "max_completion_tokens"),
    (chat(logprobs=True, top_logprobs=21), 400, "invalid_value", "top_logprobs"),
    (chat(seed=2**70), 400, "invalid_type", "seed"),
    (chat(stop=["a"] * 17), 400, "invalid_value", "stop"),
    (chat(logit_bias={"x": 1}), 400, "invalid_value", "logit_bias.x"),
    (chat(logit_bias={"999999": 1}), 400, "invalid_value", "logit_bias"),
    (chat(stream_options={"include_usage": "no"}), 400, "invalid_type", "stream_options.include_usage"),
    (completion(prompt=[1, "a"]), 400, "invalid_type", "prompt"),
    (completion(prompt=["a", 7]), 400, "invalid_type", "prompt.1"),
    (completion(prompt=[999_999]), 400, "invalid_value", "prompt"),
    (completion(prompt=""), 400, "invalid_value", "prompt"),
    # a known field that we cannot honour
    (chat(min_tokens=5), 400, "unsupported_parameter", "min_tokens"),
    (completion(best_of=2), 400, "unsupported_parameter", "best_of"),
    (completion(suffix="b"), 400, "unsupported_parameter", "suffix"),
    (("/v1/responses", {"input": "a", "store": True}), 400, "unsupported_parameter", "store"),
    # an unknown model
    (chat(model="gpt-4"), 404, "model_not_found", "model"),
    # too long, with the numbers, under the name that the field has in each API
    (chat(max_tokens=5000), 400, "context_length_exceeded", "max_tokens"),
    (chat(max_completion_tokens=5000), 400, "context_length_exceeded", "max_completion_tokens"),
    (("/v1/responses", {"input": "a", "max_output_tokens": 5000}), 400, "context_length_exceeded", "max_output_tokens"),
    (("/v1/responses", {"input": "a" * 3000}), 400, "context_length_exceeded", "input"),
    (("/v1/messages", {"messages": HI, "max_tokens": 5000}), 400, "context_length_exceeded", "max_tokens"),
    (("/api/chat", CHAT | {"options": {"num_predict": 5000}}), 400, "context_length_exceeded", "options.num_predict"),
    (turns({"role": "user", "content": "a" * 3000}), 400, "context_length_exceeded", "messages"),
    (turns({"role": "user", "content": "a" * 3_000_000}), 400, "context_length_exceeded", "messages"),
    (completion(prompt=[1] * 3000), 400, "context_length_exceeded", "prompt"),
    # a form that is malformed, too large or cannot be enforced, under the name of the field that asked for it
    (chat(**schema(UNIQUE)), 400, "invalid_json_schema", "response_format.json_schema.schema"),
    (chat(**schema({"type": "nonsense"})), 400, "invalid_json_schema", "response_format.json_schema.schema"),
    (chat(**schema({"enum": ["x" * 300_000]})), 400, "invalid_json_schema", "response_format.json_schema.schema"),
    (chat(guided_json=UNIQUE), 400, "invalid_json_schema", "guided_json"),
    (chat(guided_regex="("), 400, "invalid_regex", "guided_regex"),
    (chat(grammar="start: ("), 400, "invalid_grammar", "grammar"),
    (chat(structured_outputs={"grammar": "root ::= root"}), 400, "invalid_grammar", "structured_outputs.grammar"),
    (chat(tools=[TEXT_TOOL]), 400, "invalid_function_parameters", "tools.0.function.parameters"),
    (chat(guided_choice=[]), 400, "invalid_type", "guided_choice"),
    (chat(structured_outputs={"regex": "("}), 400, "invalid_regex", "structured_outputs.regex"),
    (chat(guided_regex="a", guided_choice=["b"]), 400, "invalid_value", "guided_choice"),
    (("/v1/responses", {"input": "a", "text": {"format": {"type": "json_schema", "name": "a", "schema": UNIQUE, "strict": True}}}),
     400, "invalid_json_schema", "text.format.schema"),
    (("/v1/messages", {"messages": HI, "max_tokens": 9, "output_config": {"format": {"type": "json_schema", "schema": {"type": 7}}}}),
     400, "invalid_json_schema", "output_config.format.schema"),
    (("/api/chat", CHAT | {"format": {"type": "nonsense"}}), 400, "invalid_json_schema", "format"),
    # tools and messages, with their index
    (chat(tools=[{"type": "function", "function": {}}]), 400, "missing_required_parameter", "tools.0.function.name"),
    (chat(tools=[TOOL, TOOL]), 400, "invalid_value", "tools.1.function.name"),
    (chat(tools=[{"type": "web_search"}]), 400, "invalid_type", "tools.0.type"),
    (chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "b"}}), 400, "invalid_value", "tool_choice"),
    (chat(tool_choice="required"), 400, "invalid_value", "tool_choice"),
    (turns({"role": "tool", "tool_call_id": "x", "content": "1"}), 400, "invalid_value", "messages.1.tool_call_id"),
    (turns({"role": "assistant", "tool_calls": [CALL, CALL]}), 400, "invalid_value", "messages.1.tool_calls.1.id"),
    (turns({"role": "robot", "content": "x"}), 400, "invalid_value", "messages.1.role"),
    (turns({"role": "user"}), 400, "missing_required_parameter", "messages.1.content"),
    (turns({"role": "user", "content": [{"type": "text"}]}), 400, "missing_required_parameter", "messages.1.content.0.text"),
    (chat(messages=[]), 400, "invalid_value", "messages"),
    # too large; images by their address
    (("/v1/chat/completions", b'{"a": "' + b"x" * (4 << 20) + b'"}'), 413, "request_too_large", None),
    (turns({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]}),
     400, "invalid_value", "messages.1.content.0"),
    (turns({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}),
     400, "invalid_value", "messages.1.content.0"),
    # nothing here
    (("/v1/nothing", {}), 404, "not_found", None),
    (("/v1/models/load", {}), 400, "missing_required_parameter", "model"),
    (("/v1/models/unload", {"model": "nothing"}), 404, "model_not_found", "model"),
    (("/health", {}), 405, "method_not_allowed", None),
]  # fmt: skip


RAISED = {400: openai.BadRequestError, 404: openai.NotFoundError, 405: openai.APIStatusError}


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    provider = replay(lambda request, candidate: b"ok", max_len=2048)
    with Live(create_app(provider, limits=Limits(max_body=4 << 20))) as live:
        yield live
    provider.close()


def said(path: str, row: Any) -> tuple[str, str | None, str]:
    """(code, param, message), whatever the API's shape."""
    error = row if path.startswith("/api/") else row["error"]
    return error["code"], error["param"], error["error"] if path.startswith("/api/") else error["message"]


@pytest.mark.parametrize(("asked", "status", "code", "param"), ROWS, ids=lambda x: str(x)[:60])
def test_every_row(server: Live, asked: tuple[str, Any], status: int, code: str, param: str | None) -> None:
    path, body = asked
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    ways = [sent] if isinstance(body, bytes) or not body else [sent, json.dumps(body | {"stream": True}).encode()]
    for way in ways:
        reply = httpx.post(server.url + path, content=way, timeout=20)
        found = said(path, reply.json())
        assert (reply.status_code, *found[:2]) == (status, code, param)
        assert len(found[2]) > 15
    fine = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=20)
    assert fine.status_code == 200, fine.text


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row[0][0].startswith("/v1/") and isinstance(row[0][1], dict)],
    ids=lambda x: str(x)[:60],
)
def test_every_row_is_the_official_clients_own_exception(server: Live, row: Any) -> None:
    (path, body), status, code, param = row
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    with client, pytest.raises(RAISED[status]) as raised:
        client.post(path, body=body, cast_to=object)
    if path != "/v1/messages":  # whose errors have Anthropic's shape
        assert (raised.value.status_code, raised.value.code, raised.value.param) == (status, code, param)


SLOW = {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(24)]}
HOSTILE = [
    chat(**schema(SLOW)),
    chat(grammar="root ::= " + '"a"{1,1000} ' * 300),
    chat(tools=[TOOL | {"function": {"name": "a", "strict": True, "parameters": SLOW | {"type": "object"}}}]),
]


def test_others_are_answered_while_hostile_forms_are_refused(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SECONDS", 1.0)

    def post(asked: tuple[str, Any]) -> httpx.Response:
        return httpx.post(server.url + asked[0], json=asked[1], timeout=60)

    with ThreadPoolExecutor(24) as threads:
        hostile = [threads.submit(post, asked) for asked in HOSTILE]
        plain = [threads.submit(post, asked) for asked in [chat(), chat(stream=True), chat(guided_choice=["ok"])] * 4]
        refused, answered = [one.result() for one in hostile], [one.result() for one in plain]
    assert {reply.status_code for reply in refused} <= {400, 429}
    assert all(said("", reply.json())[0] for reply in refused)
    assert [reply.status_code for reply in answered] == [200] * 12
    for reply in answered:
        pieces = [row.removeprefix("data: ") for row in reply.text.splitlines() if row.startswith("data: {")]
        choices = [json.loads(row)["choices"][0] for row in pieces or [reply.text]]
        assert "".join((one.get("delta") or one.get("message") or {}).get("content") or "" for one in choices) == "ok"
    assert post(chat()).json()["choices"][0]["finish_reason"] == "stop"


def test_unknown_fields_are_named_or_refused_if_the_server_is_strict(server: Live) -> None:
    body = CHAT | {"temprature": 1}
    named = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=20)
    assert (named.status_code, named.headers["x-ignored-params"]) == (200, "temprature")
    desk = server.app.desk
    desk.strict_params = True
    try:
        refused = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=20)
        plain = httpx.post(f"{server.url}/tokenize", json={"prompt": "a", "mood": 1}, timeout=20)
        fine = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=20)
    finally:
        desk.strict_params = False
    assert (refused.status_code, *said("", refused.json())[:2]) == (400, "unknown_parameter", "temprature")
    assert (plain.status_code, *said("", plain.json())[:2]) == (400, "unknown_parameter", "mood")
    assert fine.status_code == 200
