"""Conversations that chat programs export (records/exported.py), as one JSON document or a JSON line each: a section a conversation, under its
title and day, a paragraph a turn. JSON that is no conversation is text, with its escapes ("\\u8336") undone where it is JSON lines or one
document, so that a search finds what it says.
"""

import orjson

from myna.apps.index.dates import day, day_of
from myna.apps.index.decode import decode
from myna.apps.index.draft import Draft
from myna.apps.index.parsed import Parsed
from myna.apps.index.readers import text
from myna.records.exported import Talk, talk

TITLE = 60  # characters of the first words, where a conversation has no title


def read(data: bytes, name: str) -> Parsed:
    decoded = decode(data)
    rows = _rows(decoded.text)
    talks = [talk(row) for row in rows]
    if not any(talks):
        return text.read(data if not rows or b"\\u" not in data else _spelled_out(rows), name)
    draft = Draft("talk")
    for note in decoded.notes:
        draft.note(note)
    for row, one in zip(rows, talks, strict=True):
        if one is None:
            draft.end_sections()
            draft.add(orjson.dumps(row).decode())
            draft.count("rows that are no conversation")
        else:
            _write(draft, one)
    draft.dated(max((_day(one) for one in talks if one), default=""))
    return draft.done()


def _rows(whole: str) -> list[object]:
    """What is one JSON document, a list of several, or a line each; none where it is not JSON."""
    try:
        found = orjson.loads(whole)
        return found if isinstance(found, list) else [found]
    except orjson.JSONDecodeError:
        pass
    try:
        return [orjson.loads(line) for line in whole.splitlines() if line.strip()]
    except orjson.JSONDecodeError:
        return []


def _spelled_out(rows: list[object]) -> bytes:
    return b"\n".join(orjson.dumps(row) for row in rows)


def _write(draft: Draft, one: Talk) -> None:
    first = " ".join(one.turns[0].text.split())
    title = one.title.strip() or first[:TITLE]
    when = _day(one)
    draft.heading(f"{title} ({when})" if when else title, 1)
    for turn in one.turns:
        said = f"{turn.role}: {turn.text.strip()}"
        if turn.hidden:
            draft.hide(said, "turn that was not shown")
        else:
            draft.add(said)
    if one.unread:
        draft.count("parts of conversations that are no text", one.unread)


def _day(one: Talk) -> str:
    """The day, as it can be believed (dates.py); "" where there is none."""
    return day(one.at) if isinstance(one.at, str) else "" if one.at is None else day_of(one.at)
