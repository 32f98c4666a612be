"""Anthropic's Messages API: events in its order, errors in its shape. The official client's turn is `make test-clients`."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from live_server import Live, eventually

from myna.chat import Chat
from myna.provider import Scripted
from myna.records import (
    CallPiece,
    Candidate,
    Conversation,
    Delta,
    Form,
    Image,
    Message,
    ProviderError,
    Sampling,
    Text,
    ToolCall,
    ToolChoice,
    Unavailable,
    Usage,
)

Start = Callable[..., Live]
HI: dict[str, Any] = {"model": "scripted", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
TOOL: Any = {"name": "now", "description": "The time", "input_schema": {"type": "object"}}
CALLS = (ToolCall("a", "now", '{"tz": "UTC"}'), ToolCall("b", "now", "{}"))
TURN = Message("assistant", "你好, world", reasoning_content="先想一想", tool_calls=CALLS)


def post(live: Live, body: Any, path: str = "/v1/messages") -> httpx.Response:
    return httpx.post(live.url + path, json=HI | body, timeout=20)


def events(live: Live, body: Any) -> list[Any]:
    pairs = [block.split("\ndata: ", 1) for block in post(live, body | {"stream": True}).text.split("\n\n") if block]
    rows = [orjson.loads(data) for _, data in pairs]
    assert [name for name, _ in pairs] == [f"event: {row['type']}" for row in rows]
    return rows


def accumulated(rows: list[Any]) -> Any:
    """What Anthropic's client makes of the events (anthropic.lib.streaming.accumulate_event, retold)."""
    message: Any = None
    for row in rows:
        match row["type"]:
            case "message_start":
                message = row["message"]
            case "content_block_start":
                assert row["index"] == len(message["content"])
                message["content"].append(dict(row["content_block"]))
            case "content_block_delta":
                block, delta = message["content"][row["index"]], row["delta"]
                name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "json"}[delta["type"]]
                block[name] = block.get(name, "") + delta["partial_json" if name == "json" else name]
            case "content_block_stop":
                block = message["content"][row["index"]]
                if "json" in block:
                    block["input"] = orjson.loads(block.pop("json"))
            case "message_delta":
                message |= row["delta"]
                message["usage"] = row["usage"]
    return message


@pytest.mark.parametrize(
    "turn", ["Hi 世界", TURN, Candidate((Message("assistant", "cut"),), finish_reason="length"), ""]
)
@pytest.mark.parametrize("thinking", [{}, {"thinking": {"type": "disabled"}}])
def test_the_events_build_the_whole(live: Start, turn: Any, thinking: Any) -> None:
    server = live(Scripted(cycle([turn])))
    whole, built = post(server, thinking).json(), accumulated(events(server, thinking))
    assert whole.pop("id").startswith("msg_")
    assert built.pop("id").startswith("msg_")
    assert built == whole


@pytest.mark.parametrize("thinking", [{"type": "disabled"}, {"type": "adaptive", "display": "omitted"}])
def test_thinking_that_is_not_wanted_is_not_shown(live: Start, thinking: Any) -> None:
    server = live(Scripted(cycle([TURN])))
    assert "thinking" not in [block["type"] for block in post(server, {"thinking": thinking}).json()["content"]]
    assert "先想" not in post(server, {"thinking": thinking, "stream": True}).text
    assert "先想" in post(server, {"stream": True}).text


def test_events_come_in_anthropics_order(live: Start) -> None:
    rows = events(live(Scripted([TURN], split=lambda text: [text] if text else [])), {})
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert [row["type"] for row in rows] == ["message_start", *block * 4, "message_delta", "message_stop"]
    kinds = [row["content_block"]["type"] for row in rows if row["type"] == "content_block_start"]
    assert kinds == ["thinking", "text", "tool_use", "tool_use"]


