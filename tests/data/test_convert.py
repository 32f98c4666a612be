"""Everybody's rows: each format is told from the row, and read without losing or inventing a word."""

import json

import pytest

from myna.data import FORMATS, with_best
from myna.data.convert import convert, tell
from myna.records import Conversation, DataError, Document, Message

# A row of each format, and what it says: roles and texts of the prompt, then of each candidate with its score.
USER, ASSISTANT = "user", "assistant"
ROWS: list[tuple[str, dict[str, object], list[tuple[str, str]], list[tuple[float, str]]]] = [
    (
        "messages",
        {"messages": [{"role": "user", "content": "二加二？"}, {"role": "assistant", "content": "四"}]},
        [(USER, "二加二？"), (ASSISTANT, "四")],
        [],
    ),
    (
        "openai_preference",
        {
            "input": {"messages": [{"role": "user", "content": "Hi"}], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [{"role": "assistant", "content": "Hello!"}],
            "non_preferred_output": [{"role": "assistant", "content": "What?"}],
        },
        [(USER, "Hi")],
        [(1.0, "Hello!"), (0.0, "What?")],
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "system": "Be kind."},
        [("system", "Be kind."), (USER, "Hi"), (ASSISTANT, "Hello")],
        [],
    ),
    (
        "sharegpt",
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "Go"},
        },
        [(USER, "Hi")],
        [(1.0, "Hello"), (0.0, "Go")],
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Go"}], "kto_tag": False},
        [(USER, "Hi")],
        [(0.0, "Go")],
    ),
    (
        "chatgpt",
        {
            "title": "Tea",
            "mapping": {
                "r": {"parent": None, "message": None},
                "h": {
                    "parent": "r",
                    "message": {
                        "author": {"role": "system"},
                        "content": {"parts": ["Hidden."]},
                        "metadata": {"is_visually_hidden_from_conversation": True},
                    },
                },
                "u": {"parent": "h", "message": {"author": {"role": "user"}, "content": {"parts": ["茶？"]}}},
                "a": {"parent": "u", "message": {"author": {"role": "assistant"}, "content": {"parts": ["龙井"]}}},
            },
            "current_node": "a",
        },
        [(USER, "茶？"), (ASSISTANT, "龙井")],
        [],
    ),
    (
        "claude",
        {
            "uuid": "1",
            "name": "Tea",
            "chat_messages": [{"sender": "human", "text": "Tea?"}, {"sender": "assistant", "text": "Longjing."}],
        },
        [(USER, "Tea?"), (ASSISTANT, "Longjing.")],
        [],
    ),
    ("labelled", {"text": "Fine film.", "label": 0}, [(USER, "Fine film.")], []),
    ("targeted", {"text": "好电影", "target": "good"}, [(USER, "好电影")], []),
    (
        "matched",
        {"query": "2+2?", "positive": "4", "negatives": ["3", "5"]},
        [(USER, "2+2?")],
        [(1.0, "4"), (0.0, "3"), (0.0, "5")],
    ),
    (
        "matched",
        {"anchor": "2+2?", "positive": "4", "negative": "3"},
        [(USER, "2+2?")],
        [(1.0, "4"), (0.0, "3")],
    ),
    (
        "hh",
        {
            "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: good",
            "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: bad",
        },
        [(USER, "a"), (ASSISTANT, "b"), (USER, "c")],
        [(1.0, "good"), (0.0, "bad")],
    ),
    (
        "hh",  # the questions differ too: what is shared ends before the answer that came first
        {
            "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: good",
            "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: d\n\nAssistant: bad",
        },
        [(USER, "a")],
        [(1.0, "good"), (0.0, "bad")],
    ),
    (
        "preference",
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go"},
        [(USER, "Hi")],
        [(1.0, "Hello"), (0.0, "Go")],
    ),
    (
        "preference",
        {
            "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
            "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Go"}],
        },
        [(USER, "Hi")],
        [(1.0, "Hello"), (0.0, "Go")],
    ),
    ("judged", {"prompt": "Hi", "completion": "Hello", "label": True}, [(USER, "Hi")], [(1.0, "Hello")]),
    (
        "self_instruct",
        {"id": "t0", "instruction": "Add.", "instances": [{"input": "2 2", "output": "4"}], "is_classification": False},
        [(USER, "Add.\n\n2 2"), (ASSISTANT, "4")],
        [],
    ),
    (
        "alpaca",
        {"instruction": "Add.", "input": "2 2", "output": "4", "history": [["Ready?", "Yes"]], "system": "Short."},
        [("system", "Short."), (USER, "Ready?"), (ASSISTANT, "Yes"), (USER, "Add.\n\n2 2"), (ASSISTANT, "4")],
        [],
    ),
    (
        "alpaca",
        {"instruction": "问", "input": "", "output": ["最好", "一般", "差"]},
        [(USER, "问")],
        [(1.0, "最好"), (0.5, "一般"), (0.0, "差")],
    ),
    (
        "dolly",
        {"instruction": "Who?", "context": "Ada wrote it.", "response": "Ada", "category": "closed_qa"},
        [(USER, "Who?\n\nAda wrote it."), (ASSISTANT, "Ada")],
        [],
    ),
    ("completion", {"prompt": "Hi", "completion": "Hello"}, [(USER, "Hi"), (ASSISTANT, "Hello")], []),
    (
        "response",
        {
            "prompt": "Below is an instruction that describes a task. Write a response that appropriately completes the "
            "request.\n\n### Instruction:\nwhat is water?\n\n### Response:\n",
            "response": "H2O",
        },
        [(USER, "what is water?"), (ASSISTANT, "H2O")],
        [],
    ),
    ("question", {"question": "2+2?", "answer": "#### 4", "idx": 7}, [(USER, "2+2?"), (ASSISTANT, "#### 4")], []),
]


