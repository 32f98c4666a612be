"""Every kind of form: what it lets through, what it does not, and how it is refused."""

import json
import random
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from chat_tiny import write_model
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, regex_to_lark
from schema_suite import WORDS
from schema_suite import generates as generates_bytes
from walking import allowed, chat_of, generates, walk

from myna.chat import Chat
from myna.forms import CheckFailed, Compiler, readers, worker
from myna.forms.compiler import MAX_SOURCE, Reasoning
from myna.forms.matcher import Matcher
from myna.forms.worker import Workers
from myna.records import Form, RequestError, Unavailable

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
        (Form("regex", r"\d\w\s?"), ["1a", "1_ "], ["٣a", "1é", "1a\u2003"]),
        (Form("schema", '{"const": "a\x7f"}'), ['"a\x7f"'], ['"a"']),
        (Form("schema", '{"properties": {"\x7f": {"enum": ["\x7f", 1]}}, "additionalProperties": false, "type": "object", "required": ["\x7f"]}'), ['{"\x7f": "\x7f"}'], ["{}"]),
        (Form("tags", '{"type": "structural_tag", "triggers": ["<\x7f"], "structures": [{"begin": "<\x7f>", "schema": {}, "end": "\x7f"}]}'), ["a", "<\x7f>1\x7f"], ["<\x7f"]),
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


