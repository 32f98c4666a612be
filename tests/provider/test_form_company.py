"""A form beside everything else a request may ask for: over the real engine, with answers that are given."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from chat_tiny import write_model

from myna.chat import Chat
from myna.chat.byte_chat import byte_chat
from myna.provider import complete
from myna.provider.local import Local
from myna.provider.replay import replay
from myna.records import Conversation, Form, Json, ProviderError, Reply, RequestError, Sampling, ToolChoice

HI = Conversation.ask("Hi")
POINT = Form("schema", json.dumps({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}))  # fmt: skip
GOOD = '{"x": 12}'
ADD: Json = {
    "type": "function",
    "function": {"name": "add", "strict": True, "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}},
}  # fmt: skip
CALLED = '```json\n{"name": "add", "arguments": {"a": 1}}\n```'
TOOLED = Conversation.ask("Hi", tools=(ADD,))


def ask(says: str | list[str], what: Conversation = HI, **sampling: Any) -> Reply:
    """The reply of a model that says this, one text for each candidate."""
    texts = [says] if isinstance(says, str) else says
    ids = [[*text.encode()] for text in texts]

    def answer(request: object, candidate: int) -> Sequence[int]:
        return ids[candidate]

    provider = replay(answer)
    try:
        return asyncio.run(complete(provider, what, Sampling(**{"form": POINT} | sampling)))
    finally:
        provider.close()


def test_reasoning_stands_before_the_form_and_is_not_part_of_it(tmp_path: Path) -> None:
    chat = Chat.load(write_model(tmp_path / "tiny", "byte_level", "qwen3"))
    texts = [f"<think>\n{{not it}}\n</think>\n\n{GOOD}", "<think>\nhm\n</think>\n\nso", GOOD]
    provider = replay([chat.tokenizer.encode_markup(text) for text in texts], chat=chat)
    try:
        reply = asyncio.run(complete(provider, HI, Sampling(form=POINT)))
        assert (reply.message.reasoning_content, reply.text) == ("{not it}", GOOD)
        assert reply.candidates[0].finish_reason == "stop"
        with pytest.raises(ProviderError, match="form"):
            asyncio.run(complete(provider, HI, Sampling(form=POINT)))
        assert asyncio.run(complete(provider, HI, Sampling(form=POINT))).text == GOOD
    finally:
        provider.close()


def test_an_answer_has_the_form_or_calls_and_nothing_else() -> None:
    reply = ask(GOOD, TOOLED)
    assert (reply.text, reply.message.tool_calls, reply.candidates[0].finish_reason) == (GOOD, (), "stop")
    reply = ask(CALLED, TOOLED)
    assert [(c.name, c.arguments) for c in reply.message.tool_calls] == [("add", '{"a": 1}')]
    assert (reply.text, reply.candidates[0].finish_reason) == ("", "tool_calls")
    for wrong in ("so", CALLED.replace("1", '"1"')):
        with pytest.raises(ProviderError, match="form"):
            ask(wrong, TOOLED)


def test_a_call_that_is_due_goes_before_the_form() -> None:
    reply = ask(CALLED, TOOLED, tool_choice=ToolChoice("required"))
    assert [c.name for c in reply.message.tool_calls] == ["add"]
    with pytest.raises(ProviderError, match="form"):
        ask(GOOD, TOOLED, tool_choice=ToolChoice("required"))
    assert ask(GOOD, TOOLED, tool_choice=ToolChoice("none")).text == GOOD


def test_logprobs_tell_of_every_token_of_the_form() -> None:
    reply = ask(GOOD, logprobs=2)
    assert b"".join(token.piece for token in reply.sampled[0])[: len(GOOD)] == GOOD.encode()
    assert all(token.logprob == 0.0 and len(token.top) == 1 for token in reply.sampled[0])


def test_each_candidate_follows_the_form_by_itself() -> None:
    reply = ask([GOOD, '{"x": 3}', '{"x": -4}'], n=3)
    assert [candidate.messages[-1].text for candidate in reply.candidates] == [GOOD, '{"x": 3}', '{"x": -4}']
    with pytest.raises(ProviderError, match="form"):
        ask([GOOD, "so"], n=2)


@pytest.mark.parametrize(
    ("more", "text", "finish"), [({"max_tokens": 5}, GOOD[:5], "length"), ({"stop": ("1",)}, '{"x": ', "stop")]
)
def test_an_answer_that_is_cut_is_no_whole_one_and_no_error(more: dict[str, Any], text: str, finish: str) -> None:
    reply = ask(GOOD, **more)
    assert (reply.text, reply.candidates[0].finish_reason) == (text, finish)


def test_a_call_beside_a_form_that_is_cut_is_told_by_length() -> None:
    reply = ask(CALLED, TOOLED, max_tokens=len('```json\n{"name": "add", "arguments": {"a'))
    assert [(c.name, c.arguments) for c in reply.message.tool_calls] == [("add", '{"a')]
    assert (reply.text, reply.candidates[0].finish_reason) == ("", "length")


def test_a_stream_that_is_left_early_frees_its_form_and_touches_no_other() -> None:
    provider = replay(lambda request, candidate: [*b'{"x": 1', *b"2" * 500])

    async def leave() -> None:
        async with aclosing(provider.stream(HI, Sampling(form=POINT, max_tokens=400))) as stream:
            async for delta in stream:
                if delta.text:
                    return

    async def all_of() -> Reply:
        await asyncio.gather(*(leave() for _ in range(8)))
        return await complete(provider, HI, Sampling(form=POINT, max_tokens=12))

    try:
        assert asyncio.run(all_of()).text == '{"x": 122222'
        blocks = provider.loop.engine.scheduler.blocks
        assert blocks.free == blocks.count
    finally:
        provider.close()


def test_a_batch_of_forms_answers_each_with_its_own() -> None:
    """Twelve at once, of three forms and none; one of them breaks its own, and one is refused."""
    texts = {1: GOOD, 2: "ab", 3: "yes", 4: "anything"}
    forms = {1: POINT, 2: Form("regex", "[ab]+"), 3: Form("choice", '["yes", "no"]'), 4: None}
    provider = replay(lambda request, candidate: [*texts[(request.sampling.seed or 0) % 10].encode()])

    async def one(kind: int, form: Form | None) -> Any:
        try:
            return (await complete(provider, HI, Sampling(form=form, seed=kind, max_tokens=40))).text
        except (ProviderError, RequestError) as e:
            return type(e)

    async def all_of() -> list[Any]:
        asked = [(kind, forms[kind]) for kind in (1, 2, 3, 4)] * 3
        return await asyncio.gather(*(one(*a) for a in [*asked, (2, POINT), (1, Form("regex", "("))]))

    try:
        *good, broken, refused = asyncio.run(all_of())
    finally:
        provider.close()
    assert good == [*texts.values()] * 3
    assert (broken, refused) == (ProviderError, RequestError)


@pytest.fixture
def local() -> Iterator[Local]:
    provider: Local = replay([GOOD] * 9, chat=byte_chat())
    yield provider
    provider.close()


def test_the_same_seed_and_form_are_the_same_answer(local: Local) -> None:
    replies = [asyncio.run(complete(local, HI, Sampling(form=POINT, seed=3))) for _ in range(2)]
    assert replies[0].text == replies[1].text == GOOD
    assert local.stats()["forms_compiled"] == 1, "and the form is compiled once"
