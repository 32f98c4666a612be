"""Every dialect reads back what it writes, however the text is cut, and survives whatever else a model may write."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from myna.chat.dialects import Dialect, choose, dialect, dialects
from myna.chat.scan import Begun, Bound, Ended, Event, Said, Thought, Wrote
from myna.chat.values import decode
from myna.records import ChatError, Json, ToolCall

SCHEMA: Json = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "exact": {"type": "boolean"},
        "near": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
        "unit": {"enum": ["c", "f"]},
    },
}
TOOLS = {"get_weather": SCHEMA, "add": {"type": "object", "properties": {"a": {"type": "number"}}}}
ALL = [dialect(name) for name in dialects()]
by_dialect = pytest.mark.parametrize("d", ALL, ids=lambda d: d.name)
Heard = tuple[str, str, list[tuple[str, str, bool]]]


def hear(d: Dialect, pieces: list[str], tools: dict[str, Json] = TOOLS, bound: Bound = "") -> Heard:
    """(text, reasoning, calls as (name, arguments, whole)) of an answer that comes in these pieces."""
    reader = d.reader(tools, bound=bound)
    events: list[Event] = [event for piece in pieces for event in reader.push(piece)] + reader.push("", last=True)
    text = reasoning = ""
    calls: list[tuple[str, str, bool]] = []
    begun = False
    for event in events:
        match event:
            case Said(said):
                text += said
            case Thought(thought):
                reasoning += thought
            case Begun(name):
                assert not begun, "a call begins inside of another"
                begun = True
                calls.append((name, "", False))
            case Wrote(arguments):
                assert begun
                calls[-1] = (calls[-1][0], calls[-1][1] + arguments, False)
            case Ended(whole):
                assert begun
                begun = False
                calls[-1] = (*calls[-1][:2], whole)
    assert not begun
    return text, reasoning, calls


def cut(text: str, at: list[int]) -> list[str]:
    borders = sorted({0, len(text), *(i for i in at if i < len(text))})
    return [text[i:j] for i, j in pairwise(borders)]


def wrote(d: Dialect, *calls: ToolCall) -> str:
    return "".join(d.write(calls))


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("", name, json.dumps(arguments, ensure_ascii=False))


def meaning(heard: Heard) -> list[tuple[str, object, bool]]:
    return [(name, json.loads(arguments), whole) for name, arguments, whole in heard[2]]


WEATHER = call("get_weather", city="Paris", days=3, exact=True, near=["a", "b"], more={"x": None, "y": [1.5]}, unit="c")
HARD = call("get_weather", city="a \"quoted' \\ {[<| }] 北京 🙂", near=["</tool_call", "```", "[TOOL", '\\"'], days=-1)
NONE = call("add")


@by_dialect
@pytest.mark.parametrize(
    "calls", [[WEATHER], [HARD], [NONE], [WEATHER, HARD, NONE]], ids=["one", "hard", "none", "many"]
)
def test_what_a_dialect_writes_it_reads_back_at_every_split(d: Dialect, calls: list[ToolCall]) -> None:
    text = wrote(d, *calls)
    want = [(c.name, json.loads(c.arguments), True) for c in calls]
    whole = hear(d, [text])
    assert meaning(whole) == want
    assert whole[:2] == ("", "")
    assert hear(d, list(text)) == whole
    for i in range(len(text)):
        assert hear(d, [text[:i], text[i:]]) == whole, f"cut at {i}: {text[:i]!r} | {text[i:]!r}"


@by_dialect
def test_an_answer_that_is_cut_off_has_the_calls_so_far_and_says_which_is_not_whole(d: Dialect) -> None:
    text = wrote(d, WEATHER, HARD)
    first, second = json.loads(WEATHER.arguments), json.loads(HARD.arguments)
    for i in range(len(text)):
        _, _, calls = hear(d, [text[:i]])
        assert all(whole for _, _, whole in calls[:-1])
        assert [json.loads(arguments) for _, arguments, whole in calls if whole] in ([], [first], [first, second])
        assert hear(d, list(text[:i])) == hear(d, [text[:i]])
        for marker in d.markers:
            assert marker not in hear(d, [text[:i]])[0]


@by_dialect
def test_of_a_bound_call_that_is_cut_nothing_is_text(d: Dialect) -> None:
    for text in (wrote(d, WEATHER, NONE), *([] if d.text else [wrote(dialect("generic"), WEATHER, NONE)])):
        for i in range(len(text)):
            heard = hear(d, [text[:i]], bound="all")
            assert heard[0] == "", text[:i]
            assert hear(d, list(text[:i]), bound="all") == heard
            assert heard[2] == hear(d, [text[:i]])[2]
        assert hear(d, [text], bound="all") == hear(d, [text])


@by_dialect
def test_of_a_bound_call_that_a_marker_announced_nothing_is_text(d: Dialect) -> None:
    text, lead = wrote(d, WEATHER, NONE), "" if d.text else "Let me see.\n"
    marker = next((m for m in sorted(d.markers, key=len) if text.startswith(m)), None)
    for i in range(len(marker or text), len(text)):
        said = hear(d, [lead + text[:i]], bound="calls")[0].strip()
        assert said == lead.strip() or not marker, text[:i]
    assert hear(d, [lead + text], bound="calls") == hear(d, [lead + text])


@by_dialect
def test_words_are_said_where_the_model_may_choose_them(d: Dialect) -> None:
    words = "No: {x}\n[1, 2]\n```python\nf(`y`)\n``` <b>"
    assert hear(d, list(d.text + words), bound="calls")[0] == words


@by_dialect
def test_text_around_a_call_is_text_and_reasoning_is_reasoning(d: Dialect) -> None:
    opens, closes = d.think or ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant")
    lead, tail = ("", "")
    if d.name == "harmony":
        lead, tail = "<|channel|>final<|message|>", "<|end|>"
    if d.name == "functionary":
        lead, tail = ">>>all\n", "\n>>>"
    text = f"{opens}\nhm {wrote(d, NONE) if d.think else ''}\n{closes}\n\n{lead}Let me see.{tail}\n{wrote(d, WEATHER)}"
    if d.name == "functionary":
        text = f"all\n{opens}\nhm\n{closes}\n\nLet me see.\n>>>{wrote(d, WEATHER)}"
    said, thought, calls = hear(d, list(text))
    assert said == "Let me see."
    assert thought.strip().startswith("hm")
    assert [name for name, _, _ in calls] == ["get_weather"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("function_gemma", "<start_function_call>call:f{a:<escape>x, {y}<escape>,b:[1,<escape>2<escape>],c:{d:true}}<end_function_call>"),
        ("gemma4", '<|tool_call>call:f{a:<|"|>x, {y}<|"|>,b:[1,<|"|>2<|"|>],c:{d:true}}<tool_call|><|tool_response>response:f{}<tool_response|>'),
        ("gemma4", '<|channel>thought\nhm<channel|><|tool_call>call:f{ <|"|>a<|"|>: "x, {y}", b: [1, \'2\'], c: {d: True} }<tool_call|>'),
    ],
)  # fmt: skip
def test_gemmas_braces_as_its_makers_show_them(name: str, text: str) -> None:
    want = {"a": "x, {y}", "b": [1, "2"], "c": {"d": True}}
    said, thought, calls = hear(dialect(name), list(text), {"f": {}})
    assert (said, thought in ("", "hm")) == ("", True)
    assert [(called, json.loads(arguments), whole) for called, arguments, whole in calls] == [("f", want, True)]
    example = wrote(dialect(name), ToolCall("", "f", json.dumps(want)))
    template = "<start_of_turn> " + " ".join(dialect(name).signs)
    assert choose(template, example, ToolCall("", "f", json.dumps(want))).name == name


@pytest.mark.parametrize("wrong", ["a:[1,]", "a:[,]", "a:", "a:,b:1", "a:[1 2]", "a", "a:{b}", "a:[1"])
def test_what_is_no_value_in_braces_breaks_the_call_off(wrong: str) -> None:
    text = f"<start_function_call>call:f{{z : 1,{wrong}}}<end_function_call>"
    (called,) = hear(dialect("function_gemma"), list(text), {"f": {}})[2]
    assert called == ("f", '{"z": 1', False)


def test_what_nests_too_deeply_in_braces_is_a_call_that_broke_off() -> None:
    for value in ("[" * 1000, "{a:" * 1000):
        (called,) = hear(dialect("function_gemma"), [f"<start_function_call>call:f{{a:{value}"], {"f": {}})[2]
        assert called == ("f", "", False)


ATOMS = ["<", ">", "{", "}", "[", "]", "(", ")", "=", ",", ":", '"', "'", "\\", "`", "\n", " ", "a", "你", "🙂", "function",
         '"name"', '"arguments"', "get_weather", "add", "1", '{"name": "add", "arguments": {', "json", "all"]  # fmt: skip


def atoms(d: Dialect) -> st.SearchStrategy[str]:
    pieces = [WEATHER, NONE]
    markers = [*d.markers, *(d.think or ()), *(piece for piece in d.write(pieces))]
    halves = [m[: len(m) // 2] for m in markers] + [m[len(m) // 2 :] for m in markers]
    return st.lists(st.sampled_from([*ATOMS, "```", "<think>", "</think>", *markers, *halves]), max_size=14).map(
        "".join
    )


@by_dialect
@settings(max_examples=60)
@given(st.data(), st.lists(st.integers(0, 120), max_size=12))
def test_the_outcome_of_any_text_does_not_depend_on_the_cuts(d: Dialect, data: st.DataObject, at: list[int]) -> None:
    text = data.draw(atoms(d))
    whole = hear(d, [text])
    assert hear(d, cut(text, at)) == whole
    assert hear(d, list(text)) == whole
    bare = re.sub("|".join(map(re.escape, sorted(d.markers, key=len, reverse=True))), "", text) if d.markers else text
    for marker in d.markers:  # halves that meet where another was taken out are text
        assert marker not in whole[0] or marker in bare, "a marker is shown"


@by_dialect
@given(st.text(alphabet="ab .,!?\n你🙂-", max_size=40))
@example("Hi.")
def test_plain_text_is_shown_as_it_is(d: Dialect, text: str) -> None:
    said, thought, calls = hear(d, list(text))
    assert (said.strip(), thought, calls) == (text.strip(), "", []) or d.name == "functionary"


@by_dialect
def test_without_tools_an_answer_is_text_alone(d: Dialect) -> None:
    if not d.always:
        assert hear(d, [wrote(d, WEATHER)], {}) == (wrote(d, WEATHER), "", [])


@pytest.mark.parametrize("name", ["glm", "qwen3_coder", "pythonic", "gemma"])
def test_what_cannot_be_written_as_members_is_refused(name: str) -> None:
    with pytest.raises(ChatError, match="get_weather"):
        wrote(dialect(name), replace(WEATHER, arguments='{"a": '))


def test_a_dialect_nobody_knows_is_refused_with_the_closest() -> None:
    with pytest.raises(ChatError, match="Closest: hermes"):
        dialect("hermess")


GENERIC = dialect("generic")
FENCED = '```json\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n```'
ROME = ("get_weather", '{"city": "Rome"}', True)


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        (FENCED, "", [ROME]),
        (f"Sure:\n{FENCED}\n\n{FENCED}\nDone.", "Sure:\nDone.", [ROME, ROME]),
        ('{"name": "get_weather", "arguments": {"city": "Rome"}}', "", [ROME]),
        ('{"arguments": {"city": "Rome"}, "name": "get_weather"}', "", [ROME]),
        ('{"name": "get_weather", "parameters": "{\\"city\\": \\"Rome\\"}"}', "", [ROME]),
        ('[{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]', "", [ROME]),
        ('{"name": "add"}', "", [("add", "{}", True)]),
        ('{"name": "add", "arguments": null}', "", [("add", "{}", True)]),
        # An answer in JSON stays an answer, and so does a call of what is not there (the default model makes some up).
        ('{"name": "greet", "arguments": {"a": 1}}', '{"name": "greet", "arguments": {"a": 1}}', []),
        ('```json\n{"name": "Alice", "age": 30}\n```', '```json\n{"name": "Alice", "age": 30}\n```', []),
        ('{"name": "add", "price": 3}', '{"name": "add", "price": 3}', []),
        ('{"city": "Rome"}', '{"city": "Rome"}', []),
        ("[1, 2]\n{x}", "[1, 2]\n{x}", []),
        ("```python\nprint({})\n```\nok", "```python\nprint({})\n```\nok", []),
        ('Like {"name": "add"}', 'Like {"name": "add"}', []),
        ('{"name": "gr', '{"name": "gr', []),
        # What breaks off or is malformed after its name is a call with the arguments as written.
        ('{"name": "get_weather", "arguments": {"city": "Ro', "", [("get_weather", '{"city": "Ro', False)]),
        ('{"name": "add", "arguments": {"a": 1,}}', "", [("add", '{"a": 1,}', True)]),
        ('{"name": "add", "arguments": {\'a\': \'x}\'}}', "", [("add", "{'a': 'x}'}", True)]),
    ],
)
def test_json_without_markers_is_a_call_if_it_names_a_tool(text: str, said: str, calls: list[object]) -> None:
    for pieces in ([text], list(text)):
        assert hear(GENERIC, pieces)[::2] == (said, calls)


@pytest.mark.parametrize(
    ("name", "text", "said", "calls"),
    [
        ("hermes", "<tool_call>\nnothing like it\n</tool_call>", "nothing like it\n", []),
        ("hermes", '<tool_call>{"name": "new", "arguments": {}}}\n</tool_call>', "", [("new", "{}", True)]),
        ("hermes", '<tool_call>{"name": "add", "argum', "", [("add", "", False)]),
        ("hermes", '<tool_call>{"name": "add", "arguments": ', "", [("add", "", False)]),
        ("hermes", '{"name": "add", "arguments": {}}\n</tool_call>', "", [("add", "{}", True)]),
        ("hermes", '<tools>\n{"name": "add", "arguments": {}}\n</tools>', "", [("add", "{}", True)]),
        ("hermes", '<tool_call>{"name": "add", "arguments": {"a": "</tool_call>"}}</tool_call>', "",
         [("add", '{"a": "</tool_call>"}', True)]),
        ("mistral", '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]add{"a": 2}', "",
         [("add", '{"a": 1}', True), ("add", '{"a": 2}', True)]),
        ("mistral", '[TOOL_CALLS]add[CALL_ID]abc123def[ARGS]{}', "", [("add", "{}", True)]),
        ("deepseek", '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 1}\n```'
         "<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "", [("add", '{"a": 1}', True)]),
        ("llama3", '<|python_tag|>brave_search.call(query="x y")', "", [("brave_search", '{"query": "x y"}', True)]),
        ("llama3", '{"name": "add", "parameters": {"a": 1}}; {"name": "add", "parameters": {"a": 2}}', "",
         [("add", '{"a": 1}', True), ("add", '{"a": 2}', True)]),
        ("llama3", '<function=add>{"a": 1}</function>', "", [("add", '{"a": 1}', True)]),
        ("pythonic", "[add(a=1), get_weather('Rome', near=('x',), exact=True)]", "",
         [("add", '{"a": 1}', True), ("get_weather", '{"city": "Rome", "near": ["x"], "exact": true}', True)]),
        ("pythonic", "[other(a=1)]", "[other(a=1)]", []),
        ("gemma", "```tool_code\nprint(add(a=1))\n```", "", [("add", '{"a": 1}', True)]),
        ("gemma", "```python\nx\n```", "```python\nx\n```", []),
        ("phi", 'functools[{"name": "add", "arguments": {"a": 1}}]', "", [("add", '{"a": 1}', True)]),
        ("phi", "import functools[1]", "import functools[1]", []),
        ("granite", '<tool_call>{"name": "add", "arguments": {}}</tool_call>', "", [("add", "{}", True)]),
        ("harmony", ' to=functions.add<|channel|>commentary json<|message|>{"a": 1}<|call|>', "",
         [("add", '{"a": 1}', True)]),
        ("harmony", "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>",
         "Hi", []),
        ("harmony", "Hi", "Hi", []),
        ("qwen3_coder", "<function=get_weather>\n<parameter=city>\n5\n</parameter>\n<parameter=days>\n5\n</parameter>\n"
         "</function>", "", [("get_weather", '{"city": "5", "days": 5}', True)]),
        ("qwen3_coder", "<function=get_weather>\n<parameter=exact>\nTrue\n</parameter>\n<parameter=more>\n{'x': None}\n</parameter>\n"
         "<parameter=city>\nTrue\n</parameter>\n</function>", "",
         [("get_weather", '{"exact": true, "more": {"x": null}, "city": "True"}', True)]),
        ("glm", '<tool_call>get_weather<arg_key>near</arg_key><arg_value>["</arg_value>"]</arg_value></tool_call>', "",
         [("get_weather", '{"near": ["</arg_value>"]}', True)]),
        ("pythonic", "<|tool_call_start|>[add(a=1)]<|tool_call_end|>", "", [("add", '{"a": 1}', True)]),
        ("pythonic", "[get_weather(more={'x': true, \"y\": None})]", "",
         [("get_weather", '{"more": {"x": true, "y": null}}', True)]),
        ("qwen3_coder", "<tool_call>\n<function=add>\n<parameter=a>\n1", "", [("add", "", False)]),
        ("kimi_k2", "<|tool_call_begin|>functions.a.b:12<|tool_call_argument_begin|>{}<|tool_call_end|>", "",
         [("a.b", "{}", True)]),
        ("functionary", "all\nHi.", "Hi.", []),
        ("command_r", "<|START_RESPONSE|>Hi.<|END_RESPONSE|>", "Hi.", []),
    ],
)  # fmt: skip
def test_what_models_write_besides(name: str, text: str, said: str, calls: list[object]) -> None:
    for pieces in ([text], list(text)):
        assert hear(dialect(name), pieces)[::2] == (said, calls)


@by_dialect
def test_deep_nesting_is_read_to_its_end(d: Dialect) -> None:
    """An answer nested past every limit is still an answer: what it says is there, and nothing is lost."""
    for depth in (150, 3000):
        deep = ToolCall("", "add", '{"a": ' + "[" * depth + "1" + "]" * depth + "}")
        if d.style is None:
            assert hear(d, [wrote(d, deep)])[2] == [("add", deep.arguments, True)]
        said = hear(d, [d.text + "[" * depth + "x"])[0]
        assert said == "[" * depth + "x"


@pytest.mark.parametrize("value", ["-" * 15_000 + "1", "[" * 300 + "1" + "]" * 300])
def test_a_python_value_too_deep_to_look_into_is_kept_as_it_is_written(value: str) -> None:
    _, _, [(name, arguments, whole)] = hear(dialect("pythonic"), [f"[add(a={value})]"])
    assert (name, json.loads(arguments), whole) == ("add", {"a": value}, True)


def test_blanks_between_a_call_and_what_is_said_after_it_are_not_shown() -> None:
    assert hear(dialect("hermes"), list(wrote(dialect("hermes"), WEATHER) + " \n\n Done. \n"))[0] == "Done. \n"


def test_half_a_character_is_no_json() -> None:
    assert decode('"\\ud83d"') is None
    assert decode('"\\ud83d\\ude42"') == "🙂"