@pytest.mark.parametrize(("name", "row", "turns", "answers"), ROWS, ids=[f"{r[0]}{i}" for i, r in enumerate(ROWS)])
def test_a_row_says_what_it_said(
    name: str, row: dict[str, object], turns: list[tuple[str, str]], answers: list[tuple[float, str]]
) -> None:
    format = tell(row)
    assert format.name == name
    (record,) = convert(row, format)
    assert isinstance(record, Conversation)
    assert [(m.role, m.text) for m in record.messages] == turns
    assert [(c.score, c.text) for c in record.candidates] == answers
    assert Conversation.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_fields_without_a_place_of_their_own_are_kept_in_meta() -> None:
    row = {"instruction": "Who?", "response": "Ada", "category": "qa", "id": 3}
    (record,) = convert(row, tell(row))
    assert isinstance(record, Conversation)
    assert record.id == "3"
    assert record.meta == {"category": "qa"}


def test_a_tool_call_and_its_result_know_each_other() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "Weather in Ulm?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"town": "Ulm"}}'},
            {"from": "observation", "value": '{"sky": "grey"}'},
            {"from": "gpt", "value": "Grey."},
        ],
        "tools": '[{"name": "weather", "parameters": {"type": "object"}}]',
    }
    (record,) = convert(row, tell(row))
    assert isinstance(record, Conversation)
    call, result = record.messages[1].tool_calls[0], record.messages[2]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"town": "Ulm"})
    assert (result.role, result.tool_call_id) == ("tool", call.id)
    assert record.tools == ({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}},)


def test_a_tree_gives_every_answered_turn_once_with_answers_in_order_of_rank() -> None:
    def node(who: str, text: str, *replies: dict[str, object], **more: object) -> dict[str, object]:
        return {"message_id": text, "text": text, "role": who, "replies": list(replies)} | more

    gone = node("assistant", "gone", deleted=True)
    row = {
        "message_tree_id": "t",
        "prompt": node(
            "prompter",
            "q",
            node("assistant", "worse", rank=1),
            node("assistant", "better", node("prompter", "more?", node("assistant", "yes")), rank=0),
            gone,
        ),
    }
    first, second = convert(row, tell(row))
    assert isinstance(first, Conversation)
    assert isinstance(second, Conversation)
    assert [(c.score, c.text) for c in first.candidates] == [(1.0, "better"), (0.0, "worse")]
    assert [m.text for m in second.messages] == ["q", "better", "more?"]
    assert second.messages[1].weight == 0
    assert with_best(first).messages == (Message("user", "q"), Message("assistant", "better"))


