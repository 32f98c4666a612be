"""Conversations and replies: nothing a user wrote is lost, and a stream folds into the reply it is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.records import (
    CallPiece,
    Candidate,
    Conversation,
    DataError,
    Delta,
    Document,
    Image,
    Message,
    RequestError,
    Sampled,
    Sampling,
    Text,
    Tokens,
    ToolCall,
    Usage,
    fold,
)

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | texts, lambda v: st.lists(v, max_size=2), max_leaves=3
)
FIELDS = {"messages", "id", "tools", "target", "candidates", "meta", "role", "content", "reasoning", "name", "weight"}
FIELDS |= {"reasoning_content", "tool_calls", "tool_call_id", "tokens", "score", "finish_reason", "text"}
metas = st.dictionaries(texts.filter(lambda key: key not in FIELDS), json_values, max_size=2)


@st.composite
def token_evidence(draw: st.DrawFn) -> Tokens:
    ids = tuple(draw(st.lists(st.integers(0, 200_000), max_size=4)))
    logprobs = tuple(draw(st.floats(-50, 0)) for _ in ids)
    return Tokens(ids, logprobs if logprobs and draw(st.booleans()) else None)


calls = st.builds(ToolCall, id=texts, name=texts, arguments=texts)
parts = st.lists(st.builds(Text, texts) | st.builds(Image, texts), max_size=3).map(tuple)
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    content=texts | parts,
    reasoning_content=st.none() | texts.filter(bool),
    tool_calls=st.lists(calls, max_size=2).map(tuple),
    tool_call_id=texts,
    name=st.none() | texts,
    weight=st.sampled_from([None, 0, 1]),
    tokens=st.none() | token_evidence(),
    meta=metas,
)
candidates = st.builds(
    Candidate,
    messages=st.lists(messages, max_size=2).map(tuple),
    score=st.none() | st.floats(-1, 1),
    tokens=st.none() | token_evidence(),
    finish_reason=st.none() | texts,
    meta=metas,
)
conversations = st.builds(
    Conversation,
    messages=st.lists(messages, max_size=3).map(tuple),
    id=texts,
    tools=st.lists(metas, max_size=2).map(tuple),
    target=json_values,
    candidates=st.lists(candidates, max_size=2).map(tuple),
    meta=metas,
)


@given(conversations)
def test_a_conversation_survives_the_round_trip_through_json(conversation: Conversation) -> None:
    row = json.loads(json.dumps(conversation.to_json()))
    assert Conversation.from_json(row) == conversation


@given(st.builds(Document, text=texts, tokens=st.none() | token_evidence(), meta=metas))
def test_a_document_survives_the_round_trip_through_json(document: Document) -> None:
    assert Document.from_json(json.loads(json.dumps(document.to_json()))) == document


def test_unknown_keys_are_kept_in_meta_at_every_level_and_come_back() -> None:
    row = {
        "messages": [{"role": "user", "content": "hi", "mood": "good", "meta": {"a": 1}}],
        "candidates": [{"messages": [], "model": "x"}],
        "source": {"file": "f", "行": 3},
        "meta": {"b": 2},
    }
    conversation = Conversation.from_json(row)
    assert conversation.meta == {"source": {"file": "f", "行": 3}, "b": 2}
    assert conversation.messages[0].meta == {"mood": "good", "a": 1}
    assert conversation.candidates[0].meta == {"model": "x"}
    assert Conversation.from_json(conversation.to_json()) == conversation


def test_a_key_both_beside_and_inside_meta_is_an_error_not_a_loss() -> None:
    with pytest.raises(DataError, match=r"meta\.source"):
        Conversation.from_json({"messages": [], "source": 1, "meta": {"source": 2}})


def test_arguments_may_be_an_object_and_malformed_text_is_kept() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"城市": "巴黎"}}}
    assert ToolCall.from_json(call).arguments == '{"城市": "巴黎"}'
    call["function"]["arguments"] = '{"half'  # type: ignore[index]
    assert ToolCall.from_json(call).to_json()["function"]["arguments"] == '{"half'


@pytest.mark.parametrize(
    "value",
    [None, 3, "x", [], {"function": "f"}, {"function": {"name": 1}}, {"function": {"name": "f", "arguments": 1}}],
)
def test_a_tool_call_that_is_none_is_an_error(value: Any) -> None:
    with pytest.raises(DataError, match="tool_call"):
        ToolCall.from_json(value)


def test_a_message_reads_both_names_of_reasoning_and_null_is_absent() -> None:
    for key in ("reasoning", "reasoning_content"):
        assert Message.from_json({"role": "assistant", "content": None, key: "hm"}).reasoning_content == "hm"
    assert Message.from_json({"role": "assistant", "content": None}).text == ""


def test_text_joins_the_text_parts_and_leaves_images_out() -> None:
    message = Message("user", (Text("a"), Image("http://x/y.png"), Text("b")))
    assert message.text == "ab"


# Folding: a stream may be cut anywhere, candidates may interleave; the reply is the same.

pieces = st.builds(CallPiece, index=st.integers(0, 2), id=texts, name=texts, arguments=texts)
deltas = st.builds(
    Delta,
    candidate=st.integers(0, 2),
    text=texts,
    reasoning=texts,
    tool_calls=st.lists(pieces, max_size=2).map(tuple),
    tokens=st.lists(
        st.builds(Sampled, id=st.integers(0, 9), piece=st.just(b"x"), logprob=st.floats(-9, 0)), max_size=2
    ).map(tuple),
)
streams = st.lists(deltas, max_size=12)


def reply_of(stream: list[Delta]) -> tuple[Any, ...]:
    reply = fold(stream)
    return tuple((c.messages[0].text, c.messages[0].reasoning_content, c.tokens) for c in reply.candidates)


@given(streams)
def test_candidates_do_not_mix_however_they_interleave(stream: list[Delta]) -> None:
    alone = [delta for k in range(3) for delta in stream if delta.candidate == k]
    assert fold(stream) == fold(alone)


@given(streams, st.data())
def test_where_a_delta_is_cut_does_not_matter(stream: list[Delta], data: st.DataObject) -> None:
    cut: list[Delta] = []
    for delta in stream:
        at = data.draw(st.integers(0, len(delta.text)))
        cut += [Delta(delta.candidate, text=delta.text[:at]), Delta(delta.candidate, delta.text[at:], delta.reasoning,
                delta.tool_calls, delta.tokens)]  # fmt: skip
    assert fold(cut) == fold(stream)


@given(streams)
def test_text_tokens_and_calls_concatenate(stream: list[Delta]) -> None:
    reply = fold(stream)
    for k, candidate, sampled in zip(
        sorted({d.candidate for d in stream}), reply.candidates, reply.sampled, strict=True
    ):
        mine = [delta for delta in stream if delta.candidate == k]
        assert candidate.text == "".join(delta.text for delta in mine)
        assert sampled == tuple(token for delta in mine for token in delta.tokens)
        made = [piece for delta in mine for piece in delta.tool_calls]
        for index, call in zip(sorted({piece.index for piece in made}), candidate.messages[0].tool_calls, strict=True):
            parts = [piece for piece in made if piece.index == index]
            assert call.arguments == "".join(piece.arguments for piece in parts)
            assert call.id == next((piece.id for piece in parts if piece.id), "")
            assert call.name == next((piece.name for piece in parts if piece.name), "")


def test_usage_and_finish_reason_come_from_where_they_are_said() -> None:
    stream = [Delta(), Delta(text="a"), Delta(finish_reason="length"), Delta(usage=Usage(3, 1))]
    reply = fold(stream)
    assert (reply.candidates[0].finish_reason, reply.usage, reply.text) == ("length", Usage(3, 1), "a")


def test_tokens_are_evidence_only_when_every_id_is_known() -> None:
    known, unknown = Sampled(1, b"a", -0.5), Sampled(None, b"b", -0.5)
    assert fold([Delta(tokens=(known,))]).candidates[0].tokens == Tokens((1,), (-0.5,))
    assert fold([Delta(tokens=(known, unknown))]).candidates[0].tokens is None


# Sampling


def test_the_first_layer_that_says_something_wins() -> None:
    asked, model = Sampling(temperature=0.0), Sampling(temperature=0.7, top_p=0.8)
    resolved = asked.resolve(model, Sampling(temperature=1.0, top_p=1.0, top_k=5))
    assert (resolved.temperature, resolved.top_p, resolved.top_k) == (0.0, 0.8, 5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("top_k", -1), ("top_p", 1.01), ("min_p", -0.01),
        ("repetition_penalty", 0), ("presence_penalty", 2.1), ("frequency_penalty", -2.1), ("max_tokens", 0),
        ("logprobs", 21), ("n", 0), ("n", 129), ("seed", 2**64), ("logit_bias", ((5, 101.0),)), ("stop", ("a", "")),
    ],
)  # fmt: skip
def test_out_of_range_is_refused_with_the_field_and_the_range(field: str, value: Any) -> None:
    with pytest.raises(RequestError, match=field) as error:
        Sampling(**{field: value}).check()
    assert error.value.param == field
