"""The one renderer: what the trainer trains on is what the server asks and the model answers, and nobody types markup."""

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import hypothesis.strategies as st
import pytest
from chat_tiny import CONTROL, TEMPLATES, write_model
from hypothesis import given, settings

from myna.chat import Chat, ChatTemplate, Rendered
from myna.chat.dialects import dialect
from myna.records import ChatError, Conversation, Document, Image, Message, RequestError, Text, Tokens, ToolCall

FAMILIES = {
    "chatml": "byte_level",
    "llama3": "byte_level",
    "llama2": "metaspace_legacy",
    "mistral": "metaspace_first",
    "gemma": "metaspace_never",
    "phi3": "metaspace_legacy",
    "qwen3": "byte_level",
    "r1": "byte_level",
}
TALK = Conversation.of(
    ("user", "Hello, how are you?"), ("assistant", "Fine."), ("user", "今天天气很好吗？"), ("assistant", "很好。 Yes")
)
TOOL = {"type": "function", "function": {"name": "weather", "description": "天气", "parameters": {"type": "object"}}}


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def path(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp(family), FAMILIES[family], family)


@pytest.fixture(scope="session")
def chat(path: Path) -> Chat:
    return Chat.load(path)


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return Chat.load(write_model(tmp_path_factory.mktemp("qwen3"), "byte_level", "qwen3"))


@cache
def oracle(path: Path):
    return pytest.importorskip("transformers").PreTrainedTokenizerFast.from_pretrained(path)


@pytest.mark.parametrize("said", ["Fine", " two blanks  ", "很好。", "```json\n{", "<|im_end|> [/INST]", "line\n"])
def test_an_answer_that_is_begun_is_the_prompt_and_then_its_words(chat: Chat, family: str, said: str) -> None:
    """As they are: nothing is trimmed, and what is typed is no control token."""
    asked = TALK + Message("user", "And?")
    begun = chat.render(replace(asked + Message("assistant", said), continues=True))
    prompt = chat.render(asked)
    assert begun.begun
    assert not begun.open_reasoning
    assert begun.ids[: len(prompt.ids)] == prompt.ids
    assert begun.segments[-1].text == said
    rest = begun.ids[len(prompt.ids) :]
    if prompt.open_reasoning:
        assert "".join(s.text for s in begun.segments).endswith("\n</think>\n\n" + said)
    else:
        data = b"".join(map(chat.tokenizer.piece, rest))
        assert data.decode() in (said, " " + said)  # the blank that tokenizers like Llama's put before a text
        assert not {*rest} & chat.stop_ids
    sampled = tuple(chat.tokenizer.encode(" more"))
    stream = chat.text_stream(begun=True)
    assert (
        "".join([*(stream.push(id).text for id in sampled), stream.finish().text])
        == b"".join(map(chat.tokenizer.visible, sampled)).decode()
    )


@pytest.mark.parametrize(
    "last", [Message("user", "x"), Message("assistant", "x", "thought"),
             Message("assistant", "", tool_calls=(ToolCall("a", "f", "{}"),))],
)  # fmt: skip
def test_only_words_of_the_assistant_can_be_gone_on_with(qwen3: Chat, last: Message) -> None:
    with pytest.raises(RequestError) as e:
        qwen3.render(Conversation((Message("user", "Hi"), last), continues=True))
    assert e.value.param == "messages.1"


def words(chat: Chat, r: Rendered, weight: int = 1) -> str:
    """What the tokens of this weight read, control tokens included."""
    return b"".join(chat.tokenizer.piece(id) for id, w in zip(r.ids, r.weights, strict=True) if w == weight).decode()


def prompts(c: Conversation) -> list[Conversation]:
    """The conversation as it stood before each of the assistant's turns."""
    return [replace(c, messages=c.messages[:i]) for i, m in enumerate(c.messages) if m.role == "assistant"]


@pytest.mark.parametrize("open_turn", [True, False])
@pytest.mark.parametrize("turns", [1, 3, 4])
def test_ids_are_transformers_own(chat: Chat, path: Path, open_turn: bool, turns: int) -> None:
    c = replace(TALK, messages=TALK.messages[:turns])
    rows = [{"role": m.role, "content": m.text} for m in c.messages]
    want = oracle(path).apply_chat_template(rows, add_generation_prompt=open_turn, return_dict=False)
    assert list(chat.render(c, open_turn=open_turn).ids) == list(want)


