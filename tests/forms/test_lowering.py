"""What becomes of a schema: order, white space, places of what cannot be enforced, limits."""

import json
import random
import time
from contextlib import suppress
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_suite import WORDS, generates, ours
from walking import walk

from myna.forms import worker
from myna.forms.answer import answer
from myna.forms.compiler import LIMITS
from myna.forms.formats import FORMATS
from myna.forms.matcher import Matcher
from myna.forms.pattern import searched
from myna.forms.schema import Schema
from myna.forms.worker import WorkerFailed, Workers


def can(schema: Any, *texts: str) -> list[bool]:
    matcher = ours(schema)
    assert matcher, "the schema is refused"
    return [generates(matcher, text) for text in texts]


def lowered(schema: Any, *, strict: bool = True) -> dict[str, Any]:
    asked = {"do": "lower", "kind": "schema", "source": json.dumps(schema), "strict": strict, "special": {}}
    return answer(asked)


def test_members_come_in_the_order_of_the_declaration() -> None:
    schema = {"type": "object", "properties": {"z": {}, "a": {}, "m": {}}, "required": ["m", "z"]}
    assert can(schema, '{"z":1,"a":2,"m":3}', '{"z":1,"m":3}', '{"a":2,"m":3,"z":1}') == [True, True, False]
    merged = {"allOf": [{"properties": {"b": {"type": "integer"}}}, {"properties": {"a": {}}}], "required": ["a", "b"]}
    assert can(merged, '{"b":1,"a":2}', '{"a":2,"b":1}') == [True, False]


def test_white_space_is_bounded() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert all(can(schema, '{"a":[]}', '{"a": [ ]}', '{\n  "a": [1, 2]\n}', '{\n\t"a":\n        [\n1]}'))
    assert not any(can(schema, '{  "a":[]}', '{\n\n"a":[]}', '{"a":[]} ', ' {"a":[]}', "{\n" + " " * 25 + '"a":[]}'))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (
            {"if": {"properties": {"k": {"const": "a"}}, "required": ["k"]}, "then": {"required": ["x"]}, "else": {"required": ["y"]}, "properties": {"k": {"type": "string"}}, "type": "object"},
            ['{"k":"a","x":1}', '{"k":"b","y":1}', '{"y":1}'], ['{"k":"a","y":1}', '{"k":"b","x":1}', '{"k":"a"}', "{}"],
        ),
        ({"type": "array", "contains": {"const": 1}, "minContains": 2, "maxContains": 3}, ["[1,1]", "[0,1,1,2,1]"], ["[1]", "[1,1,1,1]", "[]"]),
        ({"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b", 3]}}, ["[]", '["b","a",3]'], ['["a","a"]', "[3,3]"]),
        ({"type": "string", "not": {"enum": ["no", "never\n"]}}, ['"yes"', '"nope"', '"n"'], ['"no"', '"never\\n"', '"\\u006eo"']),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}, ['{"a":1,"b":"x"}'], ['{"a":"x"}', '{"\\u0061":"x"}', '{"b":1}']),
        ({"type": "object", "patternProperties": {"^n": {"type": "integer"}}, "additionalProperties": {"type": "string"}}, ['{"n1":1,"x":"y"}'], ['{"n1":"y"}', '{"x":1}']),
        ({"oneOf": [{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 3}]}, ["2", "7"], ["4", "3", "5", "2.5"]),
        ({"type": "number", "not": {"type": "integer"}}, ["1.5", "-0.25"], ["1", "1.0", "-3"]),
        ({"allOf": [{"properties": {"a": True}}, {"properties": {"b": True}}], "unevaluatedProperties": False, "type": "object"}, ['{"a":1,"b":2}'], ['{"c":1}']),
        ({"type": "object", "minProperties": 1, "maxProperties": 2, "properties": {"a": {}, "b": {}, "c": {}}, "additionalProperties": False}, ['{"a":1}', '{"a":1,"c":1}'], ["{}", '{"a":1,"b":1,"c":1}']),
        ({"type": "array", "minItems": 2, "maxItems": 100, "items": {"type": "null"}}, ["[null,null]", "[" + ",".join(["null"] * 100) + "]"], ["[]", "[null]", "[" + ",".join(["null"] * 101) + "]"]),
        ({"type": "string", "format": "date"}, ['"2024-02-29"', '"2000-02-29"'], ['"2023-02-29"', '"1900-02-29"', '"2024-13-01"', '"2024-04-31"']),
        ({"$defs": {"t": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/t"}}, "required": ["v"], "additionalProperties": False}}, "$ref": "#/$defs/t"}, ['{"v":1}', '{"v":1,"next":{"v":2,"next":{"v":3}}}'], ['{"v":1,"next":{}}']),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_llguidance_lacks_is_lowered_exactly(schema: Any, good: list[str], bad: list[str]) -> None:
    assert can(schema, *good) == [True] * len(good)
    assert can(schema, *bad) == [False] * len(bad)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, "`uniqueItems` at #/properties/a: "),
        ({"properties": {"a/b": {"format": "hostname"}}}, "`format` at #/properties/a~1b: "),
        ({"items": {"pattern": "(?=a)"}}, "`pattern` at #/items: "),
        ({"minProperties": 3}, "`minProperties` at #: "),
        ({"$ref": "https://example.com/s"}, "https://example.com/s"),
        ({"type": "text"}, "no JSON Schema at #/type"),
        ({"type": "string", "const": 1}, "no value is allowed"),
        ({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}}, "no value is allowed"),
    ],
    ids=str,
)
def test_what_cannot_be_enforced_is_refused_with_its_place_and_keyword(schema: Any, says: str) -> None:
    assert says in lowered(schema)["error"]