def test_arguments_that_come_in_pieces_are_deltas_of_one_block(live: Start) -> None:
    async def stream(what: Any, sampling: Any = None) -> Any:
        yield Delta()
        yield Delta(tool_calls=(CallPiece(0, "a", "now"),))
        yield Delta(tool_calls=(CallPiece(0, arguments='{"tz": '),))
        yield Delta(tool_calls=(CallPiece(0, arguments='"UTC"}'),), finish_reason="tool_calls", usage=Usage(3, 2, 1))

    rows = events(live(_Pieces(stream)), {})
    assert [row["delta"]["partial_json"] for row in rows if row["type"] == "content_block_delta"] == [
        '{"tz": ',
        '"UTC"}',
    ]
    built = accumulated(rows)
    assert built["content"] == [{"type": "tool_use", "id": "a", "name": "now", "input": {"tz": "UTC"}}]
    assert built["usage"] == {
        "input_tokens": 2,
        "cache_read_input_tokens": 1,
        "cache_creation_input_tokens": 0,
        "output_tokens": 2,
    }


class _Pieces:
    """A provider whose stream is given."""

    name = "scripted"

    def __init__(self, stream: Any):
        self.stream = stream


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ("x", "end_turn"),
        (Candidate((Message("assistant", "x"),), finish_reason="length"), "max_tokens"),
        (Message("assistant", "", tool_calls=CALLS), "tool_use"),
        (Candidate((Message("assistant", "", tool_calls=CALLS[:1]),), finish_reason="stop"), "tool_use"),
    ],
)
def test_the_stop_reason_is_anthropics(live: Start, turn: Any, reason: str) -> None:
    assert post(live([turn]), {}).json()["stop_reason"] == reason


def test_a_stop_sequence_that_was_met_is_told(live: Start) -> None:
    async def stream(what: Any, sampling: Any = None) -> Any:
        yield Delta()
        yield Delta(text="one", finish_reason="stop", stop="\n")
        yield Delta(usage=Usage(1, 2))

    reply = post(live(_Pieces(stream)), {"stop_sequences": ["\n"]}).json()
    assert (reply["stop_reason"], reply["stop_sequence"]) == ("stop_sequence", "\n")


def test_what_was_asked_reaches_the_provider(live: Start) -> None:
    provider = Scripted(["ok"])
    schema = {"type": "object"}
    asked = {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "temperature": 0.5,
        "top_k": 4,
        "stop_sequences": ["\n"],
        "tools": [TOOL],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }
    assert post(live(provider), asked).status_code == 200
    seen = provider.requests[0]
    function = {"name": "now", "parameters": {"type": "object"}, "description": "The time"}
    assert seen.what == Conversation.of(
        ("system", "Be brief."), ("user", "Hi"), tools=({"type": "function", "function": function},)
    )
    assert seen.sampling == Sampling(
        temperature=0.5,
        top_k=4,
        stop=("\n",),
        max_tokens=9,
        form=Form("schema", '{"type":"object"}'),
        tool_choice=ToolChoice("required", parallel=False),
    )


def test_blocks_are_messages_in_order(live: Start) -> None:
    provider = Scripted(["ok"])
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    made = [{"type": "tool_use", "id": id, "name": "now", "input": {"n": 1}} for id in ("a", "b")]
    said = [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "ok"}, *made]
    results = [
        {"type": "tool_result", "tool_use_id": "b", "content": "noon"},
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "no"}], "is_error": True},
        {"type": "text", "text": "And?"},
    ]
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "See"}, image]},
        {"role": "assistant", "content": said},
        {"role": "user", "content": results},
    ]
    assert post(live(provider), {"messages": turns}).status_code == 200
    assert provider.requests[0].what.messages == (
        Message("user", (Text("See"), Image("data:image/png;base64,aGk="))),
        Message("assistant", "ok", "hm", (ToolCall("a", "now", '{"n":1}'), ToolCall("b", "now", '{"n":1}'))),
        Message("tool", "noon", tool_call_id="b", name="now"),
        Message("tool", "error: no", tool_call_id="a", name="now"),
        Message("user", "And?"),
    )