def test_what_is_compiled_is_kept_and_the_oldest_forgotten(
    tiny: tuple[Chat, Compiler], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, _ = tiny
    compiler = Compiler(chat.tokenizer, chat.stop_ids)
    monkeypatch.setattr("myna.forms.compiler.KEPT", 1000)
    first = compiler.compile(Form("choice", '["a"]'))
    assert compiler.compile(Form("choice", '["a"]')) is first
    assert compiler.compile(Form("choice", '["a"]'), "maybe") is not first
    for i in range(3):
        compiler.compile(Form("choice", f'["{"b" * 100}{i}"]'))
        assert compiler.compile(Form("choice", '["a"]')) is first, "what is used stays"
    for c in "cd":
        compiler.compile(Form("choice", f'["{c * 300}"]'))
    assert compiler.compile(Form("choice", '["a"]')) is not first


@pytest.mark.parametrize(
    ("form", "code", "says"),
    [
        (Form("schema", "{"), "invalid_json_schema", "not JSON"),
        (Form("schema", "[" * 100_000), "invalid_json_schema", "nested"),
        (Form("schema", '{"description": "' + "x" * MAX_SOURCE + '"}'), "invalid_json_schema", "at most"),
        (Form("regex", "[0-9"), "invalid_regex", "unclosed character class"),
        (Form("grammar", "start: /(/"), "invalid_grammar", "unclosed group"),
        (Form("grammar", "root ::= root"), "invalid_grammar", "no text has it"),
        (Form("grammar", "start: a\na: start"), "invalid_grammar", "no text has it"),
        (Form("choice", "[]"), "invalid_choice", "list of texts"),
        (Form("choice", '["a", 1]'), "invalid_choice", "list of texts"),
        (Form("grammar", 'start: "a" b'), "invalid_grammar", "unknown name"),
        (Form("grammar", "root ::= ("), "invalid_grammar", "GBNF"),
        (Form("grammar", "%import .etc.passwd (X)\nstart: X"), "invalid_grammar", "Unknown common regex"),
        (Form("grammar", "root ::= " + '"a"{1,1000} ' * 300), "invalid_grammar", "Too many items"),
        (Form("regex", "[a&&b]"), "invalid_regex", "no text has it"),
        (Form("regex", "\ud800"), "invalid_regex", "surrogate"),
        (
            Form(
                "schema", json.dumps({"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(1000)}})
            ),
            "invalid_json_schema",
            "600 optional",
        ),
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


ATOMS = [
    *("a", "b", "é", "1", "中", " ", "-", "_", "#", "&", "~", '"', "/"),
    *(r"\d", r"\w", r"\s", r"\S", r"\D", r"\W", r"\.", r"\n", r"\\", r"\/", r"\x{41}", r"\u00e9", r"\p{L}", r"\P{Lu}", "."),
    *("[a-c]", "[^a]", r"[\d_]", r"[^\s]", r"[\w-]", r"[\]]", "[.]", "[^\\S]", "[a&&b]", "[[:alpha:]]", "[[a]]", "[]a]"),
    *("(?i:k)", "(?s:.)", "(?x:a b)", "(?i)s", "^", "$", r"\b", r"\A"),
]  # fmt: skip


def expressions() -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        counted = st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?"])
        return (
            st.tuples(inner, inner).map("".join)
            | st.tuples(inner, inner).map("({0[0]}|{0[1]})".format)
            | st.tuples(inner, counted).map("(?:{0[0]}){0[1]}".format)
            | inner.map("(?P<name>{})".format)
        )

    return st.recursive(st.sampled_from(ATOMS), larger, max_leaves=6)


@given(
    expressions(),
    st.lists(st.text('ab1é _-\n\t中"\\/.kKſsS٣\xa0\x85\ufeff\u2028\r&~#x\x1c\u212a', max_size=5), max_size=4),
    st.integers(0, 2**32).map(random.Random),
)
@settings(max_examples=150, deadline=None)
def test_both_readers_take_an_expression_for_the_same(source: str, texts: list[str], rng: random.Random) -> None:
    """llguidance, whose masks an answer follows, and the one that checks it; or it says that it does not read this one."""
    grammar = LLMatcher(WORDS, LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(source, 'dws')}/"), log_level=0)
    if grammar.is_error() or not readers.reads("regex", source):
        return
    matcher = Matcher(grammar, 257)
    with suppress(IndexError, UnicodeDecodeError):  # nothing has it, or the text was cut inside a character
        texts = [*texts, *(text for _ in range(3) if (text := walk(matcher, rng, 12)) is not None)]
    for text in texts:
        assert (readers.problem("regex", source, text) is None) == generates_bytes(matcher, text), text


@pytest.mark.parametrize("source", ["[[a]]", "[a&&b]", "(?x:a b)", "[\\S]", "[]a]", "\\b", "a)|(b"])
def test_an_expression_that_others_take_for_something_else_is_not_read(source: str) -> None:
    assert not readers.reads("regex", source)


GRAMMARS = {
    'start: "a" start "b" | "c"': ["c", "acb", "ab", "", "cc"],
    'root ::= "a"{2,3} [c-e]* ("x" | "y")': ["aax", "aaacdey", "ax", "aaaax", "aa"],
    '%import common.INT\n%import common.WS\n%ignore WS\nstart: INT ("," INT)*': ["1", "1 , 23", "1,", "a"],
    'start: pair+\npair: KEY ":" /[0-9]+/ ";"\nKEY: "k" ("a".."c")~1..2': ["ka:1;", "kab:12;kc:3;", "k:1;", "ka:1"],
    'start: "{1,2}" /[{]{2}/ // {3}': ["{1,2}{{", "{1,2}{", "{1,2}"],
    'start: "abc"i | "é" "中"': ["AbC", "é中", "é"],
}


@pytest.mark.parametrize("source", GRAMMARS)
def test_both_readers_take_a_grammar_for_the_same(tiny: tuple[Chat, Compiler], source: str) -> None:
    compiled = tiny[1].compile(Form("grammar", source))
    for text in GRAMMARS[source]:
        assert (compiled.check(text) is None) == lets(tiny, Form("grammar", source), text), text
    assert {compiled.check(text) is None for text in GRAMMARS[source]} == {True, False}


@pytest.mark.parametrize(
    "source", ['start: %json {"type": "null"}', 'start: "a" <[1]>', "start: T\nT: /[a-z]+/ & ~/abc/", "start: /a*/"]
)
def test_a_grammar_in_llguidances_own_words_is_enforced_and_not_checked(
    tiny: tuple[Chat, Compiler], source: str
) -> None:
    assert tiny[1].compile(Form("grammar", source)).check("anything") is None


def test_no_file_is_read_for_a_grammar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.lark").write_text('X: "x"')
    monkeypatch.chdir(tmp_path)
    assert not readers.reads("grammar", "%import .secret.X\nstart: X")
    assert not readers.reads("grammar", "%import secret (X)\nstart: X")


def test_a_check_that_takes_too_long_says_so(tiny: tuple[Chat, Compiler], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lark reads expressions with Python's backtracking engine: here it costs one child."""
    compiled = tiny[1].compile(Form("grammar", 'start: X "c"\nX: /(a|a)+b/'))
    assert compiled.check("aabc") is None
    monkeypatch.setattr(worker, "SECONDS", 0.5)
    with pytest.raises(CheckFailed, match=r"longer than 0\.5 seconds"):
        compiled.check("a" * 40)
    monkeypatch.undo()
    assert compiled.check("aabc") is None
    assert compiled.check("aab")


def test_whoever_finds_all_readers_busy_is_told_to_come_back(
    tiny: tuple[Chat, Compiler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "WAIT", 0.01)
    tiny[1].compile(Form("json"))
    children = Workers()
    monkeypatch.setattr("myna.forms.compiler._reading", children)
    held = [children._free.get() for _ in range(worker.COUNT)]
    with pytest.raises(Unavailable) as refused:
        tiny[1].compile(Form("schema", '{"title": "busy"}'))
    assert refused.value.retry_after
    assert tiny[1].compile(Form("json")).check("{}") is None, "what is kept, and checks, wait for nobody"
    for child in held:
        children._free.put(child)
    assert tiny[1].compile(Form("schema", '{"title": "busy"}'))


def test_tools_share_the_time_of_one_form(tiny: tuple[Chat, Compiler]) -> None:
    with pytest.raises(RequestError, match="longer than"):
        tiny[1].lower('{"title": "late"}', strict=True, seconds=-1.0)
    assert tiny[1].lower('{"title": "late"}', strict=True)
    assert tiny[1].lower('{"title": "late"}', strict=True, seconds=-1.0), "known"


def test_names_and_texts_of_any_characters_can_be_said(tiny: tuple[Chat, Compiler]) -> None:
    for name in ("\0", "\x1f", "\x7f", "\x85", "a\nb", '"\\', "/", "\u2028", "\u202e", "😀", "名"):
        schema = {
            "type": "object",
            "properties": {name: {"const": name}},
            "required": [name],
            "additionalProperties": False,
        }
        form = Form("schema", json.dumps(schema))
        assert lets(tiny, form, json.dumps({name: name}, ensure_ascii=False)), repr(name)
        assert lets(tiny, Form("choice", json.dumps([name])), name)
        assert lets(
            tiny,
            Form("schema", json.dumps({"type": "string", "pattern": name.translate({92: r"\\"})})),
            json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f"),
        ), repr(name)


def test_a_schema_is_nested_as_deep_as_we_say_and_no_deeper(tiny: tuple[Chat, Compiler]) -> None:
    """docs/api.md says 120, brackets and schemas alike."""

    def arrays(levels: int) -> Form:
        return Form("schema", '{"type":"array","items":' * (levels - 1) + "{}" + "}" * (levels - 1))

    tiny[1].compile(arrays(120))
    with pytest.raises(RequestError, match="nested more than 120 deep"):
        tiny[1].compile(arrays(121))
