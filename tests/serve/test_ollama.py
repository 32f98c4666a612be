"""Ollama's API: lines of JSON, errors it understands. The official client's turn is `make test-clients`."""

import math
from collections.abc import Callable
from itertools import cycle
from typing import Any

import httpx
import orjson
import pytest
from live_server import Live, eventually

import myna
from myna.provider import Scripted
from myna.provider.wire.ollama import read_keep_alive
from myna.records import (
    Candidate,
    Conversation,
    Document,
    Form,
    Image,
    Message,
    ProviderError,
    RequestError,
    Sampling,
    Text,
    ToolCall,
)
from myna.serve import Limits, Loadable

Start = Callable[..., Live]
HI: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}
FUNCTION: Any = {"name": "now", "parameters": {"type": "object"}}
CALLS = (ToolCall("a", "now", '{"tz": "UTC"}'), ToolCall("b", "now", "{}"))
TURN = Message("assistant", "你好, world", reasoning_content="先想一想", tool_calls=CALLS)


def post(live: Live, body: Any, path: str = "/api/chat") -> httpx.Response:
    return httpx.post(live.url + path, json=body, timeout=20)


def lines(live: Live, body: Any, path: str = "/api/chat") -> list[Any]:
    reply = post(live, body, path)
    assert reply.headers["content-type"] == "application/x-ndjson"
    return [orjson.loads(line) for line in reply.text.splitlines()]


@pytest.mark.parametrize(
    "turn", ["Hi 世界", TURN, Candidate((Message("assistant", "cut"),), finish_reason="length"), ""]
)
@pytest.mark.parametrize("think", [True, False])
def test_the_lines_add_up_to_the_whole(live: Start, turn: Any, think: bool) -> None:
    server = live(Scripted(cycle([turn])))
    whole = post(server, HI | {"stream": False, "think": think}).json()
    rows = lines(server, HI | {"think": think})
    for name in ("content", "thinking"):
        assert "".join(row["message"].get(name, "") for row in rows) == whole["message"].get(name, "")
    calls = [call for row in rows for call in row["message"].get("tool_calls", [])]
    assert calls == whole["message"].get("tool_calls", [])
    assert [row["done"] for row in rows] == [False] * (len(rows) - 1) + [True]
    same = ("done_reason", "prompt_eval_count", "eval_count", "model")
    assert [rows[-1][name] for name in same] == [whole[name] for name in same]
    assert rows[-1]["prompt_eval_duration"] + rows[-1]["eval_duration"] == rows[-1]["total_duration"]


def test_calls_come_with_arguments_as_objects(live: Start) -> None:
    message = post(live([TURN]), HI | {"stream": False}).json()["message"]
    arguments = [call["function"]["arguments"] for call in message["tool_calls"]]
    assert arguments == [{"tz": "UTC"}, {}]
    broken = Message("assistant", tool_calls=(ToolCall("a", "now", '{"tz": '),))
    message = post(live([broken]), HI | {"stream": False}).json()["message"]
    assert message["tool_calls"][0]["function"]["arguments"] == {"INVALID_JSON": '{"tz": '}


def test_what_was_asked_reaches_the_provider(live: Start) -> None:
    provider = Scripted(["ok"])
    options = {
        "temperature": 0.5,
        "top_k": 4,
        "num_predict": 9,
        "stop": ["\n"],
        "repeat_penalty": 1.2,
        "seed": 3,
        "num_ctx": 2048,
        "repeat_last_n": -1,
    }
    schema = {"type": "object"}
    tools = [{"type": "function", "function": FUNCTION}]
    body = HI | {"model": "scripted:latest", "options": options, "format": schema, "tools": tools, "keep_alive": "5m"}
    reply = post(live(provider), body)
    assert reply.headers["x-ignored-params"] == "options.num_ctx,keep_alive"  # the model came with the server
    seen = provider.requests[0]
    assert seen.what == Conversation.of(("user", "Hi"), tools=tuple(tools))
    assert seen.sampling == Sampling(
        temperature=0.5,
        top_k=4,
        max_tokens=9,
        stop=("\n",),
        repetition_penalty=1.2,
        seed=3,
        form=Form("schema", '{"type":"object"}', strict=False),
    )


def test_results_without_ids_belong_to_the_oldest_open_call_of_their_tool(live: Start) -> None:
    provider = Scripted(["ok"])
    made = [{"function": {"name": name, "arguments": {}}} for name in ("now", "then", "now")]
    results = [{"role": "tool", "content": text, "tool_name": text} for text in ("then", "now")]
    turns = [*HI["messages"], {"role": "assistant", "content": "", "tool_calls": made}, *results]
    turns.append({"role": "tool", "content": "last"})
    assert post(live(provider), HI | {"messages": turns}).status_code == 200
    said = provider.requests[0].what.messages
    ids = [call.id for call in said[1].tool_calls]
    assert [(message.tool_call_id, message.text) for message in said[2:]] == [
        (ids[1], "then"),
        (ids[0], "now"),
        (ids[2], "last"),
    ]


