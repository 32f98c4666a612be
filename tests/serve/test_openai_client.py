"""The official client against a real server: what it asks for it gets, and every refusal is its own exception."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import openai
import pytest
from live_server import Live, eventually

from myna.provider import Scripted
from myna.records import (
    Candidate,
    Conversation,
    Document,
    Message,
    ProviderError,
    RequestError,
    Sampling,
    Tokens,
    ToolCall,
    Unavailable,
)

Start = Callable[..., Live]
HI: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def client(live: Start) -> Iterator[Callable[..., openai.OpenAI]]:
    def connect(provider: Scripted | list[Any], **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{live(provider, **options).url}/v1", api_key="none", max_retries=0)

    return connect


Connect = Callable[..., openai.OpenAI]


def test_chat_answers(client: Connect) -> None:
    reply = client(["你好!"]).chat.completions.create(model="scripted", messages=HI)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("你好!", "stop")
    assert reply.usage
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_what_was_asked_reaches_the_provider(client: Connect) -> None:
    provider = Scripted(["ok"])
    client(provider).chat.completions.create(
        model="scripted",
        messages=[{"role": "system", "content": "Be brief."}, *HI],
        temperature=0.5,
        max_completion_tokens=9,
        stop="\n",
        seed=3,
        logit_bias={"7": 2},
        extra_body={"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.2},
    )
    seen = provider.requests[0]
    assert seen.what == Conversation.of(("system", "Be brief."), ("user", "Hi"))
    assert seen.sampling == Sampling(
        temperature=0.5,
        max_tokens=9,
        stop=("\n",),
        seed=3,
        logit_bias=((7, 2.0),),
        top_k=4,
        min_p=0.1,
        repetition_penalty=1.2,
    )


def test_a_stream_begins_with_the_role_ends_with_one_finish_reason_and_then_the_usage(client: Connect) -> None:
    chunks = list(
        client(["Hello, 世界"]).chat.completions.create(
            model="scripted", messages=HI, stream=True, stream_options={"include_usage": True}
        )
    )
    first, *_, last = chunks
    said = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert first.choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for choice in said) == "Hello, 世界"
    assert [choice.finish_reason for choice in said if choice.finish_reason] == ["stop"]
    assert last.choices == []
    assert last.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_no_usage_chunk_unless_asked(client: Connect) -> None:
    chunks = client(["Hello"]).chat.completions.create(model="scripted", messages=HI, stream=True)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_reasoning_has_both_names(client: Connect) -> None:
    connection = client(cycle_of(Message("assistant", "5", reasoning_content="2+3")))
    whole = connection.chat.completions.create(model="scripted", messages=HI).choices[0].message
    pieces = connection.chat.completions.create(model="scripted", messages=HI, stream=True)
    deltas = [chunk.choices[0].delta for chunk in pieces]
    for name in ("reasoning_content", "reasoning"):
        assert getattr(whole, name) == "2+3"
        assert "".join(getattr(delta, name, "") for delta in deltas) == "2+3"


def test_n_choices_each_have_their_own_text_and_end(client: Connect) -> None:
    script = ["a", Candidate((Message("assistant", "b"),), finish_reason="length")]
    reply = client(script).chat.completions.create(model="scripted", messages=HI, n=2)
    assert [(c.index, c.message.content, c.finish_reason) for c in reply.choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]


def test_chat_logprobs_join_to_the_text(client: Connect) -> None:
    reply = client(["好的, ok"]).chat.completions.create(model="scripted", messages=HI, logprobs=True, top_logprobs=2)
    logprobs = reply.choices[0].logprobs
    assert logprobs
    assert logprobs.content
    assert b"".join(bytes(token.bytes or ()) for token in logprobs.content).decode() == "好的, ok"
    assert all(len(token.top_logprobs) == 2 for token in logprobs.content)


def test_tool_calls_arrive_whole_streamed_or_not(client: Connect) -> None:
    call = ToolCall("c1", "now", '{"city": "上海"}')
    connection = client(cycle_of(Message("assistant", "", tool_calls=(call,))))
    whole = connection.chat.completions.create(model="scripted", messages=HI).choices[0]
    with connection.chat.completions.stream(model="scripted", messages=HI) as stream:
        streamed = stream.get_final_completion().choices[0]
    for choice in (whole, streamed):
        assert choice.finish_reason == "tool_calls"
        assert choice.message.tool_calls
        assert choice.message.tool_calls[0].function.arguments == call.arguments


def test_completions_answer_each_prompt_n_times_in_order(client: Connect) -> None:
    provider = Scripted(cycle([lambda what: f"<{what.text}>"]))
    reply = client(provider).completions.create(model="scripted", prompt=["a", "b"], n=2)
    assert [(c.index, c.text) for c in reply.choices] == [(0, "<a>"), (1, "<a>"), (2, "<b>"), (3, "<b>")]
    assert reply.usage
    assert reply.usage.prompt_tokens == 2


def test_completions_stream_and_give_their_own_shape_of_logprobs(client: Connect) -> None:
    chunks = client(["Hello there"]).completions.create(model="scripted", prompt="x", stream=True, logprobs=1)
    choices = [chunk.choices[0] for chunk in chunks]
    assert "".join(choice.text for choice in choices) == "Hello there"
    assert [o for c in choices if c.logprobs for o in c.logprobs.text_offset or ()] == [0, 4, 8]


def test_a_prompt_of_token_ids_is_passed_on_exactly(client: Connect) -> None:
    provider = Scripted(["x"])
    client(provider).completions.create(model="scripted", prompt=[5, 6, 7])
    assert provider.requests[0].what == Document("", Tokens((5, 6, 7)))


def test_echo_puts_the_prompt_before_the_answer(client: Connect) -> None:
    connection = client(["b", "b"])
    whole = connection.completions.create(model="scripted", prompt="a", echo=True)
    chunks = connection.completions.create(model="scripted", prompt="a", echo=True, stream=True)
    assert whole.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks) == "ab"


def test_models_are_listed_with_what_they_hold_and_do(client: Connect) -> None:
    provider = Scripted(max_len=2048, defaults=Sampling(temperature=0.7), details={"family": "qwen2"})
    connection = client(provider)
    (model,) = connection.models.list().data
    shown = model.model_dump()
    assert (model.id, shown["context_length"], shown["details"]) == ("scripted", 2048, {"family": "qwen2"})
    assert (shown["defaults"]["temperature"], shown["defaults"]["top_p"]) == (0.7, 1.0)
    assert connection.models.retrieve("scripted") == model


REFUSALS = [
    (RequestError("no", param="messages.0"), openai.BadRequestError, 400),
    (RequestError("long", code="context_length_exceeded"), openai.BadRequestError, 400),
    (Unavailable("full", retry_after=3, code="queue_full"), openai.RateLimitError, 429),
    (ProviderError("broken"), openai.InternalServerError, 502),
    (KeyError("secret"), openai.InternalServerError, 500),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("error", "kind", "status"), REFUSALS, ids=lambda v: str(v)[:30])
def test_a_refusal_is_the_clients_own_exception(
    client: Connect, error: Exception, kind: type[openai.APIStatusError], status: int, stream: bool
) -> None:
    with pytest.raises(kind) as caught:
        client([error]).chat.completions.create(model="scripted", messages=HI, stream=stream)
    assert caught.value.status_code == status
    assert set(caught.value.body or {}) == {"message", "type", "param", "code"}
    assert "secret" not in str(caught.value)
    assert (caught.value.request_id or "").startswith("req-")


def test_an_unknown_model_is_not_found_and_the_others_are_listed(client: Connect) -> None:
    with pytest.raises(openai.NotFoundError, match="This server has: scripted") as caught:
        client([]).chat.completions.create(model="gpt", messages=HI)
    assert caught.value.code == "model_not_found"


def test_a_failure_in_mid_answer_is_an_error_event_and_the_end(client: Connect) -> None:
    stream = client([("Half an ans", ProviderError("out of memory"))]).chat.completions.create(
        model="scripted", messages=HI, stream=True
    )
    heard: list[Any] = []
    with pytest.raises(openai.APIError, match="out of memory"):
        heard.extend(stream_choices(stream, heard))
    assert "".join(choice.delta.content or "" for choice in heard) == "Half an ans"
    assert all(choice.finish_reason is None for choice in heard)


def test_a_client_that_hangs_up_closes_the_providers_stream(client: Connect) -> None:
    provider = Scripted(["word " * 100_000], delay=0.001)
    stream = client(provider).chat.completions.create(model="scripted", messages=HI, stream=True)
    next(iter(stream))
    stream.close()
    eventually(lambda: provider.requests[0].outcome == "closed")


def cycle_of(turn: Any) -> Scripted:
    return Scripted(cycle([turn]))


def stream_choices(stream: Any, heard: list[Any]) -> Iterator[Any]:
    for chunk in stream:
        heard.extend(chunk.choices)
    yield from ()
