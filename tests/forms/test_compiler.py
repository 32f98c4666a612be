"""Every kind of form: what it lets through, what it does not, and how it is refused."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from chat_tiny import write_model
from walking import allowed, chat_of, generates

from myna.chat import Chat
from myna.forms import Compiler
from myna.forms.compiler import KEPT, MAX_SOURCE, Reasoning
from myna.records import Form, RequestError

POINT = '{"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": false}'


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Chat, Compiler]:
    return chat_of(write_model(tmp_path_factory.mktemp("forms") / "tiny", "byte_level", "qwen3"))


def lets(tiny: tuple[Chat, Compiler], form: Form, text: str, reasoning: Reasoning = "none") -> bool:
    chat, compiler = tiny
    return generates(compiler.compile(form, reasoning), chat.tokenizer, text, chat.stop_ids)


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (Form("json"), ['{}', '{"a": [1, {"b": null}]}', '{"名": "鸟"}'], ["[]", "1", "{", '{"a": 1} ', "{'a': 1}"]),
        (Form("schema", POINT), ['{"x": 3}', '{\n  "x": 3\n}'], ['{"x": "3"}', "{}", '{"x": 3, "y": 1}', '{"x":    3}']),
        (Form("regex", r"\d{3}/[a-z]+"), ["123/abc", "123/a"], ["12/abc", "123/", "123/A", " 123/a"]),
        (Form("choice", '["yes", "yes, sir", "不"]'), ["yes", "yes, sir", "不"], ["no", "yes, ", "yesyes"]),
        (Form("grammar", 'start: "a" start "b" | "c"'), ["c", "acb", "aacbb"], ["ab", "aacb"]),
        (Form("grammar", 'root ::= "a" root "b" | "c"'), ["c", "acb", "aacbb"], ["ab", "aacb"]),
    ],
    ids=lambda value: value.kind if isinstance(value, Form) else "",
)  # fmt: skip
def test_what_has_the_form_can_be_said_and_nothing_else(
    tiny: tuple[Chat, Compiler], form: Form, good: list[str], bad: list[str]
) -> None:
    assert {text: lets(tiny, form, text) for text in good} == dict.fromkeys(good, True)
    assert {text: lets(tiny, form, text) for text in bad} == dict.fromkeys(bad, False)


@pytest.mark.parametrize(
    ("reasoning", "good", "bad"),
    [
        ("none", ['{"x": 1}'], ['<think>so</think>{"x": 1}', 'so</think>{"x": 1}']),
        ("open", ['so</think>{"x": 1}', '{"x": "y"}\n</think>\n\n{"x": 1}'], ['{"x": 1}', "so", "so</think>", "so</think>so"]),
        ("maybe", ['{"x": 1}', '<think>so\n</think>\n\n{"x": 1}'], ["so", "<think>so", 'so</think>{"x": 1}', "<think>so</think>so"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["byte_level", "plain markers"])
def test_the_form_begins_where_reasoning_ends(
    tmp_path: Path, kind: str, reasoning: Reasoning, good: list[str], bad: list[str]
) -> None:
    path = write_model(tmp_path / "model", "byte_level", "qwen3")
    if kind == "plain markers":  # a tokenizer that knows no <think>, and spells it
        spec = json.loads((path / "tokenizer.json").read_text())
        spec["added_tokens"] = [t for t in spec["added_tokens"] if "think" not in t["content"]]
        (path / "tokenizer.json").write_text(json.dumps(spec))
        (path / "chat_template.jinja").unlink()
        (path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    tiny = chat_of(path)
    assert ("<think>" in tiny[0].tokenizer.special) == (kind == "byte_level")
    form = Form("schema", POINT)
    assert {text: lets(tiny, form, text, reasoning) for text in good} == dict.fromkeys(good, True)
    assert {text: lets(tiny, form, text, reasoning) for text in bad} == dict.fromkeys(bad, False)


@pytest.mark.parametrize("kind", ["metaspace_legacy", "metaspace_first", "metaspace_never", "unigram"])
def test_the_blank_before_the_first_word_is_no_part_of_the_form(tmp_path: Path, kind: str) -> None:
    tiny = chat_of(write_model(tmp_path / kind, kind, "llama2"))
    form = Form("choice", '["yes", "no"]')
    assert lets(tiny, form, "yes")
    assert not lets(tiny, form, "maybe")


def test_stop_tokens_are_allowed_only_where_the_form_may_end(tiny: tuple[Chat, Compiler]) -> None:
    chat, compiler = tiny
    matcher = compiler.compile(Form("regex", "a(bc)*")).matcher()
    ends = []
    for id in chat.tokenizer.encode("a") + chat.tokenizer.encode("b") + chat.tokenizer.encode("c"):
        ends.append(bool(chat.stop_ids & allowed(matcher, chat.tokenizer.vocab_size)))
        assert matcher.advance(id)
    assert ends == [False, True, False]
    assert matcher.may_end
    assert not matcher.complete


def test_a_token_that_is_refused_changes_nothing_and_tokens_are_taken_back(tiny: tuple[Chat, Compiler]) -> None:
    chat, compiler = tiny
    matcher = compiler.compile(Form("schema", POINT)).matcher()
    ids = chat.tokenizer.encode('{"x": 3}')
    seen = []
    for id in ids:
        seen.append(allowed(matcher, chat.tokenizer.vocab_size))
        assert not matcher.advance(chat.tokenizer.encode("@")[0])
        assert matcher.advance(id)
    for back in range(1, len(ids)):
        matcher.rollback(1)
        assert allowed(matcher, chat.tokenizer.vocab_size) == seen[-back]


def test_what_is_compiled_is_kept_and_the_oldest_forgotten(tiny: tuple[Chat, Compiler]) -> None:
    chat, _ = tiny
    compiler = Compiler(chat.tokenizer, chat.stop_ids)
    first = compiler.compile(Form("choice", '["a"]'))
    assert compiler.compile(Form("choice", '["a"]')) is first
    assert compiler.compile(Form("choice", '["a"]'), "maybe") is not first
    for i in range(KEPT):
        compiler.compile(Form("choice", f'["{i}"]'))
    assert compiler.compile(Form("choice", '["a"]')) is not first


@pytest.mark.parametrize(
    ("form", "code", "says"),
    [
        (Form("schema", "{"), "invalid_json_schema", "not JSON"),
        (Form("schema", "[" * 100_000), "invalid_json_schema", "nested"),
        (Form("schema", '{"description": "' + "x" * MAX_SOURCE + '"}'), "invalid_json_schema", "at most"),
        (Form("regex", "[0-9"), "invalid_regex", "regex"),
        (Form("choice", "[]"), "invalid_choice", "list of texts"),
        (Form("choice", '["a", 1]'), "invalid_choice", "list of texts"),
        (Form("grammar", 'start: "a" b'), "invalid_grammar", "unknown name"),
        (Form("grammar", "root ::= ("), "invalid_grammar", "GBNF"),
    ],
)
def test_a_form_that_cannot_be_followed_is_refused(
    tiny: tuple[Chat, Compiler], form: Form, code: str, says: str
) -> None:
    with pytest.raises(RequestError, match=says) as refused:
        tiny[1].compile(replace(form, param="where.it.was"))
    assert (refused.value.code, refused.value.param) == (code, "where.it.was")


def test_threads_may_follow_one_form_at_once(tiny: tuple[Chat, Compiler]) -> None:
    chat, compiler = tiny
    form, found = compiler.compile(Form("schema", POINT)), []

    def follow() -> None:
        found.append(all(generates(form, chat.tokenizer, f'{{"x": {k}}}', chat.stop_ids) for k in range(20)))

    threads = [threading.Thread(target=follow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
