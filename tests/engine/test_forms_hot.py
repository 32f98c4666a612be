"""A random decoder at temperature 2 writes JSON: what is finished has its form, whatever it is, alone or in company."""

import json
from dataclasses import replace
from typing import Any

import pytest
from llguidance import LLMatcher
from schema_suite import STOP, WORDS
from test_constrain import Form, said
from test_engine import guessing
from tiny_decoder import random_decoder, spec_of

from myna.engine.constraint import Constraint
from myna.engine.engine import Engine, Update, engine_for
from myna.forms.answer import answer
from myna.forms.compiler import LIMITS
from myna.forms.matcher import Matcher
from myna.forms.schema import Schema
from myna.model import Decoder
from myna.records import Sampling

HOT = Sampling(temperature=2.0, max_tokens=160)
SCHEMAS: list[Any] = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "uniqueItems": True, "minItems": 2},
    {"type": "array", "contains": {"const": 7}, "minContains": 2, "maxContains": 2, "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 5},
    {"oneOf": [{"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"], "additionalProperties": False}, {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"], "additionalProperties": False}]},
    {"type": "object", "properties": {"kind": {"enum": ["circle", "box"]}, "r": {"type": "integer", "maximum": 99, "minimum": 1}, "w": {"const": 3}}, "required": ["kind"], "additionalProperties": False, "if": {"properties": {"kind": {"const": "circle"}}}, "then": {"required": ["r"]}, "else": {"required": ["w"]}},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "ipv6"},
    {"type": "string", "pattern": "^[a-z]{1,5}( .)?$", "not": {"const": "a"}},
    {"type": "number", "multipleOf": 0.25, "minimum": -2, "maximum": 30},
    {"$defs": {"t": {"type": "object", "properties": {"v": {"enum": [1, 2]}, "next": {"$ref": "#/$defs/t"}}, "required": ["v"], "additionalProperties": False}}, "$ref": "#/$defs/t"},
]  # fmt: skip


def form_of(schema: Any) -> Form:
    found = answer({"do": "lower", "kind": "schema", "source": json.dumps(schema), "strict": True, "special": {}})
    grammar = LLMatcher(WORDS, LLMatcher.grammar_from_lark(found["lark"]), log_level=0, limits=LIMITS)
    return lambda: Matcher(grammar.deep_copy(), STOP + 1)


@pytest.fixture(scope="module")
def model() -> Decoder:
    return random_decoder(spec_of("plain", vocab=STOP + 1))


def write(engine: Engine, asked: list[tuple[Form, Sampling]]) -> list[list[Update]]:
    heard: list[list[Update]] = [[] for _ in asked]
    for mine, (form, sampling) in zip(heard, asked, strict=True):
        engine.submit(
            [1, 2, 3], sampling, lambda u, mine=mine: bool(mine.append(u)), stop_ids=frozenset([STOP]), form=form
        )
    while not engine.idle:
        engine.step()
    return heard


@pytest.mark.parametrize("guesses", [False, True], ids=["plain", "guessing"])
def test_whatever_is_finished_has_its_form(model: Decoder, guesses: bool) -> None:
    engine = engine_for(model, kv_tokens=16_000, draft_rows=32 if guesses else 0)
    engine = guessing(engine) if guesses else engine
    forms = [form_of(schema) for schema in SCHEMAS]
    asked = [(form, replace(HOT, seed=seed)) for form in forms for seed in range(6)]
    finished = dict.fromkeys(range(len(SCHEMAS)), 0)
    for i, updates in enumerate(write(engine, asked)):
        assert updates[-1].error is None
        if updates[-1].finish_reason == "stop":
            text = bytes(token for token in said(updates) if token != STOP).decode()
            assert Schema(json.dumps(SCHEMAS[i // 6])).check(json.loads(text)) is None, text
            finished[i // 6] += 1
    assert min(finished.values()) > 0, finished


def test_an_answer_with_a_form_is_the_same_alone_and_in_company(model: Decoder) -> None:
    asked = [(form_of(schema), replace(HOT, seed=k, max_tokens=60)) for k, schema in enumerate(SCHEMAS)]
    mixed = [*asked, *((None, replace(HOT, seed=k, max_tokens=60)) for k in range(4))]
    alone = [said(write(engine_for(model, kv_tokens=4000), [one])[0]) for one in mixed]
    assert [said(updates) for updates in write(engine_for(model, kv_tokens=16_000), mixed)] == alone
    squeezed = engine_for(model, kv_tokens=320, max_running=6)
    assert [said(updates) for updates in write(squeezed, mixed)] == alone
    eager = guessing(engine_for(model, kv_tokens=16_000, draft_rows=48))
    assert [said(updates) for updates in write(eager, mixed)] == alone


def test_after_guesses_that_complete_a_form_there_is_no_mask_and_no_fault() -> None:
    constraint = Constraint(form_of({"const": "yes"}))
    guesses = [*b'"yes"']
    found = [constraint.mask_after(guesses[:count], 9) for count in range(6)]
    assert [mask is None for mask in found] == [False] * 5 + [True]
    assert constraint.fault is None
    assert [constraint.take(id) for id in guesses] == [False] * 4 + [True]
