"""What an answer must look like, as clients of several servers write it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from myna.provider.wire.form import read_form
from myna.provider.wire.messages import read_messages
from myna.provider.wire.ollama import read_ollama_chat
from myna.provider.wire.request import read_chat, read_completion, write_request
from myna.provider.wire.responses import read_responses
from myna.records import Conversation, Document, Form, RequestError, Sampling

SCHEMA = {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "integer"}}}
TEXT = json.dumps(SCHEMA, separators=(",", ":"))
TAG = {"type": "structural_tag", "triggers": ["<f"], "structures": [{"begin": "<f>", "schema": {}, "end": "</f>"}]}


def chat(**fields: Any) -> Form | None:
    return read_chat(json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()).sampling.form


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Form("json")),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, Form("schema", TEXT)),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}}, Form("schema", TEXT)),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}, Form("schema", TEXT, strict=False)),
        ({"response_format": TAG}, Form("tags", json.dumps(TAG, separators=(",", ":")))),
        ({"structured_outputs": {"json": SCHEMA}}, Form("schema", TEXT)),
        ({"structured_outputs": {"json": TEXT, "regex": None}}, Form("schema", TEXT)),
        ({"structured_outputs": {"regex": "a+"}}, Form("regex", "a+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, Form("choice", '["a","b"]')),
        ({"structured_outputs": {"json_object": True}}, Form("json")),
        ({"structured_outputs": {"grammar": "root ::= \"a\""}}, Form("grammar", 'root ::= "a"')),
        ({"guided_json": SCHEMA}, Form("schema", TEXT)),
        ({"guided_regex": "a+"}, Form("regex", "a+")),
        ({"guided_choice": ["a", "b"]}, Form("choice", '["a","b"]')),
        ({"guided_grammar": "start: \"a\""}, Form("grammar", 'start: "a"')),
        ({"json_schema": SCHEMA}, Form("schema", TEXT)),
        ({"grammar": "root ::= \"a\""}, Form("grammar", 'root ::= "a"')),
        ({"guided_json": SCHEMA, "json_schema": SCHEMA}, Form("schema", TEXT)),
    ],
)  # fmt: skip
def test_every_way_of_asking_is_read(fields: dict[str, Any], form: Form | None) -> None:
    assert chat(**fields) == form
    assert read_completion(json.dumps({"prompt": "hi", **fields}).encode()).sampling.form == form


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "unsupported_parameter"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "invalid_type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema.schema", "missing_required_parameter"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 3}}}, "response_format.json_schema.schema", "invalid_type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": 1}}}, "response_format.json_schema.strict", "invalid_type"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs", "invalid_value"),
        ({"structured_outputs": {"lines": 3}}, "structured_outputs.lines", "unsupported_parameter"),
        ({"guided_choice": []}, "guided_choice", "invalid_type"),
        ({"guided_regex": 3}, "guided_regex", "invalid_type"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice", "invalid_value"),
        ({"response_format": {"type": "json_object"}, "guided_json": SCHEMA}, "guided_json", "invalid_value"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_where_it_is(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        chat(**fields)
    assert (refused.value.param, refused.value.code) == (param, code)


@pytest.mark.parametrize("what", [Conversation.ask("hi"), Document("hi")], ids=["chat", "completion"])
@pytest.mark.parametrize(
    "form",
    [
        Form("json"),
        Form("schema", TEXT),
        Form("schema", TEXT, strict=False),
        Form("regex", "a+"),
        Form("choice", '["a","b"]'),
        Form("grammar", 'start: "a"'),
        Form("tags", json.dumps(TAG, separators=(",", ":"))),
    ],
    ids=lambda form: form.kind,
)
def test_a_form_that_was_written_is_read_as_it_was(form: Form, what: Conversation | Document) -> None:
    path, body = write_request(what, Sampling(form=form), "m")
    read = read_chat if path == "chat/completions" else read_completion
    assert read(json.dumps(body).encode()).sampling.form == form


def test_the_order_of_properties_survives_the_wire() -> None:
    form = read_form({"guided_json": SCHEMA})
    assert form
    assert [*json.loads(form.source)["properties"]] == ["b", "a"]


def deep(levels: int) -> dict[str, Any]:
    return {"items": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("read", "fields", "param"),
    [
        (read_chat, {"response_format": {"type": "json_object"}}, "response_format"),
        (read_chat, {"response_format": {"type": "json_object", "schema": SCHEMA}}, "response_format.schema"),
        (read_chat, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}, "response_format.json_schema.schema"),
        (read_chat, {"response_format": TAG}, "response_format"),
        (read_completion, {"structured_outputs": {"choice": ["a"]}}, "structured_outputs.choice"),
        (read_chat, {"structured_outputs": {"json_object": True}}, "structured_outputs.json_object"),
        (read_chat, {"guided_regex": "a"}, "guided_regex"),
        (read_completion, {"guided_json": TEXT}, "guided_json"),
        (read_chat, {"json_schema": SCHEMA}, "json_schema"),
        (read_completion, {"grammar": "start: \"a\""}, "grammar"),
        (read_responses, {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}}, "text.format.schema"),
        (read_responses, {"text": {"format": {"type": "json_object"}}}, "text.format"),
        (read_messages, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, "output_config.format.schema"),
        (read_ollama_chat, {"format": SCHEMA}, "format"),
        (read_ollama_chat, {"format": "json"}, "format"),
    ],
)  # fmt: skip
def test_a_form_knows_the_field_that_asked_for_it(read: Any, fields: dict[str, Any], param: str) -> None:
    prompts = {read_completion: {"prompt": "hi"}, read_responses: {"input": "hi"}}
    asked = prompts.get(read, {"messages": [{"role": "user", "content": "hi"}]})
    body = {"model": "m"} | asked | ({"max_tokens": 9} if read is read_messages else {})
    found = read(json.dumps(body | fields).encode()).sampling.form
    assert found.param == param
    assert found == replace(found, param="elsewhere"), "the same form, whoever asks for it"


@pytest.mark.parametrize(
    "fields",
    [{"response_format": TAG | {"more": deep(300)}}, {"json_schema": deep(300)}, {"tools": [deep(300)]}],
    ids=str,
)
def test_what_is_nested_too_deeply_to_be_written_again_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="nested more than 200 deep"):
        chat(**fields)
    assert chat(json_schema=deep(150))