def test_a_loose_schema_allows_what_it_cannot_forbid_and_the_check_finds_it() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}, "required": ["a"]}
    found = lowered(schema, strict=False)
    assert found["left"] == ["`uniqueItems` at #/properties/a: equal items can be told apart only among 6 values"]
    matcher = Matcher(LLMatcher_of(found["lark"]), 257)
    assert generates(matcher, '{"a":[1,1]}')
    assert not generates(matcher, '{"a":1}')
    check = Schema(json.dumps(schema)).check
    assert check({"a": [1, 2]}) is None
    assert "#/a" in (check({"a": [1, 1]}) or "")


def LLMatcher_of(lark: str) -> Any:  # noqa: N802
    from llguidance import LLMatcher

    return LLMatcher(WORDS, LLMatcher.grammar_from_lark(lark), log_level=0, limits=LIMITS)


def nested(depth: int) -> Any:
    return {"type": "object", "properties": {"a": nested(depth - 1)}} if depth else {"type": "string"}


HOSTILE: dict[str, Any] = {
    "a chain of references": {"$defs": {f"a{i}": {"type": "array", "items": {"$ref": f"#/$defs/a{i + 1}"}} for i in range(2500)} | {"a2500": {}}, "$ref": "#/$defs/a0"},
    "a loop of references": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "a loop inside allOf": {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "object"}]}}, "$ref": "#/$defs/a"},
    "deep": nested(50),
    "too deep": nested(70),
    "a huge enum": {"enum": [f"value {i}" for i in range(10_000)]},
    "a huge minItems": {"type": "array", "minItems": 10**6, "items": {"type": "integer"}},
    "a huge maxItems with contains": {"type": "array", "maxItems": 10**6, "contains": {"type": "null"}},
    "a huge minLength": {"type": "string", "minLength": 10**6, "not": {"const": "a"}},
    "thousands of properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3000)}},
    "a product of alternatives": {"allOf": [{"anyOf": [{"required": [f"a{i}"]}, {"required": [f"b{i}"]}]} for i in range(24)]},
    "an exponential pattern": {"type": "string", "pattern": "^(a+)+$"},
    "a large automaton": {"type": "string", "pattern": "^(a|b)*a(a|b){200}$"},
    "a long number": {"maximum": 10**4000},
    "a lone surrogate": {"const": "\ud800"},
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_is_compiled_or_refused_within_the_limits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that reads them may die or be killed; the next question finds another."""
    monkeypatch.setattr(worker, "SECONDS", 3.0)
    children, started = Workers(), time.monotonic()
    asked = {"do": "lower", "kind": "schema", "source": json.dumps(HOSTILE[name]), "strict": True, "special": {}}
    try:
        found = children.ask(asked)
    except WorkerFailed as e:
        found = {"error": str(e)}
    assert time.monotonic() - started < 60, "killed, however long it would take"
    assert "bug" not in found, found
    if "error" not in found:
        assert len(found["lark"]) < 10**6
        with suppress(WorkerFailed):
            children.ask({"do": "try", "grammar": json.dumps({"grammars": [{"lark_grammar": found["lark"]}]})})
    again = children.ask(asked | {"source": '{"type": "null"}'})
    assert "lark" in again


def test_a_child_that_takes_too_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    children = Workers()
    asked = {
        "do": "lower",
        "kind": "schema",
        "source": json.dumps(HOSTILE["a product of alternatives"]),
        "strict": True,
    }
    monkeypatch.setattr(worker, "SECONDS", 0.5)
    with pytest.raises(WorkerFailed, match=r"longer than 0\.5 seconds"):
        children.ask(asked | {"special": {}})
    monkeypatch.setattr(worker, "SECONDS", 30.0)
    assert "lark" in children.ask(asked | {"source": '{"type": "null"}', "special": {}})


def test_a_child_that_died_by_itself_fails_no_question() -> None:
    children = Workers()
    asked = {"do": "lower", "kind": "schema", "source": '{"type": "null"}', "strict": True, "special": {}}
    assert "lark" in children.ask(asked)
    child = children._free.get()
    assert child
    child._process.kill()
    child._process.wait()
    children._free.put(child)
    assert "lark" in children.ask(asked)


@pytest.mark.parametrize(
    "pattern", ["^a+$", "b", "a|^c$", r"^\w{2,3}$", r"\s", r"^[^a-c]*$", r'^"\\\n?$', "^(ab|cd)+?$", r"^\d{2}-x$", "."]
)
@given(st.text(max_size=6))
@settings(max_examples=15)
def test_a_pattern_over_json_text_says_what_the_pattern_says(pattern: str, text: str) -> None:
    """Judged by jsonschema-rs's reading of the pattern."""
    from jsonschema_rs import is_valid
    from llguidance import LLMatcher

    for value in (text, "ab", "cd", "aaa", '"\\\n', "12-x", "bc", " "):
        grammar = LLMatcher(WORDS, LLMatcher.grammar_from_lark(f"start: /{searched(pattern)}/"), log_level=0)
        expected = is_valid({"pattern": pattern}, value)
        assert generates(Matcher(grammar, 257), json.dumps(value, ensure_ascii=False)) == expected, value


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_lets_through_what_the_validator_takes_and_nothing_else(name: str) -> None:
    """Texts drawn under the mask, and each with one character more or less."""
    matcher, rng, valid = ours({"type": "string", "format": name}), random.Random(name), 0
    assert matcher
    for _ in range(25):
        text = json.loads(walk(matcher, rng) or '"x"')
        at = rng.randrange(len(text) + 1)
        for same in (text, text[:at] + text[at + 1 :], text[:at] + rng.choice(text + "-.:/@0aZ[]%é") + text[at:]):
            expected = jsonschema_rs.is_valid({"format": name}, same, validate_formats=True)
            assert generates(matcher, json.dumps(same, ensure_ascii=False)) == expected, same
            valid += expected
    assert valid > 5


@pytest.mark.parametrize(
    ("schema", "text", "valid"),
    [
        ({"type": "number"}, "1e999", True),
        ({"type": "number"}, "1e" + "9" * 30, True),
        ({"type": "number", "maximum": 5}, "1E+" + "9" * 30, False),
        ({"type": "number", "maximum": 5}, "1e-" + "9" * 30, True),
        ({"type": "number", "minimum": 5}, "-1e0000000002", False),
        ({"maximum": 5}, "5.000000000000000000001", False),
        ({"multipleOf": 1.5}, "315166667705690337135.0", True),
        ({}, "NaN", False),
        ({}, "-Infinity", False),
    ],
)
def test_the_check_reads_all_digits_of_a_number(schema: Any, text: str, valid: bool) -> None:
    found = answer({"do": "check", "kind": "schema", "source": json.dumps(schema), "text": text})
    assert (found["problem"] is None) == valid