INTRO = "Below is an instruction that describes a task, paired with an input that provides further context. Do it.\n\n"


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        (INTRO + "### Instruction:\nAdd.\n\n### Input:\n2 2\n\n### Response:", "Add.\n\n2 2"),
        (INTRO + "### Instruction:\nAdd.\n\n### Response:\n", "Add."),
        (INTRO + "### Instruction:\nAdd.", None),
        (INTRO + "### Instruction:\nAdd.\n\n### Response:\nSure:", None),
        ("### Instruction:\nAdd.\n\n### Response:\n", None),
    ],
)
def test_alpacas_words_around_a_prompt_are_taken_off_if_they_are_all_there(prompt: str, asked: str | None) -> None:
    (record,) = convert({"prompt": prompt, "completion": "4"}, FORMATS["completion"])
    assert isinstance(record, Conversation)
    assert record.messages[0].text == (prompt if asked is None else asked)


def test_plain_text_is_a_document() -> None:
    row = {"text": "床前明月光", "title": "静夜思"}
    assert convert(row, tell(row)) == [Document("床前明月光", meta={"title": "静夜思"})]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"instruction": "a", "ouput": "b"}, "no format fits .* instruction, ouput.*alpaca: 'output' is not there"),
        ({"instruction": "a", "output": 4}, "'output' is an integer, not a string or a list"),
        ({"question": "2+2?", "choices": ["3", "4"], "answer": "4"}, "fields that would be left behind"),
        ({"text": "Fine film.", "answer": "0"}, "looks like text, but has fields"),
        ({"text": "Sort a list.", "code": "sorted(x)"}, "looks like text, but has fields"),
        ([1], "row: expected an object, found a list"),
    ],
)
def test_an_unknown_row_is_told_what_it_lacks(row: object, error: str) -> None:
    with pytest.raises(DataError, match=error):
        tell(row)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content: expected a string or a list"),
        ({"messages": [{"role": "boss", "content": "a"}]}, "messages.0.role: 'boss' is not one of"),
        ({"messages": [], "functions": [{"name": "f"}]}, "functions: is OpenAI's old form"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "messages.0.function_call: is"),
        ({"messages": [], "images": ["a.png"]}, "images: no model here sees pictures"),
        ({"conversations": [{"from": "narrator", "value": "a"}]}, "conversations.0.from: 'narrator' is none of"),
        ({"conversations": [{"from": "human", "value": 3}]}, "conversations.0.value: expected a string"),
        ({"conversations": [{"from": "observation", "value": "3"}]}, "conversations.0.from: .*no call before it"),
        ({"conversations": [{"from": "function_call", "value": "f(3)"}]}, "conversations.0.value: not JSON"),
        ({"conversations": [], "tools": '{"name": "f"}'}, "tools: expected a list of objects"),
        ({"mapping": {}}, "mapping: nothing was said"),
        (
            {"chat_messages": [{"sender": "human", "text": "a"}, {"sender": "tool", "text": "3"}]},
            "chat_messages: has .* what a tool said",
        ),
        ({"instruction": "a", "output": ["b", 3]}, "output.1: expected a string, found an integer"),
        ({"instruction": "a", "output": "b", "history": [["q"]]}, "history.0: expected a question and its answer"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}, "share no question"),
        ({"instruction": "a", "instances": [{"input": "b"}]}, "instances.0.output: missing"),
    ],
)
def test_a_bad_row_is_told_which_field(row: object, error: str) -> None:
    with pytest.raises(DataError, match=error):
        convert(row, tell(row))


def test_every_format_is_told_by_a_row_of_this_file() -> None:
    assert set(FORMATS) - {row[0] for row in ROWS} == {"oasst", "text"}