USER = {"role": "user", "content": "x"}
REFUSALS: list[tuple[Any, str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    (
        {"messages": [USER, {"role": "assistant", "content": [{"type": "thinking", "thinking": "x"}]}], "system": "s"},
        "messages.1",
    ),
    (
        {"messages": [USER, {"role": "assistant", "content": "x"}], "tools": [TOOL], "tool_choice": {"type": "any"}},
        "tool_choice",
    ),
    (
        {
            "messages": [USER, {"role": "assistant", "content": "x"}],
            "output_config": {"format": {"type": "json_schema", "schema": {}}},
        },
        "output_config.format.schema",
    ),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages.0.content.0"),
    (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
        "messages.0.content.0.tool_use_id",
    ),
    ({"system": [{"type": "image"}]}, "system.0"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tool_choice": {"type": "tool"}, "tools": [TOOL]}, "tool_choice.name"),
    ({"output_config": {"effort": "low"}}, "output_config.effort"),
    ({"container": "x"}, "container"),
    ({"stop_sequences": [""]}, "stop_sequences"),
]


def test_a_last_turn_of_the_assistant_is_an_answer_that_is_begun(live: Start) -> None:
    provider = Scripted([" upon a time"])
    begun = {"role": "assistant", "content": "Once "}
    reply = post(live(provider), {"messages": [USER, begun], "system": "s"}).json()
    (seen,) = provider.requests
    assert isinstance(seen.what, Conversation)
    assert seen.what.continues
    assert seen.what.messages[-1] == Message("assistant", "Once ")
    assert reply["content"] == [{"type": "text", "text": " upon a time"}]


def test_what_cannot_be_honoured_is_refused_by_name_in_anthropics_shape(live: Start) -> None:
    server = live([])
    for body, param in REFUSALS:
        reply = post(server, body)
        row = reply.json()
        assert (reply.status_code, row["type"]) == (400, "error"), body
        assert (row["error"]["type"], row["error"]["param"]) == ("invalid_request_error", param), body


def test_errors_have_anthropics_types(live: Start) -> None:
    server = live([Unavailable("full", code="queue_full"), ZeroDivisionError("secret")])
    kinds = [(reply.status_code, reply.json()["error"]["type"]) for reply in (post(server, {}), post(server, {}))]
    assert kinds == [(429, "rate_limit_error"), (500, "api_error")]
    assert post(server, {"model": "claude"}).json()["error"]["type"] == "not_found_error"
    assert httpx.get(f"{server.url}/v1/messages").json()["type"] == "error"


def test_a_failure_in_mid_answer_is_an_error_event_and_the_end(live: Start) -> None:
    rows = events(live([("half", ProviderError("it broke"))]), {})
    assert rows[-1] == {
        "type": "error",
        "error": {"type": "api_error", "message": "it broke", "param": None, "code": "provider_failed"},
    }
    assert "message_stop" not in [row["type"] for row in rows]


def test_leaving_a_stream_cancels_the_request(live: Start) -> None:
    provider = Scripted(["word " * 1000], delay=0.01)
    with httpx.stream("POST", f"{live(provider).url}/v1/messages", json=HI | {"stream": True}) as reply:
        next(reply.iter_lines())
    eventually(lambda: provider.requests[0].outcome == "closed")


def test_the_count_is_of_the_very_prompt(live: Start, smollm2: Path) -> None:
    chat = Chat.load(smollm2)
    server = live(Scripted(chat=chat))
    asked = {"system": "Be brief.", "messages": [{"role": "user", "content": "你好 <|im_end|>"}]}
    reply = post(server, asked, "/v1/messages/count_tokens").json()
    prompt = chat.render(Conversation.of(("system", "Be brief."), ("user", "你好 <|im_end|>")))
    assert reply == {"input_tokens": len(prompt.ids)}


def test_where_no_tokenizer_is_nothing_is_counted(live: Start) -> None:
    reply = post(live([]), {}, "/v1/messages/count_tokens")
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unsupported_model")
