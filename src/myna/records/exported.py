"""Conversations as chat programs export them: who said what, under which title, when. Which program it was is told from the row itself.

messages         [{"role", "content"}]: OpenAI's, our own, and most programs'
conversations    [{"from", "value"}]: ShareGPT's
mapping          ChatGPT's conversations.json: a tree, of which the branch that was shown last is read
chat_messages    Claude's conversations.json
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from myna.records.conversation import Role

# Who speaks, in the words of the programs.
SPEAKERS: dict[str, Role] = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), "assistant"),
    "system": "system",
}
OTHERS: dict[str, Role] = {
    "developer": "system",
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """`hidden`: the program did not show it."""

    role: Role
    text: str
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Talk:
    """at      when it was last changed, else begun: seconds since 1970, or as it was written; None where nobody says
    unread  parts that are no text, such as pictures, and turns of nobody who is known"""

    title: str
    at: float | str | None
    turns: tuple[Turn, ...]
    unread: int = 0


def talk(row: object) -> Talk | None:
    """The conversation of a row; None where it is none, or nothing was said in it."""
    if not isinstance(row, dict):
        return None
    found = next(((name, read) for name, read in KINDS.items() if isinstance(row.get(name), list | dict)), None)
    said = [*found[1](row, row[found[0]])] if found else []
    turns = tuple(one for one in said if one and one.text.strip())
    if not turns:
        return None
    at = next((row[name] for name in TIMES if isinstance(row.get(name), float | int | str) and row[name]), None)
    title = next((row[name] for name in ("title", "name") if isinstance(row.get(name), str)), "")
    return Talk(title, at, turns, sum(one is None for one in said))


TIMES = ("update_time", "updated_at", "create_time", "created_at", "date", "time")
Read = Callable[[dict[str, Any], Any], Iterator[Turn | None]]  # None: something that cannot be read as text


def _messages(row: dict[str, Any], given: Any) -> Iterator[Turn | None]:
    for one in given if isinstance(given, list) else ():
        yield from _turn(one, "role", "content")


def _sharegpt(row: dict[str, Any], given: Any) -> Iterator[Turn | None]:
    for one in given if isinstance(given, list) else ():
        yield from _turn(one, "from", "value")


def _claude(row: dict[str, Any], given: Any) -> Iterator[Turn | None]:
    for one in given if isinstance(given, list) else ():
        yield from _turn(one, "sender", "text" if isinstance(one, dict) and one.get("text") else "content")


def _chatgpt(row: dict[str, Any], given: Any) -> Iterator[Turn | None]:
    """From the last node shown up to the root; where nobody says which that is, the last that is written down."""
    nodes = cast(dict[str, Any], given) if isinstance(given, dict) else {}
    name: object = row.get("current_node")
    if not isinstance(name, str) or name not in nodes:
        name = next(reversed(nodes), None)
    branch: list[dict[str, Any]] = []
    seen: set[object] = set()
    while isinstance(name, str) and name not in seen and isinstance(node := nodes.get(name), dict):
        seen.add(name)
        branch.append(node)
        name = node.get("parent")
    for node in reversed(branch):
        if isinstance(message := node.get("message"), dict):
            author, meta = message.get("author"), message.get("metadata")
            hidden = isinstance(meta, dict) and meta.get("is_visually_hidden_from_conversation") is True
            who = author.get("role") if isinstance(author, dict) else None
            yield from _turn({"who": who, "said": message.get("content")}, "who", "said", hidden)


KINDS: dict[str, Read] = {
    "mapping": _chatgpt, "chat_messages": _claude, "messages": _messages, "conversations": _sharegpt,
}  # fmt: skip


def _turn(one: object, who: str, what: str, hidden: bool = False) -> Iterator[Turn | None]:
    role = (SPEAKERS | OTHERS).get(str(one.get(who)).lower()) if isinstance(one, dict) else None
    if not isinstance(one, dict) or role is None:
        yield None
        return
    texts, unread = _texts(one.get(what))
    yield Turn(role, "\n".join(texts), hidden)
    yield from [None] * unread


def _texts(content: object) -> tuple[list[str], int]:
    """The texts of a content, and how many parts of it are none: a text, {"text"}, {"parts"}, or a list of these."""
    if isinstance(content, str):
        return [content], 0
    if isinstance(content, dict):
        inner = next((content[name] for name in ("parts", "text") if content.get(name) is not None), None)
        return _texts(inner) if isinstance(inner, str | list) else ([], 1)
    if not isinstance(content, list):
        return [], int(content is not None)
    found = [
        ([one], 0) if isinstance(one, str)
        else ([one["text"]], 0) if isinstance(one, dict) and isinstance(one.get("text"), str)
        else ([], 1)
        for one in content
    ]  # fmt: skip
    return [text for texts, _ in found for text in texts], sum(unread for _, unread in found)