def test_a_prompt_begins_what_is_trained_on(chat: Chat, family: str) -> None:
    whole = chat.render(TALK, open_turn=False).ids
    for before in prompts(TALK)[: 1 if family in ("qwen3", "r1") else None]:  # these two rewrite history, see below
        ids = chat.render(before).ids
        if family == "r1":  # its prompt opens <think>, which its history never shows
            ids = ids[: ids.index(chat.tokenizer.special["<think>"])]
        assert whole[: len(ids)] == ids


def test_training_ids_are_prompt_plus_sampled_plus_end(chat: Chat) -> None:
    """Turn by turn; the sampled ids are cut as no tokenizer would, and must come back as they are."""
    c = Conversation.of(("user", "Hello"))
    for question in ("再来一次", "Once more"):
        prompt = chat.render(c)
        text = "</think>Fine 好." if prompt.open_reasoning else "Fine 好."
        ids = tuple(id for char in text for id in chat.tokenizer.encode_run(char).ids)
        c += Message("assistant", "Fine 好.", tokens=Tokens(ids))
        whole = chat.render(c, open_turn=False)
        assert whole.ids[: len(prompt.ids) + len(ids)] == prompt.ids + ids
        assert whole.ids[len(prompt.ids) + len(ids)] in chat.stop_ids
        c += Message("user", question)


def test_a_sampled_stop_token_ends_the_turn_once(chat: Chat) -> None:
    c = Conversation.of(("user", "Hello"))
    prompt = chat.render(c)
    start = chat.tokenizer.encode_run("</think>").ids if prompt.open_reasoning else []
    ids = (*start, *chat.tokenizer.encode_run("Fine").ids, min(chat.stop_ids))
    whole = chat.render(c + Message("assistant", "Fine", tokens=Tokens(ids)), open_turn=False)
    assert whole.ids[: len(prompt.ids) + len(ids)] == prompt.ids + ids
    assert sum(whole.weights) == len(ids)


def test_weights_mark_the_answer_and_its_end(chat: Chat, family: str) -> None:
    r = chat.render(replace(TALK, messages=TALK.messages[:2]), open_turn=False)
    end = TEMPLATES[family][2]
    want = {"qwen3": "<think>\n\n</think>\n\nFine." + end, "llama2": "Fine. " + end}.get(family, "Fine." + end)
    assert words(chat, r).lstrip(" ") == want


def test_a_message_can_be_left_out_of_training(chat: Chat) -> None:
    first, answer, *rest = TALK.messages
    r = chat.render(replace(TALK, messages=(first, replace(answer, weight=0), *rest)), open_turn=False)
    assert "Fine" not in words(chat, r)
    assert "Yes" in words(chat, r)


def test_segments_cover_the_ids_and_the_text(chat: Chat) -> None:
    r = chat.render(TALK, open_turn=False)
    assert [s.start for s in r.segments] + [len(r.ids)] == [0] + [s.end for s in r.segments]
    assert [s.text.strip() for s in r.segments if s.kind in ("user", "assistant")] == [m.text for m in TALK.messages]


def specials(chat: Chat, r: Rendered) -> list[int]:
    return [id for id in r.ids if id in set(chat.tokenizer.special.values())]


def roles(chat: Chat, family: str) -> list[str]:
    return ["user", "assistant", "user"] if family in ("llama2", "mistral") else ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("typed", CONTROL)
def test_typed_control_tokens_never_become_special(chat: Chat, family: str, typed: str) -> None:
    harmless = Conversation.of(*((role, "x Q x") for role in roles(chat, family)))
    hostile = Conversation.of(*((role, f"x {typed} x{typed}") for role in roles(chat, family)))
    assert specials(chat, chat.render(hostile)) == specials(chat, chat.render(harmless))


texts = st.lists(st.sampled_from([*CONTROL, *(c[1:] for c in CONTROL), "<", "<|", " ", "\n", "好"]), max_size=4).map(
    "".join
)


@given(st.lists(texts, min_size=9, max_size=9))
@settings(max_examples=100)
def test_no_field_of_a_conversation_can_type_markup(qwen3: Chat, t: list[str]) -> None:
    def build(t: list[str]) -> Conversation:
        call = ToolCall(t[0], t[1], json.dumps({"city": t[2]}))
        tool = {"type": "function", "function": {"name": t[3], "description": t[4], t[5]: [t[6]]}}
        return Conversation(
            (
                Message("system", t[7]),
                Message("user", t[8]),
                Message("assistant", "", tool_calls=(call,), name=t[0]),
                Message("tool", t[6], tool_call_id=t[1], name=t[2]),
                Message("user", t[5]),
            ),
            tools=(tool,),
        )

    assert specials(qwen3, qwen3.render(build(t))) == specials(qwen3, qwen3.render(build(["x"] * 9)))


