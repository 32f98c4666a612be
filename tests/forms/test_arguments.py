"""Calls in a syntax that is not JSON: whatever the grammar takes reads back as what the schema allows."""

import json
import random
from functools import cache
from itertools import product
from typing import Any

import hypothesis.strategies as st
import jsonschema_rs
import pytest
from hypothesis import assume, given, settings

from myna.chat.arguments import kinds
from myna.chat.byte_chat import byte_chat
from myna.chat.dialects import dialect
from myna.chat.grammar import Arguments, calls_form
from myna.chat.scan import Begun, Ended, Said, Wrote
from myna.forms import Compiled, Compiler
from myna.records import Form, Json, ToolCall, ToolChoice

NAMES = ("glm", "qwen3_coder", "pythonic", "gemma")
QUOTED = ("function_gemma", "gemma4")
CHAT = byte_chat()
FORMS = Compiler(CHAT.tokenizer, CHAT.stop_ids)
by_dialect = pytest.mark.parametrize("name", NAMES)


def tool(*required: str, **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


PLAIN = tool(
    "city", city={"type": "string"}, days={"type": "integer"}, exact={"type": "boolean"}, note={"type": "string"}
)
SCHEMAS: dict[str, Json] = {
    "plain": PLAIN,
    "mixed": tool("a", a={"type": ["string", "null"]}, b={"anyOf": [{"type": "string"}, {"type": "integer"}]}),
    "bounds": tool("a", a={"type": "string", "minLength": 2, "maxLength": 4}, n={"type": "integer", "maximum": 9}),
    "pattern": tool("a", a={"type": "string", "pattern": "^[a-c]+</?[x-z]"}, d={"type": "string", "format": "date"}),
    "enum": tool("a", a={"enum": ["x", "5", None, 5, "</parameter>", "it's", "北京"]}),
    "nested": tool("a", a={"type": "array", "items": {"type": "string"}},
                   o={"type": "object", "properties": {"on": {"type": "boolean"}, "x": {}}, "required": ["on"]}),
    "referred": {"$defs": {"unit": {"enum": ["c", "f"]}}} | tool("u", u={"$ref": "#/$defs/unit"}, v={}),
    "free": {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}},
    "taken for": tool(n={"anyOf": [{"type": "string"}, {"type": "integer", "maximum": 9}]}, b={"anyOf": [{"type": "string"}, {"const": True}]},
                      l={"anyOf": [{"type": "string"}, {"type": "array", "maxItems": 1}]}, o={"anyOf": [{"type": "string"}, {"type": "object", "maxProperties": 0}]},
                      z={"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}),
    "never null": tool(a={"type": ["string", "null"], "not": {"const": None}}),
    "all but": tool(a={"type": "string", "not": {"enum": ["x", "it's"]}}),
    "any": {"type": "object"},
    "either": {"anyOf": [tool("a", a={"type": "string"}), tool("b", b={"const": True})]},
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "plain": [{"city": "Ulm"}, {"city": " a\nb ", "days": -3, "exact": False, "note": ""}, {"city": "5"}, {"city": "null"},
              {"city": "say \"it's\" <b>你好</b>", "note": "[1"}, {}, {"city": 5}, {"city": "a", "days": "1"}, {"x": 1}],
    "mixed": [{"a": None}, {"a": "b c"}, {"a": "x", "b": 5}, {"a": "x", "b": "five"}, {"a": 5}, {"a": "5"}, {"a": [], "b": None}],
    "bounds": [{"a": "你好"}, {"a": "abcd", "n": 9}, {"a": "a"}, {"a": "abcde"}, {"a": "ab", "n": 10}],
    "pattern": [{"a": "abc</x"}, {"a": "a<y>", "d": "2024-02-29"}, {"a": "d<x"}, {"a": "a<x", "d": "2023-02-29"}],
    "enum": [{"a": "x"}, {"a": None}, {"a": 5}, {"a": "it's"}, {"a": "北京"}, {"a": "y"}, {"a": 6}],
    "nested": [{"a": []}, {"a": ["</parameter>", "</arg_value>", "it's", '"']}, {"a": ["x"], "o": {"on": True, "x": [None]}},
               {"a": [1]}, {"a": ["x"], "o": {"x": 1}}],
    "referred": [{"u": "c"}, {"u": "f", "v": [1, {"k": False}]}, {"u": "k"}, {"v": 1}],
    "free": [{}, {"a": 1}, {"a": 1, "yes": True, "no_": False}, {"b": 1}],
    "taken for": [{"n": 9}, {"n": "ten"}, {"n": "10"}, {"n": 10}, {"b": True}, {"b": "false"}, {"b": "so"}, {"l": [1]}, {"l": "[1, 2]"}, {"l": "1]"},
                  {"o": {}}, {"o": '{"a": 1}'}, {"o": "}"}, {"z": None}, {"z": "null"}, {"z": "nul"}, {"z": "null!"}],
    "never null": [{"a": "null"}, {"a": " null"}, {"a": None}, {"a": "nul"}, {"a": "null!"}],
    "all but": [{"a": "x"}, {"a": "it's"}, {"a": "xx"}, {"a": "its"}, {"a": ""}],
    "any": [{}, {"a": 1}, {"a": {"b": ["c"]}, "d": None}],
    "either": [{"b": True}, {"a": "x", "b": True}, {}],
}  # fmt: skip


@cache
def compiled(name: str, schema: str) -> Compiled:
    source = json.dumps(SCHEMAS[schema])
    speaks = dialect(name)
    assert speaks.style
    own = FORMS.lower_arguments(source, speaks.style, kinds(SCHEMAS[schema]))
    assert own is not None
    tools = {"look_up": Arguments("start: /[^\\x{0}-\\x{10ffff}]/", own)}  # its own syntax alone
    form = calls_form(speaks, tools, ToolChoice("named", "look_up"), CHAT.tokenizer.special, CHAT.stop_ids)
    return FORMS.compile(form)


def takes(form: Compiled, text: str) -> bool:
    matcher = form.matcher()
    return all(matcher.advance(byte) for byte in text.encode()) and matcher.may_end


def wrote(name: str, arguments: Any) -> str:
    return "".join(dialect(name).write([ToolCall("", "look_up", json.dumps(arguments, ensure_ascii=False))]))


def read(name: str, schema: str, text: str) -> Any:
    """The arguments of the one call that a text is."""
    events = dialect(name).reader({"look_up": SCHEMAS[schema]}).push(text, last=True)
    assert [event for event in events if isinstance(event, Begun | Ended | Said)] == [Begun("look_up"), Ended(True)]
    return json.loads("".join(event.arguments for event in events if isinstance(event, Wrote)))


def fits(schema: str, value: Any) -> bool:
    return bool(jsonschema_rs.is_valid(SCHEMAS[schema], value, validate_formats=True))


LISTS = ("nested", "referred", "free", "taken for", "any", "either")  # with lists, objects, or types nobody says
PAIRS = [*product(NAMES, SCHEMAS), *product(QUOTED, [schema for schema in SCHEMAS if schema not in LISTS])]


@pytest.mark.parametrize(("name", "schema"), PAIRS)
def test_what_a_dialect_writes_is_taken_if_the_schema_allows_it_and_only_then(name: str, schema: str) -> None:
    form = compiled(name, schema)
    for value in VALUES[schema]:
        texts = [wrote(name, value)]
        if name in ("pythonic", "gemma"):  # inside of values the grammar has JSON's quotes and words
            members = ", ".join(f"{key}={json.dumps(one, ensure_ascii=False)}" for key, one in value.items())
            texts.append(wrote(name, {}).replace("()", f"({members})"))
        means = read(name, schema, texts[0])
        if means == value or not fits(schema, means):
            assert any(takes(form, text) for text in texts) == fits(schema, means), value


@pytest.mark.parametrize("name", [*NAMES, *QUOTED])
@settings(max_examples=40)
@given(st.sampled_from([(schema, value) for schema, values in VALUES.items() for value in values]), st.randoms())
def test_whatever_is_taken_reads_back_as_what_the_schema_allows(
    name: str, drawn: tuple[str, Any], chance: random.Random
) -> None:
    schema, value = drawn
    assume((name, schema) in PAIRS)
    form, text = compiled(name, schema), wrote(name, value)
    pieces = [
        "</parameter>",
        "</arg_value>",
        "</arg",
        "<escape>",
        '<|"|>',
        "'",
        '"',
        "\\",
        "\n",
        " ",
        "1",
        "null",
        "True",
        "[",
        "]",
        "}",
        "你",
        ")",
        ",",
    ]
    for _ in range(12):
        at, cut = chance.randrange(len(text)), chance.choice((0, 0, 1, 3))
        other = text[:at] + chance.choice(pieces) + text[at + cut :]
        if takes(form, other):
            assert fits(schema, read(name, schema, other)), other
            text = other


@pytest.mark.parametrize("name", QUOTED)
@pytest.mark.parametrize("schema", [*map(SCHEMAS.get, LISTS), tool(a={"type": "array"}), tool(a={"type": "object"})])
def test_lists_and_objects_between_quotes_are_left_to_json(name: str, schema: Json) -> None:
    style = dialect(name).style
    assert style
    assert FORMS.lower_arguments(json.dumps(schema), style, kinds(schema)) is None


@pytest.mark.parametrize("name", [*NAMES, *QUOTED])
@pytest.mark.parametrize(
    "schema",
    [
        tool(a={"type": "string", "format": "hostname"}),
        tool(**{"a b": {"type": "string"}}),
        {"type": "object", "not": {"required": ["a", "b"]}, "minProperties": 70},
    ],
)
def test_what_cannot_be_held_exactly_is_left_to_json(name: str, schema: Json) -> None:
    style = dialect(name).style
    assert style
    assert FORMS.lower_arguments(json.dumps(schema), style, kinds(schema)) is None


def test_a_control_token_closes_a_text_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    start = CHAT.tokenizer.special["<|im_start|>"]
    monkeypatch.setattr(CHAT.tokenizer, "special", {"</arg_value>": start})
    style = dialect("glm").style
    assert style
    own = FORMS.lower_arguments(json.dumps(PLAIN), style, kinds(PLAIN))
    assert own
    form = FORMS.compile(Form("grammar", own))

    def takes_ids(*pieces: str) -> bool:
        matcher = form.matcher()
        ids = [id for piece in pieces for id in (piece.encode() if piece != "</arg_value>" else [start])]
        return all(matcher.advance(id) for id in ids) and matcher.may_end

    head = "\n<arg_key>city</arg_key>\n<arg_value>"
    assert takes_ids(head, "Ulm", "</arg_value>")
    assert takes_ids(head, "", "</arg_value>")
    assert not takes_ids(head, "Ulm")
    assert not takes_ids(head, "Ulm", "</arg_", "value>")
