"""A row to learn from holds nothing that names a person, wherever in it that stood, and is still a row."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myna.checks.pii import find_pii
from myna.checks.scrub import scrubbed
from myna.records import Candidate, Conversation, Message, Tokens, ToolCall

PHONE, MAIL, CARD = "13812345678", "wang@example.com", "4111111111111111"


def test_the_same_value_is_the_same_placeholder_wherever_it_stands() -> None:
    talk = Conversation(
        (
            Message("user", f"请打电话{PHONE}"),
            Message("assistant", "好", reasoning_content=f"the number is {PHONE}"),
            Message("assistant", "", tool_calls=(ToolCall("1", "call", json.dumps({"to": PHONE, "cc": [MAIL]})),)),
        ),
        candidates=(Candidate((Message("assistant", f"I called {PHONE}"),)),),
        target=f"{PHONE} or {MAIL}",
    )
    row, values = scrubbed(talk)
    assert values == 2
    assert [m.text for m in row.messages] == ["请打电话<PHONE_1>", "好", ""]
    assert row.messages[1].reasoning_content == "the number is <PHONE_1>"
    assert json.loads(row.messages[2].tool_calls[0].arguments) == {"to": "<PHONE_1>", "cc": ["<EMAIL_1>"]}
    assert row.candidates[0].text == "I called <PHONE_1>"
    assert row.target == "<PHONE_1> or <EMAIL_1>"


def test_a_number_in_arguments_is_masked_and_the_arguments_stay_json() -> None:
    call = ToolCall("1", "pay", f'{{"card": {CARD}, "amount": 7, "ok": true, "note": null}}')
    row, _ = scrubbed(Conversation((Message("assistant", "", tool_calls=(call,)),)))
    assert json.loads(row.messages[0].tool_calls[0].arguments) == {
        "card": "<CREDIT_CARD_1>", "amount": 7, "ok": True, "note": None,
    }  # fmt: skip


def test_tokens_of_a_changed_message_are_dropped_and_others_kept() -> None:
    kept, changed = (
        Message("assistant", "hello", tokens=Tokens((1, 2))),
        Message("assistant", MAIL, tokens=Tokens((3,))),
    )
    row, _ = scrubbed(Conversation((Message("user", "?"), kept, Message("user", "?"), changed)))
    assert (row.messages[1].tokens, row.messages[3].tokens) == (Tokens((1, 2)), None)


def test_a_row_without_any_is_as_it_was() -> None:
    talk = Conversation.of(("user", "几点?"), ("assistant", "三点 3.14 1912"))
    assert scrubbed(talk) == (talk, 0)


personal = st.sampled_from([PHONE, MAIL, CARD, "11010519491231002X", "sk-abcdefghijklmnopqrstuvwxyz", "192.168.10.20"])
texts = st.lists(
    st.one_of(personal, st.sampled_from(["call", "电话", " ", "\n", "<PHONE_1>", "{", '"'])), max_size=6
).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=4))
def test_nothing_is_found_in_what_was_scrubbed(said: list[str]) -> None:
    row, _ = scrubbed(Conversation(tuple(Message("user", text) for text in said)))
    assert [span for message in row.messages for span in find_pii(message.text)] == []


@pytest.mark.parametrize("arguments", ["not json 13812345678", '{"a": [[["13812345678"]]]}', "13812345678"])
def test_arguments_of_any_kind_are_looked_at(arguments: str) -> None:
    row, values = scrubbed(Conversation((Message("assistant", "", tool_calls=(ToolCall("1", "f", arguments),)),)))
    assert values == 1
    assert "138" not in row.messages[0].tool_calls[0].arguments