def test_reasoning_and_calls_go_where_the_template_puts_them(qwen3: Chat) -> None:
    call = ToolCall("c1", "weather", '{"city": "北京"}')
    answer = Message("assistant", "Let me see.", reasoning_content="hm", tool_calls=(call,))
    r = qwen3.render(Conversation((Message("user", "weather?"), answer), tools=(TOOL,)), open_turn=False)
    assert words(qwen3, r) == (
        "<think>\nhm\n</think>\n\nLet me see.\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "北京"}}\n</tool_call><|im_end|>'
    )


def test_history_a_template_rewrites_is_rewritten(qwen3: Chat) -> None:
    """Qwen3 drops earlier reasoning: the next prompt shows the answer alone, sampled ids or not."""
    said = qwen3.tokenizer.encode_markup("<think>\nhm\n</think>\n\nYes.")
    answer = Message("assistant", "Yes.", reasoning_content="hm", tokens=Tokens(tuple(said)))
    c = Conversation((Message("user", "a"), answer))
    assert tuple(said) == chat_tail(qwen3.render(c, open_turn=False), qwen3.render(prompts(c)[0]), len(said))
    assert "hm" not in qwen3.tokenizer.decode(qwen3.render(c + Message("user", "b")).ids)


def chat_tail(whole: Rendered, prompt: Rendered, n: int) -> tuple[int, ...]:
    return whole.ids[len(prompt.ids) : len(prompt.ids) + n]


def test_tokens_that_disagree_with_their_text_are_refused(chat: Chat) -> None:
    ids = tuple(chat.tokenizer.encode("Hello"))
    c = Conversation((Message("user", "a"), Message("assistant", "Goodbye", tokens=Tokens(ids))))
    with pytest.raises(ChatError, match=r"messages\.1\.tokens"):
        chat.render(c, open_turn=False)


def test_a_turn_that_a_stop_string_cut_is_history_as_it_was_shown_and_not_trained_on(chat: Chat) -> None:
    ids = tuple(chat.tokenizer.encode("Hello there"))
    cut = (Message("user", "a"), Message("assistant", "Hello", tokens=Tokens(ids)), Message("user", "b"))
    shown = tuple(replace(m, tokens=None) for m in cut)
    assert chat.render(Conversation(cut)).ids == chat.render(Conversation(shown)).ids
    with pytest.raises(ChatError, match=r"messages\.1\.tokens"):
        chat.render(Conversation(cut[:2]), open_turn=False)


def test_an_open_reasoning_block_is_noticed(chat: Chat, family: str) -> None:
    assert chat.render(Conversation.ask("Hello")).open_reasoning == (family == "r1")


def test_a_typed_think_does_not_open_reasoning(chat: Chat) -> None:
    assert not chat.render(Conversation.ask("<think>"), open_turn=False).open_reasoning


def test_the_streams_text_is_the_message(chat: Chat) -> None:
    ids = chat.tokenizer.encode_run(" Hello 世界 🙂").ids
    stream = chat.text_stream()
    said = "".join([stream.push(id).text for id in ids] + [stream.finish().text])
    assert said == ("Hello 世界 🙂" if chat.tokenizer.strips_blank else " Hello 世界 🙂")


def test_a_base_model_says_so_and_still_continues(tmp_path: Path) -> None:
    chat = Chat.load(write_model(tmp_path, "byte_level"))
    with pytest.raises(ChatError, match="no chat template"):
        chat.render(Conversation.ask("Hello"))
    assert chat.prompt(Document("Hello")).ids == tuple(chat.tokenizer.encode("Hello"))


def test_a_documents_own_ids_are_the_prompt(chat: Chat) -> None:
    assert chat.prompt(Document("Hello", tokens=Tokens((5, 6)))).ids == (5, 6)


CALLS = Conversation.ask("Hello", tools=(TOOL,)) + Message("assistant", tool_calls=(ToolCall("c1", "weather", "{}"),))
RESULTS = CALLS + Message("tool", "Rain.", tool_call_id="c1") + Message("user", "And now?")


