"""Structural tags: free text, and after a trigger what has been promised."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_tiny import write_model
from walking import chat_of, generates

from myna.chat import Chat
from myna.forms import Compiler
from myna.forms.tags import Tags
from myna.records import Form, RequestError

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}


def tags(*structures: tuple[str, Any, str], triggers: list[str]) -> str:
    rows = [{"begin": begin, "schema": schema, "end": end} for begin, schema, end in structures]
    return json.dumps({"type": "structural_tag", "structures": rows, "triggers": triggers})


TWO = tags(("<f=point>", POINT, "</f>"), ("<f=none>", {"type": "null"}, "</f>"), triggers=["<f="])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Chat, Compiler]:
    return chat_of(write_model(tmp_path_factory.mktemp("tags") / "tiny", "byte_level", "qwen3"))


def lets(tiny: tuple[Chat, Compiler], source: str, text: str) -> bool:
    chat, compiler = tiny
    return generates(compiler.compile(Form("tags", source)), chat.tokenizer, text, chat.stop_ids)


GOOD = ["", "just words", 'so <f=point>{"x": 3}</f>', '<f=none>null</f> and <f=point>{"x": 1}</f> done', "a < b, <f b"]
BAD = ["<f=", "<f=other>", '<f=point>{"y": 3}</f>', '<f=point>{"x": 3}', "<f=none>1</f>", 'a <f=point>{"x": 3}</f> <f=']


def test_after_a_trigger_a_structure_holds(tiny: tuple[Chat, Compiler]) -> None:
    assert {text: lets(tiny, TWO, text) for text in GOOD} == dict.fromkeys(GOOD, True)
    assert {text: lets(tiny, TWO, text) for text in BAD} == dict.fromkeys(BAD, False)


def test_the_check_says_the_same() -> None:
    found = Tags(TWO)
    assert {text: found.check(text) for text in GOOD} == dict.fromkeys(GOOD)
    assert all(found.check(text) for text in BAD)


def test_a_control_token_may_be_a_trigger(tiny: tuple[Chat, Compiler]) -> None:
    source = tags(("<tool_call>", POINT, "</tool_call>"), triggers=["<tool_call>"])
    assert "<tool_call>" in tiny[0].tokenizer.special
    assert lets(tiny, source, 'well<tool_call>{"x": 1}</tool_call>')
    assert lets(tiny, source, "well")
    assert not lets(tiny, source, "well<tool_call>1</tool_call>")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("[]", "needs `structures` and `triggers`"),
        ('{"type": "structural_tag", "format": {}}', "needs `structures` and `triggers`"),
        (tags(("<f>", {}, ""), triggers=["<g>"]), "structures.0 begins with none of the triggers"),
        (tags(("<f>", {"type": 3}, ""), triggers=["<f>"]), "structures.0.schema: it is no JSON Schema at #/type"),
        (tags(("<f>", {}, ""), triggers=[""]), "`triggers` must be"),
        (tags(triggers=["a"]), "`structures` must be"),
    ],
)
def test_what_is_no_structural_tag_is_refused(tiny: tuple[Chat, Compiler], source: str, says: str) -> None:
    with pytest.raises(RequestError) as refused:
        tiny[1].compile(Form("tags", source))
    assert says in str(refused.value)


def test_calls_may_come_instead_of_the_form(tiny: tuple[Chat, Compiler]) -> None:
    chat, compiler = tiny
    form = compiler.compile(
        Form("schema", json.dumps(POINT)), instead=Form("grammar", "start: <tool_call> /[a-z]+/ </tool_call>")
    )
    for text, expected in {
        '{"x": 1}': True,
        "<tool_call>go</tool_call>": True,
        "go": False,
        '<tool_call>{"x": 1}': False,
    }.items():
        assert generates(form, chat.tokenizer, text, chat.stop_ids) == expected, text


def test_the_compiled_form_checks_finished_texts(tmp_path: Path, tiny: tuple[Chat, Compiler]) -> None:
    compiler = tiny[1]
    assert compiler.compile(Form("schema", json.dumps(POINT))).check('{"x": 1}') is None
    assert "#/x" in (compiler.compile(Form("schema", json.dumps(POINT))).check('{"x": "1"}') or "")
    assert "not JSON" in (compiler.compile(Form("json")).check("NaN") or "")
    assert compiler.compile(Form("choice", '["a", "b"]')).check("c")
    assert compiler.compile(Form("choice", '["a", "b"]')).check("b") is None
    assert compiler.compile(Form("tags", TWO)).check("<f=")
