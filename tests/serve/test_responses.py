"""The Responses API, with the official client and its types as the judge."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import httpx
import openai
import orjson
import pytest
from live_server import Live, eventually
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter, ValidationError

from myna.provider import Scripted
from myna.records import (
    Candidate,
    Conversation,
    Form,
    Image,
    Message,
    ProviderError,
    RequestError,
    Sampling,
    Text,
    ToolCall,
    ToolChoice,
)

Start = Callable[..., Live]
Connect = Callable[..., openai.OpenAI]
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL: Any = {"type": "function", "name": "now", "parameters": {"type": "object"}, "strict": True}
CALLS = (ToolCall("a", "now", '{"tz": "UTC"}'), ToolCall("b", "now", "{}"))
TURN = Message("assistant", "你好, world", reasoning_content="先想一想", tool_calls=CALLS)


@pytest.fixture
def client(live: Start) -> Iterator[Connect]:
    def connect(provider: Scripted | list[Any], **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{live(provider, **options).url}/v1", api_key="none", max_retries=0)

    return connect


def events(live: Live, body: Any) -> list[Any]:
    text = httpx.post(f"{live.url}/v1/responses", json=body | {"stream": True}, timeout=20).text
    pairs = [block.split("\ndata: ", 1) for block in text.split("\n\n") if block]
    rows = [orjson.loads(data) for _, data in pairs]
    assert [name for name, _ in pairs] == [f"event: {row['type']}" for row in rows]
    return rows


def content(response: Any) -> Any:
    """A response without what is new each time."""
    row = orjson.loads(orjson.dumps(response))
    for item in row["output"]:
        item.pop("id")
    return {name: value for name, value in row.items() if name not in ("id", "created_at")}


@pytest.mark.parametrize(
    "turn", ["Hi 世界", TURN, Candidate((Message("assistant", "cut"),), finish_reason="length"), ""]
)
@pytest.mark.parametrize("extra", [{}, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}])
def test_the_events_build_the_whole_and_every_one_is_of_its_type(live: Start, turn: Any, extra: Any) -> None:
    server = live(Scripted(cycle([turn])))
    body = {"input": "Hi", "tools": [TOOL]} | extra
    whole = httpx.post(f"{server.url}/v1/responses", json=body, timeout=20).json()
    rows = events(server, body)
    for row in rows:
        assert EVENT.validate_python(row).type == row["type"]
    Response.model_validate(whole)
    assert [row["sequence_number"] for row in rows] == list(range(len(rows)))
    assert [row["type"] for row in rows[:2]] == ["response.created", "response.in_progress"]
    assert rows[-1]["type"] == f"response.{whole['status']}"
    assert content(rows[-1]["response"]) == content(whole)
    done = [row["item"] for row in rows if row["type"] == "response.output_item.done"]
    assert done == rows[-1]["response"]["output"]


def test_events_come_in_openais_order(live: Start) -> None:
    rows = events(live(Scripted([TURN], split=lambda text: [text] if text else [])), {"input": "Hi", "tools": [TOOL]})
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]

    def said(kind: str) -> list[str]:
        inner = ["content_part.added", f"{kind}.delta", f"{kind}.done", "content_part.done"]
        return ["output_item.added", *inner, "output_item.done"]

    expected = ["created", "in_progress", *said("reasoning_text"), *said("output_text"), *call, *call, "completed"]
    assert [row["type"].removeprefix("response.") for row in rows] == expected
    indices = [row["output_index"] for row in rows if row["type"] == "response.output_item.done"]
    assert indices == [0, 1, 2, 3]


def test_a_cut_answer_is_incomplete_and_says_why(client: Connect) -> None:
    cut = Candidate((Message("assistant", "cut"),), finish_reason="length")
    reply = client([cut]).responses.create(model="scripted", input="Hi", max_output_tokens=1)
    assert (reply.status, reply.output[0].status) == ("incomplete", "incomplete")
    assert reply.incomplete_details
    assert reply.incomplete_details.reason == "max_output_tokens"


def test_the_clients_own_accumulator_reads_the_stream(client: Connect) -> None:
    tools: Any = [TOOL]
    with client([TURN]).responses.stream(model="scripted", input="Hi", tools=tools) as stream:
        final = stream.get_final_response()
    assert final.output_text == "你好, world"
    calls = [item for item in final.output if item.type == "function_call"]
    assert [(call.call_id, call.arguments) for call in calls] == [("a", '{"tz": "UTC"}'), ("b", "{}")]
    assert final.usage
    assert final.usage.output_tokens_details.reasoning_tokens == 1


def test_what_was_asked_reaches_the_provider(client: Connect) -> None:
    provider = Scripted(["ok"])
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    client(provider).responses.create(
        model="scripted",
        instructions="Be brief.",
        input="Hi",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=9,
        tools=[TOOL],
        tool_choice={"type": "function", "name": "now"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}},
        extra_body={"top_k": 4},
    )
    seen = provider.requests[0]
    function = {"name": "now", "parameters": {"type": "object"}, "strict": True}
    assert seen.what == Conversation.of(
        ("system", "Be brief."), ("user", "Hi"), tools=({"type": "function", "function": function},)
    )
    assert seen.sampling == Sampling(
        temperature=0.5,
        top_p=0.9,
        max_tokens=9,
        top_k=4,
        form=Form("schema", orjson.dumps(schema).decode(), strict=True),
        tool_choice=ToolChoice("named", "now", parallel=False),
    )


def test_the_output_sent_back_is_one_turn_of_the_history(client: Connect) -> None:
    provider = Scripted([TURN, "done"])
    asked: list[Any] = [{"role": "user", "content": "Hi"}]
    connected = client(provider)
    first = connected.responses.create(model="scripted", input=asked, tools=[TOOL])
    results = [{"type": "function_call_output", "call_id": id, "output": f"result {id}"} for id in ("b", "a")]
    said = [item.model_dump(exclude_none=True) for item in first.output]
    connected.responses.create(model="scripted", input=[*asked, *said, *results], tools=[TOOL])
    assert provider.requests[1].what.messages == (
        Message("user", "Hi"),
        TURN,
        Message("tool", "result b", tool_call_id="b", name="now"),
        Message("tool", "result a", tool_call_id="a", name="now"),
    )


def test_parts_are_text_and_images(client: Connect) -> None:
    provider = Scripted(["ok"])
    parts: Any = [
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "image_url": "data:x", "detail": "low"},
    ]
    client(provider).responses.create(model="scripted", input=[{"role": "user", "content": parts}])
    assert provider.requests[0].what.messages[0].content == (Text("See"), Image("data:x"))


def test_only_the_allowed_tools_are_shown(client: Connect) -> None:
    provider = Scripted(["ok"])
    tools: Any = [TOOL, TOOL | {"name": "then"}]
    choice: Any = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "then"}]}
    client(provider).responses.create(model="scripted", input="Hi", tools=tools, tool_choice=choice)
    seen = provider.requests[0]
    assert [tool["function"]["name"] for tool in seen.what.tools] == ["then"]
    assert seen.sampling.tool_choice == ToolChoice("required")


REFUSALS: list[tuple[Any, str]] = [
    ({"store": True}, "store"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"background": True}, "background"),
    ({"truncation": "auto"}, "truncation"),
    ({"input": []}, "input"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input.0.content.0"),
    ({"input": [{"role": "queen", "content": ""}]}, "input.0.role"),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]}, "input.0.call_id"),
    ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "name": "gone"}, "tools": [TOOL]}, "tool_choice"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"text": {"verbosity": "low"}}, "text.verbosity"),
    ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
    ({"include": ["everything"]}, "include"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"temperature": "hot"}, "temperature"),
]


def test_what_cannot_be_honoured_is_refused_by_name(live: Start) -> None:
    server = live([])
    replies = [
        httpx.post(f"{server.url}/v1/responses", json={"input": "Hi"} | body, timeout=20) for body, _ in REFUSALS
    ]
    found = [(reply.status_code, reply.json()["error"]["param"]) for reply in replies]
    assert found == [(400, param) for _, param in REFUSALS]


@pytest.mark.parametrize("name", [" ", "", "a b", "\n", "é"])
def test_any_name_of_an_unknown_field_fits_the_header(live: Start, name: str) -> None:
    reply = httpx.post(f"{live(['ok']).url}/v1/responses", json={"input": "Hi", name: 1}, timeout=20)
    assert reply.headers["x-ignored-params"] == ("a?b" if name == "a b" else "?")


def test_unknown_fields_are_named_and_labels_are_not(live: Start) -> None:
    body = {"input": "Hi", "mood": "sunny", "metadata": {"a": "b"}, "user": "me", "max_tool_calls": 3}
    reply = httpx.post(f"{live(['ok']).url}/v1/responses", json=body, timeout=20)
    assert reply.headers["x-ignored-params"] == "mood"
    assert reply.json()["metadata"] == {"a": "b"}


def test_a_refusal_is_the_clients_own_exception(client: Connect) -> None:
    connected = client([RequestError("too long", param="messages", code="context_length_exceeded")])
    with pytest.raises(openai.BadRequestError, match="too long"):
        connected.responses.create(model="scripted", input="Hi")
    with pytest.raises(openai.NotFoundError):
        connected.responses.create(model="gpt", input="Hi")


def test_a_failure_in_mid_answer_is_a_failed_response_and_raises_in_the_client(live: Start, client: Connect) -> None:
    server = live([("half an answer", ProviderError("it broke"))])
    rows = events(server, {"input": "Hi"})
    kinds = [row["type"] for row in rows]
    assert kinds[-2:] == ["response.failed", "error"]
    assert "response.completed" not in kinds
    failed = Response.model_validate(rows[-2]["response"])
    assert (failed.status, failed.output_text) == ("failed", "half an answer")
    with pytest.raises(openai.APIError, match="it broke"):
        list(client([("half", ProviderError("it broke"))]).responses.create(model="scripted", input="Hi", stream=True))


def test_leaving_a_stream_cancels_the_request(client: Connect) -> None:
    provider = Scripted(["word " * 1000], delay=0.01)
    with client(provider).responses.create(model="scripted", input="Hi", stream=True) as stream:
        next(iter(stream))
    eventually(lambda: provider.requests[0].outcome == "closed")


def test_the_judge_refuses_an_event_without_its_fields() -> None:
    with pytest.raises(ValidationError):
        EVENT.validate_python({"type": "response.output_text.delta", "delta": "x"})


@pytest.mark.parametrize(
    ("path", "body", "said", "told"),
    [
        ("/v1/responses", {"input": "Hi", "tools": [TOOL]}, "tools.0.function.parameters", "tools.0.parameters"),
        ("/v1/responses", {"input": "Hi"}, "messages", "input"),
        ("/v1/messages", {"model": "scripted", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "tools": [{"name": "now", "input_schema": {}}]}, "tools.0.function.parameters", "tools.0.input_schema"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}, "tools.1.function.parameters", "tools.1.function.parameters"),
    ],
)  # fmt: skip
def test_a_field_at_fault_is_called_what_this_api_calls_it(
    live: Start, path: str, body: Any, said: str, told: str
) -> None:
    reply = httpx.post(live([RequestError(f"{said}: no", param=said, code="x")]).url + path, json=body, timeout=20)
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["message"], error["code"]) == (400, told, f"{told}: no", "x")
