"""The whole way with a real model: the official client, HTTP, the engine. SmolLM2 on a free port."""

import concurrent.futures
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from live_server import Live, eventually

from myna.engine.engine import Engine
from myna.provider.local import Loading, Local, load
from myna.serve import create_app

ASK: dict[str, Any] = {
    "model": "smollm2-135m",
    "messages": [{"role": "user", "content": "Complete: The capital of France is"}],
    "temperature": 0,
}


@pytest.fixture(scope="module")
def local(smollm2: Path) -> Iterator[Local]:
    provider = load(str(smollm2), Loading(kv_gb=0.2, max_running=16), name="smollm2-135m")
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def client(local: Local) -> Iterator[openai.OpenAI]:
    with Live(create_app(local)) as live:
        yield openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)


def all_free(engine: Engine) -> bool:
    return engine.idle and engine.scheduler.blocks.free == engine.scheduler.blocks.count and not engine._live


def test_it_answers_and_counts(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(**ASK)
    assert reply.choices[0].message.content == "The capital of France is Paris."
    assert reply.usage
    assert reply.usage.completion_tokens == 8


def test_an_answer_that_is_begun_is_gone_on_with(client: openai.OpenAI) -> None:
    """In OpenAI's API as vLLM has it, and in Anthropic's, token by token where the whole answer would have gone."""
    for begun in ("The capital", "The capital of France is"):
        messages = [*ASK["messages"], {"role": "assistant", "content": begun}]
        asked = ASK | {
            "messages": messages,
            "extra_body": {"continue_final_message": True, "add_generation_prompt": False},
        }
        reply = client.chat.completions.create(**asked)
        assert begun + str(reply.choices[0].message.content) == "The capital of France is Paris."
        body = {"messages": messages, "max_tokens": 20, "temperature": 0, "model": "smollm2-135m"}
        url = str(client.base_url).removesuffix("/v1/")
        said = httpx.post(f"{url}/v1/messages", json=body, timeout=60).json()
        assert begun + said["content"][0]["text"] == "The capital of France is Paris."
        counted = httpx.post(f"{url}/v1/messages/count_tokens", json={"messages": messages}, timeout=60).json()
        usage = said["usage"]
        assert counted["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


def test_the_stream_folds_to_the_whole_answer(client: openai.OpenAI) -> None:
    ask = ASK | {"n": 2, "seed": 4, "temperature": 0.8, "max_tokens": 30, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**ask)
    texts, tokens = {0: "", 1: ""}, {0: [], 1: []}  # type: ignore[var-annotated]
    finish: dict[int, str | None] = {}
    for chunk in client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            tokens[choice.index] += [t.token for t in (choice.logprobs.content or [])] if choice.logprobs else []
            finish[choice.index] = choice.finish_reason or finish.get(choice.index)
    for choice in whole.choices:
        assert texts[choice.index] == choice.message.content
        assert finish[choice.index] == choice.finish_reason
        assert choice.logprobs
        assert choice.logprobs.content
        assert tokens[choice.index] == [t.token for t in choice.logprobs.content]


def test_a_client_that_leaves_frees_its_blocks(client: openai.OpenAI, local: Local) -> None:
    """Within one step of the engine: no more tokens are computed than the step that was running."""
    engine = local.loop.engine
    stream = client.chat.completions.create(**ASK | {"max_tokens": 4000}, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    eventually(lambda: all_free(engine))


def test_too_long_a_prompt_is_refused_with_the_numbers(client: openai.OpenAI, local: Local) -> None:
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(**ASK | {"messages": [{"role": "user", "content": "word " * 20_000}]})
    assert (e.value.code, e.value.param) == ("context_length_exceeded", "messages")
    assert str(local.max_len) in str(e.value)


@pytest.mark.parametrize("bad", [{"logit_bias": {"999999": 1}}, {"top_p": 7}, {"max_tokens": 10**9}])
def test_one_bad_request_never_hurts_another(bad: dict[str, Any], client: openai.OpenAI) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        good = pool.submit(lambda: client.chat.completions.create(**ASK))
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**ASK | bad)
        assert good.result().choices[0].message.content == "The capital of France is Paris."


def test_a_crowd_of_which_some_leave_is_answered_and_leaves_nothing_behind(client: openai.OpenAI, local: Local) -> None:
    rng = random.Random(1)
    told = "Paris"

    def visit(seed: int) -> str | None:
        if seed % 3 == 0:
            stream = client.chat.completions.create(
                **ASK | {"max_tokens": 500}, stream=True, extra_body={"ignore_eos": True}
            )
            for _ in zip(range(rng.randrange(6)), stream, strict=False):
                pass
            stream.close()
            return None
        return client.chat.completions.create(**ASK).choices[0].message.content

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = [a for a in pool.map(visit, range(48)) if a is not None]
    assert len(answers) == 32
    assert all(told in answer for answer in answers)
    eventually(lambda: all_free(local.loop.engine), 30)


def test_completions_continue_text(client: openai.OpenAI) -> None:
    create: Callable[..., Any] = client.completions.create
    reply = create(
        model="smollm2-135m", prompt="The days of the week are Monday, Tuesday,", max_tokens=2, temperature=0
    )
    assert reply.choices[0].text.startswith(" Wednesday")


CITY = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 24}, "people": {"type": "integer", "maximum": 99_999_999}},
    "required": ["name", "people"],
    "additionalProperties": False,
}


def asked_for(schema: Any, *, strict: bool) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}


def test_a_hot_answer_keeps_its_schema_streamed_or_not(client: openai.OpenAI) -> None:
    ask = ASK | {"temperature": 2, "seed": 3, "max_tokens": 200, "response_format": asked_for(CITY, strict=True)}
    whole = client.chat.completions.create(**ask).choices[0]
    assert whole.finish_reason == "stop"
    assert [*json.loads(whole.message.content or "")] == ["name", "people"]
    chunks = [*client.chat.completions.create(**ask, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content


def test_what_cannot_be_enforced_is_refused_when_strict_and_told_when_not(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"host": {"format": "hostname", "type": "string", "pattern": "^-[a-z]{2}$"}},
    }
    schema |= {"required": ["host"], "additionalProperties": False}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**ASK, response_format=asked_for(schema, strict=True))
    assert refused.value.code == "invalid_json_schema"
    assert "`format` at #/properties/host" in str(refused.value)
    (choice,) = client.chat.completions.create(**ASK, response_format=asked_for(schema, strict=False)).choices
    assert choice.finish_reason == "stop"
    assert choice.model_extra
    assert "#/host" in choice.model_extra["flaw"]


def test_a_company_of_forms_is_answered_as_each_alone(client: openai.OpenAI, local: Local) -> None:
    formats: list[dict[str, Any]] = [
        {"response_format": asked_for(CITY, strict=True)},
        {"response_format": {"type": "json_object"}},
        {"extra_body": {"guided_choice": ["Paris", "London", "Rome"]}},
        {"extra_body": {"guided_regex": r"[A-Z][a-z]{2,9}, \d{2}"}},
        {},
    ]
    asks = [ASK | {"temperature": 1, "seed": k, "max_tokens": 40} | formats[k % 5] for k in range(15)]

    def text(ask: dict[str, Any]) -> str | None:
        return client.chat.completions.create(**ask).choices[0].message.content

    alone = [text(ask) for ask in asks]
    with concurrent.futures.ThreadPoolExecutor(15) as pool:
        assert [*pool.map(text, asks)] == alone
    assert {alone[2], alone[7], alone[12]} <= {"Paris", "London", "Rome"}
    eventually(lambda: all_free(local.loop.engine))
