"""Conversations of other programs are read whole, from rows of any shape, and what is none is None."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from myna.records.exported import Turn, talk


def node(role: str, said: Any, parent: str | None, **meta: Any) -> dict[str, Any]:
    return {"parent": parent, "message": {"author": {"role": role}, "content": said, "metadata": meta}}


def words(*parts: Any) -> dict[str, Any]:
    return {"content_type": "text", "parts": [*parts]}


CHATGPT = {
    "title": "Boat paint",
    "create_time": 1709632800.5,
    "mapping": {
        "root": {"parent": None, "message": None},
        "s": node("system", words("Be kind."), "root", is_visually_hidden_from_conversation=True),
        "u": node("user", words("Which paint?", {"content_type": "image_asset_pointer"}), "s"),
        "old": node("assistant", words("Green."), "u"),
        "new": node("assistant", words("Blue 30390."), "u"),
        "code": node("tool", {"content_type": "code", "text": "4"}, "new"),
        "late": node("assistant", words("Never shown."), "old"),
    },
    "current_node": "code",
}


def test_of_chatgpts_tree_the_branch_that_was_shown_last_is_read() -> None:
    found = talk(CHATGPT)
    assert found is not None
    assert (found.title, found.at, found.unread) == ("Boat paint", 1709632800.5, 1)
    assert found.turns == (
        Turn("system", "Be kind.", hidden=True), Turn("user", "Which paint?"), Turn("assistant", "Blue 30390."), Turn("tool", "4"),
    )  # fmt: skip
    last = talk({"mapping": CHATGPT["mapping"]})
    assert last is not None
    assert last.turns[-1].text == "Never shown."


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"messages": [{"role": "user", "content": "茶？"}, {"role": "assistant", "content": [{"type": "text", "text": "龙井"}]}]}, ["茶？", "龙井"]),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, ["Hi", "Hello"]),
        ({"name": "x", "chat_messages": [{"sender": "human", "text": "Hi"}, {"sender": "assistant", "text": "", "content": [{"type": "text", "text": "Hello"}]}]}, ["Hi", "Hello"]),
    ],
)  # fmt: skip
def test_other_programs_rows_are_read(row: dict[str, Any], turns: list[str]) -> None:
    found = talk(row)
    assert found is not None
    assert [turn.text for turn in found.turns] == turns
    assert [turn.role for turn in found.turns] == ["user", "assistant"]


def test_turns_of_nobody_and_parts_that_are_no_text_are_counted() -> None:
    found = talk(
        {"messages": [{"role": "ghost", "content": "x"}, "y", {"role": "user", "content": ["a", 1, {"b": 2}]}]}
    )
    assert found is not None
    assert ([turn.text for turn in found.turns], found.unread) == (["a"], 4)


def test_a_tree_that_goes_in_a_circle_ends() -> None:
    ring = {"a": node("user", words("A"), "b"), "b": node("assistant", words("B"), "a")}
    found = talk({"mapping": ring, "current_node": "a"})
    assert found is not None
    assert len(found.turns) == 2


json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["user", "human", "a", "b"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["messages", "conversations", "mapping", "chat_messages", "role", "from", "sender", "content", "value", "text", "parts", "parent",
         "message", "author", "metadata", "current_node", "title", "name", "update_time", "a", "b"]), inner, max_size=5),
    max_leaves=25,
)  # fmt: skip


@given(json)
@example({"mapping": {"a": 1}, "current_node": []})
def test_whatever_json_it_is_it_is_a_conversation_or_none(row: Any) -> None:
    found = talk(row)
    assert found is None or all(turn.text.strip() for turn in found.turns)
