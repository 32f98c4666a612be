"""A document as rows of the file, and rows as a document again. Every function works within a transaction of the caller's."""

import hashlib
import sqlite3
from collections.abc import Iterable

import orjson

from myna.apps.index.chunks import chunks
from myna.apps.index.parsed import Page, Parsed, Section
from myna.apps.index.reading import Document
from myna.apps.index.words import words


def put(db: sqlite3.Connection, document: Document) -> None:
    """Documents, sections, chunks and words. Its sha256 must not be there."""
    parsed, sha = document.parsed, document.sha256
    row = (
        sha,
        digest(parsed),
        parsed.title,
        parsed.kind,
        document.size,
        parsed.text,
        _layout(parsed).decode(),
        parsed.date,
    )
    db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    sections = ((sha, n, s.title, s.level, s.parent, s.start, s.end) for n, s in enumerate(parsed.sections))
    db.executemany("INSERT INTO sections VALUES (?, ?, ?, ?, ?, ?, ?)", sections)
    for one in chunks(parsed):
        text = parsed.visible(one.start, one.end)
        values = (sha, one.start, one.end, one.section, *one.parent, text)
        number = db.execute(
            "INSERT INTO chunks (sha, start, end, section, parent_start, parent_end, text) VALUES (?, ?, ?, ?, ?, ?, ?)", values
        ).lastrowid  # fmt: skip
        heading = " ".join(words(" ".join((parsed.title, *parsed.path_at(one.start)))))
        db.execute(
            "INSERT INTO words (rowid, heading, body) VALUES (?, ?, ?)", (number, heading, " ".join(words(text)))
        )


def drop(db: sqlite3.Connection, sha: str) -> None:
    """The document and all that was derived from it; names, sections, chunks and vectors go with it (ON DELETE CASCADE)."""
    db.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM chunks WHERE sha = ?)", (sha,))
    db.execute("DELETE FROM documents WHERE sha = ?", (sha,))


def drop_nameless(db: sqlite3.Connection, shas: Iterable[str]) -> None:
    for sha in shas:
        if not db.execute("SELECT 1 FROM names WHERE sha = ?", (sha,)).fetchone():
            drop(db, sha)


def get(db: sqlite3.Connection, sha: str) -> Parsed | None:
    """The document that a citation names, as it was read."""
    row = db.execute("SELECT title, kind, text, layout, date FROM documents WHERE sha = ?", (sha,)).fetchone()
    if row is None:
        return None
    title, kind, text, layout, date = row
    sections = db.execute("SELECT title, level, parent, start, end FROM sections WHERE sha = ? ORDER BY number", (sha,))
    value = orjson.loads(layout)
    return Parsed(
        text=text,
        sections=tuple(Section(*section) for section in sections),
        pages=tuple(Page(*page) for page in value["pages"]),
        title=title,
        kind=kind,
        notes=tuple(value["notes"]),
        hidden=tuple((a, b) for a, b in value["hidden"]),
        tables=tuple((a, b) for a, b in value["tables"]),
        needs_ocr=tuple(value["needs_ocr"]),
        date=date,
    )


def path(db: sqlite3.Connection, sha: str, section: int | None) -> tuple[str, ...]:
    """Titles of a section and of those around it, outermost first."""
    titles: list[str] = []
    while section is not None:
        title, section = db.execute(
            "SELECT title, parent FROM sections WHERE sha = ? AND number = ?", (sha, section)
        ).fetchone()
        titles.insert(0, title)
    return tuple(titles)


def digest(parsed: Parsed) -> str:
    """Of what was read: a better reader makes another document of the same bytes. Not of its date, which changes no passage."""
    sections = [(s.title, s.level, s.parent, s.start, s.end) for s in parsed.sections]
    whole = orjson.dumps([parsed.title, parsed.kind, parsed.text, sections]) + _layout(parsed)
    return hashlib.sha256(whole).hexdigest()


def _layout(parsed: Parsed) -> bytes:
    pages = [(page.number, page.start, page.end, page.name) for page in parsed.pages]
    return orjson.dumps(
        {"pages": pages, "notes": parsed.notes, "hidden": parsed.hidden, "tables": parsed.tables, "needs_ocr": parsed.needs_ocr}
    )  # fmt: skip