def test_generate_is_a_conversation_and_raw_a_document(live: Start) -> None:
    provider = Scripted(cycle(["ok"]))
    server = live(provider)
    rows = lines(
        server, {"model": "scripted", "prompt": "Hi", "system": "Be brief.", "images": ["aGk="]}, "/api/generate"
    )
    assert "".join(row["response"] for row in rows) == "ok"
    post(server, {"model": "scripted", "prompt": "Once", "raw": True, "stream": False}, "/api/generate")
    post(server, {"model": "scripted", "prompt": "a", "suffix": "c", "stream": False}, "/api/generate")
    parts = (Text("Hi"), Image("data:image/*;base64,aGk="))
    assert [seen.what for seen in provider.requests] == [
        Conversation((Message("system", "Be brief."), Message("user", parts))),
        Document("Once"),
        Document("a", suffix="c"),
    ]


def test_an_empty_prompt_only_asks_for_the_model(live: Start) -> None:
    server = live([])
    for path, body in (("/api/generate", {"model": "scripted"}), ("/api/chat", HI | {"messages": []})):
        row = post(server, body, path).json()
        assert (row["done"], row["done_reason"]) == (True, "load")
    assert post(server, {"model": "other"}, "/api/generate").status_code == 404


def test_models_are_listed_and_shown(live: Start) -> None:
    server = live(Scripted(max_len=4096, details={"family": "qwen2"}))
    for path in ("/api/tags", "/api/ps"):
        (row,) = httpx.get(server.url + path).json()["models"]
        assert (row["name"], row["model"], row["details"]["family"]) == ("scripted", "scripted", "qwen2")
    shown = post(server, {"model": "scripted:latest"}, "/api/show").json()
    assert shown["model_info"] == {"general.architecture": "qwen2", "qwen2.context_length": 4096}
    assert shown["capabilities"] == ["completion"]
    assert httpx.get(f"{server.url}/api/version").json() == {"version": myna.__version__}
    assert httpx.head(server.url).status_code == 200


def test_a_model_of_a_folder_is_listed_with_its_size_and_its_digest(live: Start) -> None:
    server = live([])
    place = Loadable("other", Scripted, lambda: 5, size=7, digest="a" * 64)
    server.app.desk.models.add(place)
    given, found = httpx.get(f"{server.url}/api/tags").json()["models"]
    assert (given["size"], given["digest"]) == (0, "")
    assert (found["name"], found["size"], found["digest"]) == ("other", 7, "a" * 64)


REFUSALS: list[tuple[Any, str]] = [
    ({"think": "high"}, "think"),
    ({"format": "yaml"}, "format"),
    ({"template": "{{ .Prompt }}"}, "template"),
    ({"options": {"mirostat": 2}}, "options.mirostat"),
    ({"options": {"repeat_last_n": 64}}, "options.repeat_last_n"),
    ({"options": {"num_predict": 0}}, "options.num_predict"),
    ({"options": {"top_p": 2}}, "options.top_p"),
    ({"options": {"stop": [1]}}, "options.stop.0"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"messages": [{"role": "queen", "content": ""}]}, "messages.0.role"),
    ({"messages": [{"role": "tool", "content": "", "tool_name": "x"}]}, "messages.0"),
]


def test_what_cannot_be_honoured_is_refused_by_name_in_ollamas_shape(live: Start) -> None:
    server = live([])
    for body, param in REFUSALS:
        reply = post(server, HI | body)
        assert (reply.status_code, reply.json()["param"]) == (400, param), (body, reply.text)
        assert isinstance(reply.json()["error"], str)


def test_a_failure_in_mid_answer_is_an_error_line_and_the_end(live: Start) -> None:
    rows = lines(live([("half", ProviderError("it broke"))]), HI)
    assert rows[-1]["error"] == "it broke"
    assert not any(row.get("done") for row in rows)


def test_leaving_a_stream_cancels_the_request(live: Start) -> None:
    provider = Scripted(["word " * 1000], delay=0.01)
    with httpx.stream("POST", f"{live(provider).url}/api/chat", json=HI) as reply:
        next(reply.iter_lines())
    eventually(lambda: provider.requests[0].outcome == "closed")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(0, 0.0), ("0", 0.0), (1.5, 1.5), ("5m", 300.0), ("1h30m", 5400.0), ("1.5h", 5400.0), ("250ms", 0.25),
     ("+2s", 2.0), (-1, math.inf), ("-1m", math.inf), ("-1h30m", math.inf), (None, None)],
)  # fmt: skip
def test_how_long_a_model_stays_is_seconds_or_gos_duration(text: Any, seconds: float | None) -> None:
    assert read_keep_alive(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "5m?", "five", "1e9s", "--5m", "9" * 999 + "h"])
def test_any_other_duration_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_keep_alive(text)
    assert refused.value.param == "keep_alive"


def test_silence_is_never_filled_as_clients_take_every_line_for_json(live: Start) -> None:
    server = live(Scripted(["a b c"], delay=0.1), limits=Limits(keepalive=0.01))
    assert "".join(row["message"]["content"] for row in lines(server, HI)) == "a b c"
