"""An answer made to be slow to read costs no more by the character than any other."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any, SupportsIndex

import pytest

import myna.chat
from myna.chat.dialects import Dialect, dialect, dialects
from myna.chat.stream import TextStream, plain
from myna.chat.values import MAX_DEPTH, decode
from myna.records import Json

ROOM = str(Path(myna.chat.__file__).parent)
TOOLS: dict[str, Json] = {"add": {"type": "object", "properties": {"a": {"type": "number"}}}}
ALL = [dialect(name) for name in dialects()]


class Counted(str):
    """A text that counts the characters that are copied out of it."""

    __slots__ = ()
    copied = 0

    def __getitem__(self, key: "SupportsIndex | slice[Any, Any, Any]") -> str:
        found = super().__getitem__(key)
        Counted.copied += len(found)
        return Counted(found)

    def __add__(self, other: str) -> str:
        Counted.copied += len(self) + len(other)
        return Counted(super().__add__(other))

    def __radd__(self, other: str) -> str:
        Counted.copied += len(self) + len(other)
        return Counted(other + str(self))


def work(d: Dialect, pieces: list[str]) -> int:
    """Lines of the room's code that run, and characters that are copied, while an answer is read."""
    lines = 0

    def line(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return line

    def call(frame: FrameType, event: str, arg: object) -> Any:
        return line if frame.f_code.co_filename.startswith(ROOM) else None

    reader = d.reader(TOOLS)
    Counted.copied, before = 0, sys.gettrace()
    sys.settrace(call)
    try:
        for piece in pieces:
            reader.push(Counted(piece))
        reader.push("", last=True)
    finally:
        sys.settrace(before)
    return lines + Counted.copied


def hostile(d: Dialect) -> list[str]:
    begun = [f'{marker}{{"a":[' for marker in sorted({*d.markers, *(d.think or ())})]
    return ["[", "[\n", '{"id":[\n', '```{"id":{\n', "<think>\n", *begun]


@pytest.mark.parametrize("d", ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("pieces", [1, 80])
def test_twice_the_answer_is_twice_the_work(d: Dialect, pieces: int) -> None:
    for pattern in hostile(d):
        text = pattern * (500 // len(pattern))
        size = -(-len(text) // pieces)
        tokens = [text[i : i + size] for i in range(0, len(text), size)]
        twice = tokens * 2 if pieces > 1 else [text * 2]
        assert work(d, twice) < 2.6 * work(d, tokens), pattern


def test_any_number_of_line_ends_is_held_back_at_the_end_of_reasoning() -> None:
    text = "so\n" + "\n" * 5000
    stream = TextStream(lambda id: text[id].encode(), reader=plain(True))
    assert [stream.push(id).reasoning for id in range(len(text))] == ["s", "o"] + [""] * 5001
    assert stream.finish().reasoning == ""


@pytest.mark.parametrize("d", [d for d in ALL if d.name not in ("harmony", "functionary")], ids=lambda d: d.name)
def test_what_is_too_hostile_to_be_searched_for_calls_is_shown_whole_but_for_markers(d: Dialect) -> None:
    marker = min(d.markers, default="")
    text = '{"id":[\n' * 2000
    reader = d.reader(TOOLS)
    events = reader.push(text + marker + "so") + reader.push("", last=True)
    assert "".join(getattr(event, "text", "") for event in events) == text + "so"


def test_a_long_answer_that_is_no_call_does_not_hide_the_call_after_it() -> None:
    prose = "".join(f'{{"id": {i}, "text": "..."}}\n```python\nprint({i})\n```\n' for i in range(300))
    reader = dialect("hermes").reader(TOOLS)
    events = reader.push(prose + '```json\n{"name": "add", "arguments": {"a": 1}}\n```') + reader.push("", last=True)
    assert "".join(getattr(event, "arguments", "") for event in events) == '{"a": 1}'
    assert "".join(getattr(event, "text", "") for event in events).strip() == prose.strip()


def test_brackets_in_a_long_string_do_not_count_as_nesting() -> None:
    assert decode('"' + "[]" * MAX_DEPTH + '"') == "[]" * MAX_DEPTH
    assert decode("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)) is None
    assert decode("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