def test_tools_are_never_dropped(chat: Chat, family: str) -> None:
    told = chat.tokenizer.decode(chat.render(Conversation.ask("Hello", tools=(TOOL,))).ids)
    assert "天气" in told
    assert "Hello" in told
    assert chat.tools_in
    assert ("our words" in chat.tools_in) == (family != "qwen3")


def test_where_a_template_takes_no_tools_calls_and_results_are_words_of_turns_it_takes(chat: Chat, family: str) -> None:
    said = chat.tokenizer.decode(chat.render(RESULTS).ids)
    calls = "".join(chat.dialect.write(CALLS.messages[1].tool_calls))
    places = [said.rindex(words) for words in ("Hello", calls.split("\n")[1], "Rain.", "And now?")]
    assert places == sorted(places)
    assert (chat.dialect.name == "generic") == (family != "qwen3")
    with_system = replace(RESULTS, messages=(Message("system", "Be kind."), *RESULTS.messages))
    if "system turn" in (chat.tools_in or ""):
        both = chat.tokenizer.decode(chat.render(with_system).ids)
        assert both.index("Be kind.") < both.index("天气") < both.index("Hello")


def test_a_call_is_trained_on_as_it_was_sampled_whoever_told_of_the_tools(chat: Chat, family: str) -> None:
    talk = Conversation.ask("Hello", tools=(TOOL,))
    call = "".join(chat.dialect.write(CALLS.messages[1].tool_calls))
    prompt = chat.render(talk).ids
    thought = "</think>" if family == "r1" else ""
    sampled = (*chat.tokenizer.encode(thought + call), *list(chat.stop_ids)[:1])
    answer = Message("assistant", tool_calls=CALLS.messages[1].tool_calls, tokens=Tokens(sampled))
    assert chat.render(talk + answer, open_turn=False).ids[: len(prompt) + len(sampled)] == prompt + sampled
    following = chat.render(talk + answer + Message("tool", "Rain.", tool_call_id="c1")).ids
    assert family == "r1" or following[: len(prompt) + len(sampled)] == prompt + sampled


def test_a_tool_cannot_type_markup(chat: Chat, family: str) -> None:
    typed = {**TOOL, "function": TOOL["function"] | {"description": " ".join(CONTROL)}}
    plain, odd = (chat.render(Conversation.ask("Hello", tools=(tool,))) for tool in (TOOL, typed))
    assert specials(chat, plain) == specials(chat, odd)


