"""The one place that knows OpenAI's JSON: what one direction writes, the other reads."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.provider.wire.error import read_error, write_error
from myna.provider.wire.messages import read_messages
from myna.provider.wire.ollama import read_ollama_chat
from myna.provider.wire.ollama_writer import OllamaWriter
from myna.provider.wire.request import Ask, read_chat, read_completion, write_request
from myna.provider.wire.response import ChatWriter, ChunkReader, CompletionWriter
from myna.provider.wire.responses import read_responses
from myna.provider.wire.responses_writer import ResponsesWriter
from myna.provider.wire.sse import LIMIT, read_events, write_event
from myna.records import (
    CallPiece,
    ChatError,
    Conversation,
    DataError,
    Delta,
    Document,
    Image,
    Message,
    MynaError,
    ProviderError,
    RequestError,
    Sampled,
    Sampling,
    Text,
    Tokens,
    ToolCall,
    ToolChoice,
    Unavailable,
    Usage,
    fold,
)

HI = Conversation.ask("Hi")
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CALL = ToolCall("c1", "now", '{"city": "上海"}')

texts = st.text(max_size=20)
logprobs = st.floats(-50, 0)
plain_tokens = st.builds(Sampled, st.integers(0, 9), st.binary(max_size=4), logprobs)
chat_tokens = st.builds(
    Sampled,
    st.none() | st.integers(0, 9),
    st.binary(max_size=4),
    logprobs,
    st.lists(plain_tokens, max_size=2).map(tuple),
)
pieces = st.builds(CallPiece, st.integers(0, 3), texts, texts, texts)
chat_deltas = st.builds(
    Delta,
    st.integers(0, 2),
    text=texts,
    reasoning=texts,
    tokens=st.lists(chat_tokens, max_size=3).map(tuple),
)
legacy_tokens = st.builds(Sampled, st.integers(0, 9), st.binary(max_size=4), logprobs)
legacy_deltas = st.builds(Delta, st.integers(0, 2), text=texts, tokens=st.lists(legacy_tokens, max_size=3).map(tuple))
usages = st.builds(
    lambda cached, rest, written: Usage(cached + rest, written, cached),  # of a prompt no more is cached than there is
    *[st.integers(0, 9)] * 3,
)


def ask(n: int = 3) -> Ask:
    return Ask((HI,), Sampling(n=n, logprobs=1), include_usage=True)


def over_the_wire(writer: ChatWriter | CompletionWriter, deltas: list[Delta]) -> list[Delta]:
    reader = ChunkReader()
    rows = [*writer.opening(), *(row for delta in deltas for row in writer.chunks(delta))]
    return [delta for row in rows for delta in reader.read(orjson.loads(orjson.dumps(row)))]


@given(st.lists(chat_deltas), st.lists(pieces, max_size=3, unique_by=lambda piece: piece.index), usages)
def test_chat_deltas_survive_the_wire(deltas: list[Delta], made: list[CallPiece], usage: Usage) -> None:
    end = Delta(1, tool_calls=tuple(made), finish_reason="tool_calls")
    sent = [*deltas, end, Delta(usage=usage)]
    assert over_the_wire(ChatWriter(ask(), "m"), sent) == [d for d in sent if d != Delta(d.candidate)]


@given(st.lists(legacy_deltas), usages)
def test_completion_deltas_survive_the_wire(deltas: list[Delta], usage: Usage) -> None:
    sent = [*deltas, Delta(1, finish_reason="length"), Delta(usage=usage)]
    assert over_the_wire(CompletionWriter(ask(), "m"), sent) == [d for d in sent if d != Delta(d.candidate)]


@pytest.mark.parametrize("writer", [ChatWriter, CompletionWriter])
def test_an_end_in_one_delta_is_written_whole(writer: type[ChatWriter | CompletionWriter]) -> None:
    end = Delta(1, text="last", finish_reason="stop")
    sent = [replace(end, usage=Usage(3, 2, 1))]
    assert over_the_wire(writer(ask(), "m"), sent) == [end, Delta(usage=Usage(3, 2, 1))]


CONVERSATIONS = [
    HI,
    Conversation.of(("system", "Be brief."), ("user", "你好"), ("assistant", "好"), ("user", "?")),
    Conversation((Message("user", (Text("look"), Image("data:image/png;base64,AA=="))),)),
    Conversation((Message("user", "2+3"), Message("assistant", "5", reasoning_content="easy"), Message("user", "ok"))),
    Conversation(
        (Message("user", "t"), Message("assistant", tool_calls=(CALL,)), Message("tool", "9", tool_call_id="c1"))
    ),
    Conversation(HI.messages, tools=(TOOL,)),
    Conversation((*HI.messages, Message("assistant", "Once ")), continues=True),
]
SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0, top_k=5, top_p=0.5, min_p=0.1, repetition_penalty=1.1, n=2, max_tokens=7),
    Sampling(
        presence_penalty=-1, frequency_penalty=2, logit_bias=((5, -100),), seed=2**63, stop=("a", "b"), logprobs=0
    ),
    Sampling(logprobs=20, ignore_eos=True),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("what", CONVERSATIONS)
def test_a_chat_request_survives_the_wire(what: Conversation, sampling: Sampling) -> None:
    path, body = write_request(what, sampling, "m")
    read = read_chat(orjson.dumps(body))
    assert (path, read) == ("chat/completions", Ask((what,), sampling, "m", stream=True, include_usage=True))


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("what", [Document("从前 once"), Document("", Tokens((1, 2, 3)))])
def test_a_completion_request_survives_the_wire(what: Document, sampling: Sampling) -> None:
    path, body = write_request(what, sampling, "m")
    read = read_completion(orjson.dumps(body))
    assert (path, read) == ("completions", Ask((what,), sampling, "m", stream=True, include_usage=True))


def test_what_is_ours_alone_stays_off_the_wire() -> None:
    private = Message("assistant", "x", weight=0, tokens=Tokens((1,)), meta={"secret": 1})
    _, body = write_request(Conversation((private,)), Sampling(), "m")
    assert body["messages"] == [{"role": "assistant", "content": "x"}]


ERRORS = [
    RequestError("too hot", param="temperature", code="invalid_value"),
    RequestError("no such model", param="model", code="model_not_found"),
    RequestError("too long", param="messages", code="context_length_exceeded"),
    RequestError("too large", code="request_too_large"),
    Unavailable("loading", retry_after=7),
    Unavailable("full", retry_after=7, code="queue_full"),
    ProviderError("broken"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_an_error_survives_the_wire(error: MynaError) -> None:
    status, body, headers = write_error(error)
    read = read_error(status, headers, orjson.dumps(body), "http://x/v1")
    fields = ("param", "code", "retry_after")
    assert type(read) is type(error)
    assert str(error) in str(read)
    assert [getattr(read, f, None) for f in fields] == [getattr(error, f, None) for f in fields]


@pytest.mark.parametrize("error", [DataError("messages.3.role: no"), ChatError("the roles must alternate")])
def test_what_the_template_cannot_do_is_the_requests_fault(error: MynaError) -> None:
    assert write_error(error)[0] == 400


def test_a_bug_gives_away_nothing_but_the_requests_id() -> None:
    status, body, _ = write_error(KeyError("secret"), request_id="req-1")
    assert status == 500
    assert "secret" not in str(body)
    assert "req-1" in body["error"]["message"]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"error": "full"}', b'{"detail": "full"}', b"[1]", b"\xff", b"null"]
)
def test_any_error_body_can_be_read(body: bytes) -> None:
    assert isinstance(read_error(500, {}, body, "http://x/v1"), ProviderError)


BEGUN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "{"}]
BAD_CHAT: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": "hi"}, "messages", "invalid_type"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": None}, "messages", "invalid_type"),
    ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
    ({"messages": [{"role": "user", "content": [{"type": "sound"}]}]}, "messages.0.content.0.type", "invalid_value"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "messages.0.tool_call_id", "invalid_value"),
    ({"temperature": "hot"}, "temperature", "invalid_type"),
    ({"temperature": True}, "temperature", "invalid_type"),
    ({"temperature": -1}, "temperature", "invalid_value"),
    ({"top_p": 1.5}, "top_p", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 1.5}, "n", "invalid_type"),
    ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_value"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens", "invalid_value"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    ({"stop": 5}, "stop", "invalid_type"),
    ({"stop": ""}, "stop", "invalid_value"),
    ({"stop": ["a"] * 17}, "stop", "invalid_value"),
    ({"logit_bias": {"the": 1}}, "logit_bias.the", "invalid_value"),
    ({"logit_bias": {"5": 101}}, "logit_bias", "invalid_value"),
    ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage", "invalid_type"),
    ({"tools": [{"type": "function"}]}, "tools.0.function", "missing_required_parameter"),
    ({"tools": [TOOL, TOOL]}, "tools.1.function.name", "invalid_value"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools.0.function.name", "invalid_value"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ({"tool_choice": "sometimes", "tools": [TOOL]}, "tool_choice", "invalid_type"),
    ({"tool_choice": {"type": "function"}, "tools": [TOOL]}, "tool_choice.function", "invalid_type"),
    ({"tool_choice": {"type": "custom"}, "tools": [TOOL]}, "tool_choice.type", "unsupported_parameter"),
    ({"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [TOOL]}, "tool_choice", "invalid_value"),
    ({"tool_choice": {"type": "allowed_tools"}, "tools": [TOOL]}, "tool_choice.allowed_tools", "invalid_type"),
    (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, "tools": [TOOL]},
        "tool_choice.allowed_tools",
        "invalid_type",
    ),
    (
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "gone"}}]},
            },
            "tools": [TOOL],
        },
        "tool_choice.allowed_tools.tools.0",
        "invalid_value",
    ),
    ({"continue_final_message": True}, "messages.0", "invalid_value"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt", "invalid_value"),
    ({"add_generation_prompt": False}, "add_generation_prompt", "unsupported_parameter"),
    (
        {"messages": BEGUN, "continue_final_message": True, "response_format": {"type": "json_object"}},
        "response_format",
        "unsupported_parameter",
    ),
    (
        {"messages": BEGUN, "continue_final_message": True, "tools": [TOOL], "tool_choice": "required"},
        "tool_choice",
        "unsupported_parameter",
    ),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "invalid_type"),
    ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
    ({"min_tokens": 5}, "min_tokens", "unsupported_parameter"),
]


@pytest.mark.parametrize(("change", "param", "code"), BAD_CHAT, ids=lambda v: str(v)[:40])
def test_a_bad_chat_field_is_named(change: dict[str, Any], param: str, code: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]} | change
    with pytest.raises(RequestError) as caught:
        read_chat(orjson.dumps(body))
    assert (caught.value.param, caught.value.code) == (param, code)
    assert param in str(caught.value)


BAD_COMPLETION: list[tuple[dict[str, Any], str, str]] = [
    ({}, "prompt", "missing_required_parameter"),
    ({"prompt": None}, "prompt", "invalid_type"),
    ({"prompt": []}, "prompt", "invalid_type"),
    ({"prompt": ["a", 5]}, "prompt.1", "invalid_type"),
    ({"prompt": [[1], [-1]]}, "prompt.1", "invalid_type"),
    ({"prompt": [True]}, "prompt.0", "invalid_type"),
    ({"prompt": ["a"] * 1025}, "prompt", "invalid_value"),
    ({"prompt": ["a"] * 9, "n": 128}, "n", "invalid_value"),
    ({"prompt": "a", "echo": True, "logprobs": 1}, "echo", "unsupported_parameter"),
    ({"prompt": [1], "echo": True}, "echo", "unsupported_parameter"),
    ({"prompt": "a", "logprobs": True}, "logprobs", "invalid_type"),
    ({"prompt": [1], "suffix": "b"}, "suffix", "unsupported_parameter"),
    ({"prompt": "a", "best_of": 2}, "best_of", "unsupported_parameter"),
]


@pytest.mark.parametrize(("body", "param", "code"), BAD_COMPLETION, ids=lambda v: str(v)[:40])
def test_a_bad_completion_field_is_named(body: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_completion(orjson.dumps(body))
    assert (caught.value.param, caught.value.code) == (param, code)


DEEP = b'{"messages":[{"role":"user","content":"x"}],"response_format":' + b'{"a":' * 900 + b"1" + b"}" * 901


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"5", b'"\xff"', b'{"prompt": "\\ud800"}', b"{" * 9999, DEEP])
def test_a_hostile_body_is_a_request_error(raw: bytes) -> None:
    with pytest.raises(RequestError):
        read_chat(raw)


def test_unknown_fields_are_listed_and_null_ones_are_nothing() -> None:
    body = {
        "messages": [{"role": "assistant", "content": "x", "refusal": None, "mood": "sunny", "weight": 1}],
        "temprature": 1,
        "user": "me",
        "response_format": {"type": "text"},
        "functions": None,
    }
    read = read_chat(orjson.dumps(body))
    assert read.ignored == ("temprature", "user", "messages.0.mood", "messages.0.weight")
    assert read.prompts == (Conversation((Message("assistant", "x"),)),)


CHOICES = [None, ToolChoice(parallel=False), *(ToolChoice(mode) for mode in ("auto", "none", "required"))]


@pytest.mark.parametrize("choice", [*CHOICES, ToolChoice("named", TOOL["function"]["name"], parallel=False)])
def test_a_choice_of_tools_survives_the_wire(choice: ToolChoice | None) -> None:
    talk = Conversation.ask("x", tools=(TOOL,))
    _, body = write_request(talk, Sampling(tool_choice=choice), "m")
    read = read_chat(orjson.dumps(body))
    assert read.prompts == (talk,)
    assert read.sampling.tool_choice == choice


def test_a_call_sent_in_fragments_is_given_out_in_pieces_and_one_without_an_index_is_counted() -> None:
    reader = ChunkReader()

    def chunk(finish: str | None = None, *fragments: dict[str, Any]) -> list[Delta]:
        return list(
            reader.read({"choices": [{"index": 0, "delta": {"tool_calls": [*fragments]}, "finish_reason": finish}]})
        )

    first = chunk(None, {"index": 0, "id": "c1", "function": {"name": "now", "arguments": '{"city":'}})
    more = chunk(
        None, {"index": 0, "function": {"arguments": ' "上海"}'}}, {"index": 1, "id": "c2", "function": {"name": "b"}}
    )
    last = [
        *chunk(None, {"id": "c3", "function": {"name": "c", "arguments": "{"}}),
        *chunk("tool_calls", {"function": {"arguments": "}"}}),
    ]
    assert fold([*first, *more, *last]).message.tool_calls == (
        CALL, ToolCall("c2", "b", ""), ToolCall("c3", "c", "{}"),
    )  # fmt: skip
    assert [piece.index for delta in (*first, *more, *last) for piece in delta.tool_calls] == [0, 0, 1, 2, 2]


BAD_CHUNKS = [
    [],
    {"choices": 5},
    {"choices": [5]},
    {"choices": [{"index": "0"}]},
    {"choices": [{"delta": {"content": 5}}]},
]


@pytest.mark.parametrize("chunk", BAD_CHUNKS, ids=str)
def test_a_malformed_chunk_is_a_data_error(chunk: Any) -> None:
    with pytest.raises(DataError):
        list(ChunkReader().read(chunk))


HOSTILE_LOGPROBS = [
    {"content": [{"token": "a", "bytes": ["x"]}]},
    {"content": [{"token": "a", "bytes": [999], "logprob": -1}]},
    {"tokens": ["bytes:\\xzz", 5], "top_logprobs": [7]},
    {"tokens": ["a"], "token_logprobs": []},
    {"tokens": ["a", "b"], "token_logprobs": ["x", True], "token_ids": ["1", {}], "top_logprobs": [{"c": []}]},
]


@pytest.mark.parametrize("value", HOSTILE_LOGPROBS, ids=str)
def test_odd_logprobs_do_not_break_the_reader(value: Any) -> None:
    (delta,) = ChunkReader().read({"choices": [{"text": "a", "logprobs": value}]})
    assert delta.text == "a"
    for token in (each for sampled in delta.tokens for each in (sampled, *sampled.top)):
        assert token.id is None or type(token.id) is int
        assert token.logprob is None or type(token.logprob) in (int, float)


def events(pieces: list[bytes]) -> list[bytes]:
    async def arrive() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def collect() -> list[bytes]:
        return [event async for event in read_events(arrive())]

    return asyncio.run(collect())


STREAM = b": hello\r\n\r\n" + write_event({"t": "a\u2028b\x85c"}) + b"event: x\ndata: 1 \r\ndata:  2\n\ndata: cut off"


@pytest.mark.parametrize("at", range(len(STREAM)))
def test_events_do_not_depend_on_how_the_bytes_arrive(at: int) -> None:
    assert events([STREAM[:at], STREAM[at:]]) == ['{"t":"a\u2028b\x85c"}'.encode(), b"1 \n 2"]


def test_an_endless_line_is_refused() -> None:
    with pytest.raises(ProviderError, match="more than 16 MiB"):
        events([b"data: " + b"x" * (LIMIT + 1)])


def test_an_event_of_endless_lines_is_refused() -> None:
    with pytest.raises(ProviderError, match="more than 16 MiB"):
        events([(b"data: " + b"x" * 1000 + b"\n") * 1000] * 17)
    assert len(events([(b"data: " + b"x" * 1000 + b"\n\n") * 1000] * 17)) == 17_000


def test_offsets_count_characters_though_a_token_holds_half_of_one() -> None:
    halves = "好".encode()
    writer = CompletionWriter(replace(ask(1), prompts=(Document(""),)), "m")
    (row,) = writer.chunks(Delta(tokens=tuple(Sampled(1, p, -1.0) for p in (b"ab", halves[:2], halves[2:], b"c"))))
    assert row["choices"][0]["logprobs"]["text_offset"] == [0, 2, 2, 3]


@pytest.mark.parametrize("writer", [ChatWriter, CompletionWriter, ResponsesWriter, OllamaWriter])
def test_a_token_that_cannot_be_has_openais_number_in_every_api(writer: Any) -> None:
    never = float("-inf")
    token = Sampled(1, b"a", -0.5, (Sampled(2, b"b", never),))
    answer = [
        Delta(text="a", tokens=(token, replace(token, logprob=never)), finish_reason="stop"),
        Delta(usage=Usage()),
    ]
    ask = Ask((HI,), Sampling(logprobs=1), include_usage=True)
    sent = orjson.dumps([[*writer(ask, "m").chunks(answer[0])], writer(ask, "m").whole(answer)])
    assert sent.count(b"-9999.0") == 2 * 3  # streamed, and whole
    assert b"-0.5" in sent


TURN = {"role": "user", "content": "Hi"}
CALLED = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}", "mood": 1}, "index": 0}
SEEN = [{"type": "text", "text": "a", "mood": 1}, {"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]
USE = {"type": "tool_use", "id": "c", "name": "now", "input": {}, "caller": {}}


@pytest.mark.parametrize(
    ("read", "body", "ignored"),
    [
        (read_chat, {"messages": [TURN], "stream_options": {"include_usage": True, "mood": 1}}, ["stream_options.mood"]),
        (read_chat, {"messages": [TURN], "tools": [TOOL | {"mood": 1}]}, []),  # the template is given tools as they are
        (read_chat, {"messages": [TURN | {"content": SEEN}]}, [
            "messages.0.content.0.mood", "messages.0.content.1.image_url.detail",
        ]),
        (read_chat, {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALLED], "reasoning": "r"}, TURN]}, [
            "messages.0.tool_calls.0.function.mood", "messages.0.tool_calls.0.index",
        ]),
        (read_messages, {"max_tokens": 1, "messages": [TURN | {"mood": 1}], "thinking": {"type": "enabled", "mood": 1}}, [
            "messages.0.mood", "thinking.mood",
        ]),
        (read_messages, {"max_tokens": 1, "messages": [{"role": "assistant", "content": [USE]}, {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c", "content": "x", "cache_control": {}, "mood": 1},
        ]}]}, ["messages.0.content.0.caller", "messages.1.content.0.mood"]),
        (read_messages, {"max_tokens": 1, "messages": [TURN], "tools": [
            {"name": "a", "input_schema": {}, "input_examples": [1], "cache_control": {}},
        ]}, ["tools.0.input_examples"]),
        (read_responses, {"input": [TURN | {"content": [
            {"type": "input_image", "image_url": "u", "detail": "low", "file_id": None},
        ], "mood": 1}], "text": {"format": {"type": "text"}, "mood": 1}}, [
            "text.mood", "input.0.mood", "input.0.content.0.detail",
        ]),
        (read_ollama_chat, {"model": "m", "messages": [TURN | {"mood": 1}], "options": {"num_ctx": 1, "mirostat": 0}}, [
            "options.num_ctx", "messages.0.mood",
        ]),
    ],
)  # fmt: skip
def test_what_nobody_knows_is_named_however_deep_it_is(read: Any, body: Any, ignored: list[str]) -> None:
    assert sorted(read(orjson.dumps(body)).ignored) == sorted(ignored)


def test_a_chunk_has_at_most_one_piece_of_a_call() -> None:
    pieces = (CallPiece(0, "a", "f"), CallPiece(0, arguments="{"), CallPiece(1, "b", "g"), CallPiece(1, arguments="{}"))
    delta = Delta(0, "so", tool_calls=pieces, finish_reason="tool_calls", flaw="x")
    chunks = [*ChatWriter(Ask((HI,), Sampling()), "m").chunks(delta)]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [[(p["index"], p["function"]) for p in c["delta"].get("tool_calls", [])] for c in choices] == [
        [(0, {"name": "f", "arguments": ""})],
        [(0, {"arguments": "{"}), (1, {"name": "g", "arguments": ""})],
        [(1, {"arguments": "{}"})],
    ]
    assert [c["delta"].get("content") for c in choices] == ["so", None, None]
    assert [(c["finish_reason"], c.get("flaw")) for c in choices] == [(None, None), (None, None), ("tool_calls", "x")]
    assert fold([read for chunk in chunks for read in ChunkReader().read(chunk)]) == fold([delta])
