"""Chats that other programs export are found as what was said, not as JSON."""

import asyncio
import json
from pathlib import Path
from typing import Any

from myna.apps.index.file import FileIndex
from myna.apps.index.reading import read_file

MARCH = 1709632800  # 5 March 2024


def chatgpt(title: str, *said: str, at: float = MARCH) -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    for i, text in enumerate(said):
        author = {"role": "assistant" if i % 2 else "user"}
        message = {"author": author, "content": {"content_type": "text", "parts": [text]}}
        nodes[f"n{i}"] = {"parent": f"n{i - 1}" if i else None, "message": message}
    return {"title": title, "update_time": at, "mapping": nodes, "current_node": f"n{len(said) - 1}"}


def test_an_export_is_found_by_what_was_said_under_its_title_and_day(tmp_path: Path) -> None:
    path = tmp_path / "conversations.json"
    rows = [
        chatgpt("Boat paint", "Which paint did I choose for the hull?", "You chose Hempel Blue 30390.", at=MARCH - 86_400),
        chatgpt("红烧肉", "奶奶的红烧肉放什么酒？", "放绍兴黄酒，两勺。"),
    ]  # fmt: skip
    path.write_text(json.dumps(rows), encoding="ascii")  # Chinese as \\uXXXX, as ChatGPT writes it
    document = read_file(path)
    assert document.parsed.kind == "talk"
    assert document.parsed.date == "2024-03-05"
    assert [one.title for one in document.parsed.sections] == ["Boat paint (2024-03-04)", "红烧肉 (2024-03-05)"]
    index = FileIndex(tmp_path / "i.sqlite")
    asyncio.run(index.add([document]))
    for query, says, title in (
        ("hull paint", "assistant: You chose Hempel Blue 30390.", "Boat paint"),
        ("红烧肉放什么酒", "绍兴黄酒", "红烧肉"),
    ):
        hit = asyncio.run(index.search(query, 1)).hits[0]
        assert says in hit.text
        assert "mapping" not in hit.text
        assert hit.path[0].startswith(title)
    index.close()


def test_json_lines_of_conversations_and_of_something_else_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    talks = {
        "messages": [
            {"role": "user", "content": "Where is the key?"},
            {"role": "assistant", "content": "Under the pier."},
        ]
    }
    path.write_text(f"{json.dumps(talks)}\n\n{json.dumps({'note': '钥匙'})}\n", encoding="utf-8")
    parsed = read_file(path).parsed
    assert parsed.text.startswith("Where is the key?\n\nuser: Where is the key?\n\nassistant: Under the pier.")
    assert "钥匙" in parsed.text
    assert "1 rows that are no conversation" in parsed.notes
    assert parsed.sections[0].title == "Where is the key?"


def test_a_turn_that_was_not_shown_is_hidden_and_pictures_are_counted(tmp_path: Path) -> None:
    row = chatgpt("Plan", "Be evil.", "Yes.")
    row["mapping"]["n0"]["message"]["metadata"] = {"is_visually_hidden_from_conversation": True}
    row["mapping"]["n1"]["message"]["content"]["parts"].append({"content_type": "image_asset_pointer"})
    path = tmp_path / "c.json"
    path.write_text(json.dumps([row]), encoding="utf-8")
    parsed = read_file(path).parsed
    assert "Be evil." not in parsed.visible(0, len(parsed.text))
    assert "Yes." in parsed.visible(0, len(parsed.text))
    assert any("no text" in note for note in parsed.notes)


def test_json_that_is_no_conversation_is_text_and_can_be_found(tmp_path: Path) -> None:
    for name, raw, says in (
        ("a.json", json.dumps({"茶": "龙井茶"}), "龙井茶"), ("b.json", "{broken \\u8336", "{broken"), ("c.jsonl", '{"a": 1}\n{"b": "\\u8336"}', "茶"),
        ("d.json", "[" * 100_000, "[[["), ("e.json", '{"a":   1}', '{"a":   1}'), ("f.json", "7", "7"),
    ):  # fmt: skip
        path = tmp_path / name
        path.write_text(raw, encoding="utf-8")
        parsed = read_file(path).parsed
        assert (parsed.kind, says in parsed.text) == ("text", True), name
