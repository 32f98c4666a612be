"""Tools from the request to the answer: what is offered, what is bound, and what the answer says it was."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import jsonschema_rs
import numpy as np
import pytest
from hypothesis import example, given, settings

from myna.chat import Chat
from myna.chat.dialects import Dialect, dialect, dialects
from myna.chat.grammar import Arguments, calls_form
from myna.chat.scan import Begun
from myna.chat.stream import TextStream
from myna.forms import Compiled, Compiler
from myna.provider import complete
from myna.provider.local import Loading, Local, load
from myna.provider.tools import bound_calls, bound_text
from myna.provider.wire.request import Ask
from myna.provider.wire.response import ChatWriter
from myna.records import (
    Conversation,
    Delta,
    Form,
    Json,
    Message,
    MynaError,
    RequestError,
    Sampling,
    ToolCall,
    ToolChoice,
    fold,
)


def tool(name: str, strict: bool = False, **properties: Json) -> Json:
    parameters = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return {
        "type": "function",
        "function": {"name": name, "parameters": parameters} | ({"strict": True} if strict else {}),
    }


WEATHER = tool("get_weather", city={"type": "string"}, unit={"enum": ["c", "f"]})
ADD = tool("add", a={"type": "integer"}, b={"type": "integer"})
PARIS = ToolCall("", "get_weather", '{"city": "Paris", "unit": "c"}')
TOWN = ToolCall("", "get_weather", '{"town": "Paris"}')
SAID = (
    "```python\ndef f(a):\n    return {a: [a]}\n```",
    '{"name": "John", "age": 30}',
    '```json\n{\n  "name": "identify",\n  "arguments": {}\n}\n```',
    '{"name": "say \\"get_weather\\"", "path": "a\\\\b\\n"}',
    "[1, 2]",
    "`get_weather` tells the weather.",
)
"""No calls of a tool that there is, though they begin like some."""
LOOSE = (
    '```json\n{\n    "name" : "get_weather",\n\t"arguments":\n %s}\n```',
    '{"name": "get_weather", "arguments": %s}',
    '[{"name": "get_weather", "arguments": %s}]',
    '```json\n[\n  {\n"name":"get_weather", "arguments": %s}]\n```',
    ' \n\n{ "name":"get_weather","arguments": %s}',
)
NEVER = (
    '{"arguments": {"town": "Paris"}, "name": "get_weather"}',
    '{"n\\u0061me": "get_weather", "arguments": {"town": "Paris"}}',
    '{"name": "get\\u005fweather", "arguments": {"town": "Paris"}}',
    '{"type": "function", "function": {"name":\x0b"get_weather", "parameters": {"town": "Paris"}}}',
)
PERSON = Conversation.ask("Describe a person as JSON with name and age.")


@pytest.fixture(scope="module")
def chat(smollm2: Path) -> Chat:
    return Chat.load(smollm2)


@pytest.fixture(scope="module")
def forms(chat: Chat) -> Compiler:
    return Compiler(chat.tokenizer, chat.stop_ids)


def allows(chat: Chat, compiled: Compiled, text: str) -> bool:
    matcher = compiled.matcher()
    return all(matcher.advance(id) for id in chat.tokenizer.encode(text)) and matcher.may_end


def called(speaks: Dialect, text: str) -> list[str]:
    """The tools that an answer calls."""
    events = speaks.reader({"get_weather": {}, "add": {}}).push(text, last=True)
    return [event.name for event in events if isinstance(event, Begun)]


@pytest.mark.parametrize("name", dialects())
@pytest.mark.parametrize("mode", ["auto", "required", "named"])
def test_a_bound_call_is_written_as_the_model_writes_it_and_fits_its_schema(
    chat: Chat, forms: Compiler, monkeypatch: pytest.MonkeyPatch, name: str, mode: Any
) -> None:
    speaks = dialect(name)
    monkeypatch.setattr(chat, "dialect", speaks)
    strict = WEATHER["function"] | {"strict": True}
    talk = Conversation.ask("x", tools=(ADD, {"type": "function", "function": strict}))
    sampling = Sampling(tool_choice=ToolChoice(mode, "get_weather" if mode == "named" else ""))
    form = bound_calls(chat, forms, talk, sampling)
    assert form
    compiled = forms.compile(form)
    writer = speaks

    def wrote(*calls: ToolCall) -> str:
        return "".join(writer.write(calls))

    assert allows(chat, compiled, wrote(PARIS))
    assert allows(chat, compiled, wrote(PARIS, PARIS)) == (mode != "named")
    assert not allows(chat, compiled, wrote(TOWN))
    if mode == "required":
        form = bound_calls(chat, forms, talk, Sampling(tool_choice=ToolChoice(mode, parallel=False)))
        assert form
        assert not allows(chat, forms.compile(form), wrote(PARIS, PARIS))
    unknown = wrote(replace(PARIS, name="unknown"))
    assert allows(chat, compiled, unknown) == (mode == "auto" and not called(speaks, unknown))
    words = f"{speaks.text}Hello there."
    assert allows(chat, compiled, words) == (mode == "auto")
    assert not allows(chat, compiled, f"{words}\n{'>>>' if name == 'functionary' else ''}{wrote(TOWN)}")
    if mode == "auto" and not speaks.text:
        for said in SAID:
            assert called(speaks, said) == []
            assert allows(chat, compiled, said), said
        for call in LOOSE:
            assert allows(chat, compiled, call % '{"city": "Paris", "unit": "c"}'), call
            assert not allows(chat, compiled, call % '{"town": "Paris"}'), call
        for call in NEVER:
            assert called(speaks, call) == ["get_weather"]
            assert not allows(chat, compiled, call), call
    if speaks.musing:
        opens, closes = speaks.musing
        assert allows(chat, compiled, f"{opens}Hm, {closes}{opens}so.{closes}{wrote(PARIS)}")
        assert not allows(chat, compiled, f"{opens}Hm.{closes}{wrote(TOWN)}")
        assert not allows(chat, compiled, f"{opens}{wrote(TOWN)}{closes}{wrote(PARIS)}")


def test_where_a_control_token_announces_calls_the_model_may_say_something_first(chat: Chat, forms: Compiler) -> None:
    announces = chat.tokenizer.special["<repo_name>"]  # this tokenizer has no token for hermes' marker
    fits = Arguments(
        forms.lower('{"type": "object", "required": ["a"], "properties": {"a": {"type": "null"}}}', strict=True)
    )
    form = calls_form(dialect("hermes"), {"f": fits}, ToolChoice(), {"<tool_call>": announces}, chat.stop_ids)
    for said in ("", "Let me see.\n", "```python\nf(1)\n```\n"):
        for arguments in ('{"a": null}', '{"a": 1}'):
            matcher = forms.compile(form).matcher()
            call = f'\n{{"name": "f", "arguments": {arguments}}}\n</tool_call>'
            ids = [*chat.tokenizer.encode(said), announces, *chat.tokenizer.encode(call)]
            assert all(map(matcher.advance, ids)) == (arguments == '{"a": null}'), said


ATOMS = ["```json\n", "```", "{", "}", "[", "]", "(", ")", '"name"', '"arguments"', '"parameters"', '"function"', ":", ",", " ", "\n", '"get_weather"',
         "get_weather", '{"city": "Paris", "unit": "c"}', '{"town": 1}', "city='Rome', unit='c'", "<tool_call>", "<function=", ">", "Yes.", '"', "\\"]  # fmt: skip


@pytest.mark.parametrize("name", ["pythonic", "gemma"])
def test_a_call_in_llamas_old_spelling_is_no_text(
    chat: Chat, forms: Compiler, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(chat, "dialect", dialect(name))
    strict = {"type": "function", "function": WEATHER["function"] | {"strict": True}}
    form = bound_calls(chat, forms, Conversation.ask("x", tools=(strict,)), Sampling())
    assert form
    text = "".join(dialect(name).write([TOWN])).replace("get_weather(", "get_weather.call(")
    assert called(dialect(name), text) == ["get_weather"]
    assert not allows(chat, forms.compile(form), text)


def test_calls_that_a_stop_token_ends_come_one_at_a_time() -> None:
    """gpt-oss ends every call with <|call|>, and with it its turn."""
    harmony, found = dialect("harmony"), {"f": Arguments("start: /x/")}
    control = {marker: id for id, marker in enumerate(sorted(harmony.markers), start=5)}
    for stops, repeats in (({control["<|call|>"]}, False), ({control["<|return|>"]}, True)):
        form = calls_form(harmony, found, ToolChoice("required"), control, stops)
        assert ("call_0)*" in form.source) == repeats


@pytest.mark.parametrize("name", [name for name in dialects() if not dialect(name).text])
@given(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=14).map("".join))
@settings(max_examples=60)
@example('{"name": "get_weather", "arguments": {"town": 1}}')
@example('Yes.\n```json\n[{"name": "get_weather", "arguments": {"city": "Paris", "unit": "c"}}]\n```')
@example('{"name": "get_weather"')
def test_whatever_a_strict_tool_leaves_to_the_model_calls_it_as_its_schema_allows_or_not_at_all(
    chat: Chat, forms: Compiler, name: str, text: str
) -> None:
    speaks, schema = dialect(name), WEATHER["function"]["parameters"]
    strict = {"type": "function", "function": WEATHER["function"] | {"strict": True}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat, "dialect", speaks)
        form = bound_calls(chat, forms, Conversation.ask("x", tools=(strict,)), Sampling())
    assert form
    if allows(chat, forms.compile(form), text):
        stream = TextStream(lambda _: text.encode(), reader=speaks.reader({"get_weather": schema}))
        delta, rest = stream.push(0), stream.finish()
        found = fold([Delta(tool_calls=delta.calls), Delta(tool_calls=rest.calls)]).candidates[0].messages[0].tool_calls
        assert all(jsonschema_rs.is_valid(schema, json.loads(call.arguments)) for call in found)


def test_many_strict_tools_leave_room_for_a_long_text(chat: Chat, forms: Compiler) -> None:
    """A mask costs what the lexer has to look at; beyond llguidance's limit it would be an error in mid-answer."""
    tools = tuple(tool(f"get_some_thing_{i}", strict=True, city={"type": "string"}) for i in range(128))
    form = bound_calls(chat, forms, Conversation.ask("x", tools=tools), Sampling())
    assert form
    matcher = forms.compile(form).matcher()
    for id in chat.tokenizer.encode("Let me see.\n".join(SAID)):
        matcher.fill(np.zeros(-(-chat.tokenizer.vocab_size // 32), np.uint32))
        assert matcher.advance(id)
    assert matcher.may_end


def test_calls_are_left_to_the_model_unless_something_binds_them(chat: Chat, forms: Compiler) -> None:
    talk = Conversation.ask("x", tools=(WEATHER,))
    assert bound_calls(chat, forms, talk, Sampling()) is None
    assert bound_calls(chat, forms, Conversation.ask("x"), Sampling(form=Form("json"))) is None


def test_a_strict_schema_that_cannot_be_enforced_is_refused_by_the_tools_place(chat: Chat, forms: Compiler) -> None:
    talk = Conversation.ask("x", tools=(WEATHER, tool("f", strict=True, a={"type": "nonsense"})))
    with pytest.raises(RequestError) as e:
        bound_calls(chat, forms, talk, Sampling())
    assert e.value.param == "tools.1.function.parameters"


def test_only_a_strict_tool_has_to_be_enforced_to_the_letter(chat: Chat, forms: Compiler) -> None:
    loose, strict = (tool("f", strict, a={"type": "string", "format": "hostname"}) for strict in (False, True))
    assert bound_calls(chat, forms, Conversation.ask("x", tools=(loose,)), Sampling(tool_choice=ToolChoice("required")))
    with pytest.raises(RequestError, match="format") as e:
        bound_calls(chat, forms, Conversation.ask("x", tools=(WEATHER, strict)), Sampling())
    assert e.value.param == "tools.1.function.parameters"


TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def local(smollm2: Path) -> Iterator[Local]:
    """The small model with a template that takes tools."""
    provider = load(str(smollm2), Loading(kv_gb=0.2))
    provider.chat = Chat.load(smollm2, template=TEMPLATE)
    yield provider
    provider.close()


def ask(local: Local, question: str, **sampling: Any) -> tuple[list[Delta], Message, str | None]:
    async def collect() -> list[Delta]:
        talk = Conversation.ask(question, tools=(WEATHER, ADD))
        return [d async for d in local.stream(talk, Sampling(temperature=1.5, seed=7, **sampling))]

    deltas = asyncio.run(collect())
    (candidate,) = fold(deltas).candidates
    return deltas, candidate.messages[0], candidate.finish_reason


def fits(call: ToolCall) -> bool:
    schema = {"get_weather": WEATHER, "add": ADD}[call.name]["function"]["parameters"]
    return bool(jsonschema_rs.is_valid(schema, json.loads(call.arguments)))


def test_the_dialect_is_told_from_the_template(local: Local) -> None:
    assert local.chat.dialect.name == "hermes"


@pytest.mark.parametrize("question", ["What is the weather in Rome?", "Hello!", "加一加"])
def test_required_calls_something_that_fits(local: Local, question: str) -> None:
    _, said, finish = ask(local, question, tool_choice=ToolChoice("required", parallel=False), max_tokens=400)
    assert (said.text, len(said.tool_calls), finish) == ("", 1, "tool_calls")
    assert fits(said.tool_calls[0])


@pytest.mark.parametrize("name", ["glm", "qwen3_coder", "pythonic", "gemma"])
def test_required_in_a_syntax_that_is_not_json_calls_something_that_fits(
    local: Local, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(local.chat, "dialect", dialect(name))
    _, said, finish = ask(local, "Add 2 and 3.", tool_choice=ToolChoice("required", parallel=False), max_tokens=200)
    assert (said.text, len(said.tool_calls)) == ("", 1)
    assert finish == "length" or fits(said.tool_calls[0])


def test_a_named_tool_is_called_once_and_ends_with_stop(local: Local) -> None:
    deltas, said, finish = ask(local, "Hello!", tool_choice=ToolChoice("named", "add"), max_tokens=400)
    assert ([call.name for call in said.tool_calls], said.text, finish) == (["add"], "", "stop")
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert (bool(pieces[0].id), pieces[0].name, pieces[0].arguments) == (True, "add", "")
    assert len(pieces) > 2
    assert all(not piece.id and not piece.name and piece.arguments for piece in pieces[1:])


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", "add")], ids=lambda c: c.mode)
@pytest.mark.parametrize("name", ["hermes", "generic", "glm", "functionary"])
def test_a_call_that_is_cut_says_nothing_and_ends_with_length(
    local: Local, monkeypatch: pytest.MonkeyPatch, name: str, choice: ToolChoice
) -> None:
    monkeypatch.setattr(local.chat, "dialect", dialect(name))
    for most in (1, 2, 4, 7, 9, 12):
        deltas, said, finish = ask(local, "Hello!", tool_choice=choice, max_tokens=most)
        assert ([delta.text for delta in deltas if delta.text], finish) == ([], "length")
        written = ChatWriter(Ask((Conversation.ask("Hello!", tools=(ADD,)),), Sampling()), "m").whole(deltas)
        assert written["choices"][0]["message"]["content"] is None
        assert written["choices"][0]["message"].get("tool_calls", []) == [call.to_json() for call in said.tool_calls]


def test_what_is_not_shown_of_a_cut_answer_is_what_must_be_a_call() -> None:
    strict = {"type": "function", "function": ADD["function"] | {"strict": True}}
    talk = Conversation.ask("x", tools=(strict,))
    assert bound_text(talk, Sampling()) == "calls"
    assert bound_text(talk, Sampling(tool_choice=ToolChoice("required"))) == "all"
    assert bound_text(Conversation.ask("x", tools=(ADD,)), Sampling()) == ""
    assert bound_text(talk, Sampling(form=Form("json"))) == ""


def test_none_leaves_the_tools_out(local: Local) -> None:
    deltas, said, _ = ask(local, "Hello!", tool_choice=ToolChoice("none"), max_tokens=3)
    assert said.tool_calls == ()
    assert deltas[-1].usage
    assert deltas[-1].usage.prompt_tokens == len(local.render(Conversation.ask("Hello!")).ids)


def test_a_tool_that_is_not_there_is_refused(local: Local) -> None:
    with pytest.raises(RequestError) as e:
        ask(local, "Hello!", tool_choice=ToolChoice("named", "fly"))
    assert e.value.param == "tool_choice"


def test_what_was_sampled_as_a_call_is_trained_on_id_for_id(local: Local) -> None:
    talk = Conversation.ask("Add 2 and 3.", tools=(WEATHER, ADD))
    prompt = local.render(talk)
    reply = asyncio.run(complete(local, talk, Sampling(seed=1, tool_choice=ToolChoice("named", "add"), max_tokens=400)))
    assert reply.message.tool_calls
    assert reply.candidates[0].tokens
    sampled = reply.candidates[0].tokens.ids
    trained = local.chat.render(talk + reply.message, open_turn=False)
    assert trained.ids[: len(prompt.ids) + len(sampled)] == prompt.ids + sampled
    wrong = replace(reply.message, tool_calls=(replace(reply.message.tool_calls[0], arguments='{"a": -1, "b": -1}'),))
    with pytest.raises(MynaError, match=r"messages\.1\.tokens"):
        local.chat.render(talk + wrong, open_turn=False)


@pytest.mark.slow
def test_the_default_model_calls_tools_unbound_and_bound(qwen_coder: Path) -> None:
    provider = load(str(qwen_coder), Loading(kv_gb=0.2))
    try:
        talk = Conversation.ask("What is the weather in Paris, in celsius?", tools=(WEATHER, ADD))
        for choice in (None, ToolChoice("required"), ToolChoice("named", "get_weather")):
            sampling = Sampling(temperature=0.0, max_tokens=80, tool_choice=choice)
            reply = asyncio.run(complete(provider, talk, sampling))
            assert [(call.name, json.loads(call.arguments)) for call in reply.message.tool_calls] == [
                ("get_weather", {"city": "Paris", "unit": "c"})
            ]
            assert reply.text == ""
            assert reply.candidates[0].finish_reason == ("stop" if choice and choice.mode == "named" else "tool_calls")
        json_answer = asyncio.run(
            complete(provider, replace(talk, messages=PERSON.messages), Sampling(temperature=0.0, max_tokens=60))
        )
        assert json_answer.message.tool_calls == ()
        assert '"age"' in json_answer.text
    finally:
        provider.close()