def test_a_model_that_was_taught_ids_of_a_form_is_shown_them(qwen3: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{% for m in messages %}{% for c in m.tool_calls or [] %}[{{ c.id }}]{% endfor %}{{ m.tool_call_id }};{% endfor %}{{ tools }}"
    monkeypatch.setattr(qwen3, "template", ChatTemplate(source))
    for name, form in (
        ("mistral", r"\[([a-zA-Z0-9]{9})\];\1;"),
        ("kimi_k2", r"\[(functions\.weather:0)\];\1;"),
        ("hermes", r"\[(c1)\];\1;"),
    ):
        monkeypatch.setattr(qwen3, "dialect", dialect(name))
        said = qwen3.tokenizer.decode(qwen3.render(RESULTS, open_turn=False).ids)
        assert re.search(form, said), said
    kept = replace(
        CALLS, messages=(CALLS.messages[0], Message("assistant", tool_calls=(ToolCall("abcDEF123", "weather", "{}"),)))
    )
    monkeypatch.setattr(qwen3, "dialect", dialect("mistral"))
    assert "[abcDEF123]" in qwen3.tokenizer.decode(qwen3.render(kept, open_turn=False).ids)


@pytest.mark.parametrize("arguments", ["{'a'", "[" * 100_000, "", "5"])
def test_whatever_a_client_says_was_called_is_shown(chat: Chat, arguments: str) -> None:
    call = Message("assistant", tool_calls=(ToolCall("c1", "weather", arguments),))
    assert "weather" in chat.tokenizer.decode(chat.render(Conversation.ask("Hello", tools=(TOOL,)) + call).ids)


def test_half_a_character_in_a_call_is_refused_by_its_place(chat: Chat) -> None:
    call = Message("assistant", tool_calls=(ToolCall("c1", "weather", "\ud800"),))
    with pytest.raises(RequestError) as e:
        chat.render(Conversation.ask("Hello") + call)
    assert e.value.param == "messages.1.tool_calls.0.function.arguments"


def test_strict_is_said_to_the_server_and_not_to_the_model(qwen3: Chat) -> None:
    strict = {**TOOL, "function": TOOL["function"] | {"strict": True}}
    prompts = [qwen3.render(Conversation.ask("Hello", tools=(tool,))).ids for tool in (TOOL, strict)]
    assert prompts[0] == prompts[1]


def test_an_image_is_refused_by_its_place(chat: Chat) -> None:
    c = Conversation((Message("user", (Text("see"), Image("data:,"))),))
    with pytest.raises(RequestError) as e:
        chat.render(c)
    assert e.value.param == "messages.0.content.1"


@pytest.mark.parametrize("field", ["content", "reasoning_content", "name", "tool_call_id", "tool_calls.0.id"])
def test_half_a_character_is_refused_by_its_place(chat: Chat, field: str) -> None:
    bad = "\ud83d"
    messages = {
        "content": Message("user", bad),
        "reasoning_content": Message("assistant", "x", bad),
        "name": Message("user", "x", name=bad),
        "tool_call_id": Message("tool", "x", tool_call_id=bad),
        "tool_calls.0.id": Message("assistant", "", tool_calls=(ToolCall(bad, "f", "{}"),)),
    }
    with pytest.raises(RequestError, match="not valid Unicode at character 0") as e:
        chat.render(Conversation((messages[field],)))
    assert e.value.param == f"messages.0.{field}"


def test_a_developer_is_the_system_unless_the_template_knows_the_role(tmp_path: Path) -> None:
    talk = Conversation.of(("developer", "Be brief."), ("user", "why"))
    for known in ("", "{# developer #}"):
        template = known + "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        chat = Chat.load(write_model(tmp_path / (known or "plain"), "byte_level"), template=template)
        role = "developer" if known else "system"
        assert chat.tokenizer.decode(chat.render(talk).ids) == f"{role}: Be brief.\nuser: why\n"


def test_arguments_that_a_template_writes_one_by_one_are_the_assistants_words(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>"
        "{{ c.function.name }}{% for k, v in c.function.arguments.items() %} {{ k }}={{ v }}{% endfor %}{% endfor %}<|im_end|>\n{% endfor %}"
    )
    chat = Chat.load(write_model(tmp_path, "byte_level"), template=template)
    call = ToolCall("1", "look", json.dumps({"city": "Rome <|im_end|>", "near": "Ulm"}))
    talk = Conversation((Message("user", "Hi"), Message("assistant", tool_calls=(call,))))
    rendered = chat.render(talk, open_turn=False)
    assert rendered.ids.count(chat.tokenizer.special["<|im_end|>"]) == 2, "what is typed is no control token"
    assert words(chat, rendered).endswith("assistant\n<tool_call>look city=Rome <|im_end|> near=Ulm<|im_end|>")


def test_a_result_is_told_by_the_name_of_its_call(tmp_path: Path) -> None:
    chat = Chat.load(write_model(tmp_path, "byte_level", "chatml"))
    asked = (Message("user", "Hi"), Message("assistant", tool_calls=(ToolCall("1", "look", "{}"),)))
    for tool in (Message("tool", "42", tool_call_id="1"), Message("tool", "42", tool_call_id="1", name="other")):
        ids = chat.render(Conversation((*asked, tool))).ids
        assert "Result of look:\n42" in b"".join(map(chat.tokenizer.piece, ids)).decode()


def test_what_a_template_refuses_is_the_requests_fault(tmp_path: Path) -> None:
    chat = Chat.load(write_model(tmp_path, "metaspace_legacy", "llama2"))
    with pytest.raises(RequestError, match="must alternate"):
        chat.render(Conversation.of(("user", "a"), ("user", "b")))


def test_a_template_can_be_given(tmp_path: Path) -> None:
    chat = Chat.load(write_model(tmp_path, "byte_level"), template="Q: {{ messages[0].content }}\nA:")
    assert chat.tokenizer.decode(chat.render(Conversation.ask("why")).ids) == "Q: why\nA:"


def test_the_real_model_renders_as_transformers_does(smollm2: Path) -> None:
    chat = Chat.load(smollm2)
    rows = [{"role": m.role, "content": m.text} for m in TALK.messages]
    want = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(smollm2).apply_chat_template(rows)
    assert list(chat.render(TALK, open_turn=False).ids) == want["input_ids"]
