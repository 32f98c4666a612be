"""A document while it is being read: pieces are put down in order, `done()` makes the Parsed of them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from myna.apps.index.dates import LONGEST, day
from myna.apps.index.parsed import Page, Parsed, Range, Section
from myna.apps.index.unseen import unseen
from myna.records.language import counted

MAX_CHARS = 20_000_000  # of one document's text: about 40 long novels
TITLE_CHARS = 200  # of a heading; what is longer is cut in the title, never in the text

# Line ends are one character; controls (a terminal would obey them) and halves of surrogate pairs (no file or database takes them) go.
_ENDS = re.compile("\r\n?|[\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_NO_TITLE = re.compile(
    r"(?i)\W*(?:untitled|无标题|未命名)(?: ?document| ?文档)?[\W\d]*"
)  # what programs write where nobody gave one
_HALVES = re.compile("[\ud800-\udfff]")


class Unreadable(Exception):
    """The document cannot be read; the message says why, for the person who ingests it."""


class Draft:
    """Visible text goes down with `add`, `heading` and `table`, in order; what a reader of the document would not see with `hide`:
    it is put at the end of the page, apart. `note` and `count` say what was left out or looks wrong."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.title = ""
        self.date = ""
        self.needs_ocr: list[int] = []
        self._pieces: list[str] = []
        self._length = 0
        self._at_start = True  # of the page: no gap before the next piece
        self._pages: list[tuple[int, str]] = []  # start, name
        self._headings: list[tuple[int, int, str]] = []  # start, level, title
        self._hidden: list[Range] = []
        self._tables: list[Range] = []
        self._unseen: list[str] = []  # hidden passages of the page so far
        self._why: Counter[str] = Counter()  # of passages that are hidden
        self._notes: list[str] = []
        self._counts: Counter[str] = Counter()

    @property
    def length(self) -> int:
        return self._length

    @property
    def page_number(self) -> int:
        return len(self._pages)

    def page(self, name: str = "") -> None:
        """What comes now stands on a new page."""
        self._close_page()
        if self._pages or self._length:
            self._put("" if self._at_start else "\n\n")
        if not self._pages and self._length:
            self._pages.append((0, ""))  # what came before the first page
        self._pages.append((self._length, clean(name).strip()))
        self._at_start = True

    def add(self, text: str, gap: str = "\n\n") -> Range | None:
        """A paragraph, or with gap="\\n" a further line of one. Its range, None for an empty one."""
        text = self.clean(text).strip("\n")
        if not text.strip():
            return None
        if not self._at_start:
            self._put(gap)
        start = self._length
        self._put(text)
        self._at_start = False
        return start, self._length

    def heading(self, title: str, level: int) -> None:
        """A line of its own that begins a section; sections of the same or a smaller level end here."""
        place = self.add(" ".join(title.split()))
        if place:
            self.mark(place[0], level, title)

    def mark(self, start: int, level: int, title: str) -> None:
        """The text that is already at `start` begins a section."""
        self._headings.append((start, level, " ".join(clean(title).split())[:TITLE_CHARS]))

    def end_sections(self) -> None:
        """What comes now belongs to no section until the next heading: a new slide, sheet or attachment."""
        self._headings.append((self._length, 0, ""))

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A table within a text: a Markdown table, whose first row is the head."""
        rows = [row for row in rows if any(cell.strip() for cell in row)]
        place = self.add(markdown_table(rows)) if rows else None
        if place:
            self._tables.append(place)

    def tabled(self, place: Range | None) -> None:
        """A range that was added as text is a table."""
        if place:
            self._tables.append(place)

    def hide(self, text: str, why: str) -> None:
        """A passage that a reader of the document would not see, and why: "white letters", "comment", ..."""
        text = self.clean(text).strip()
        if text:
            self._unseen.append(text)
            self._why[why] += 1

    def dated(self, *said: str | None) -> None:
        """The first of these that is a date is the document's; what is none, or is not believed, is noted."""
        for text in filter(None, said):
            self.date = self.date or day(text)
            if self.date:
                return
            self.note(f"a date that is not taken: {' '.join(clean(text[:LONGEST]).split())!r}")

    def note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)

    def count(self, what: str, n: int = 1) -> None:
        """A note that begins with a number: count("pictures without text") twice is "2 pictures without text"."""
        self._counts[what] += n

    def include(self, parsed: Parsed, name: str) -> None:
        """Another document, whole, as pages of this one: an attachment."""
        at = self._length
        for page in parsed.pages or (Page(1, 0, len(parsed.text)),):
            self.page(f"{name}: {page.name}" if page.name else name)
            at = self._length if page.number == 1 else at
            self._put(parsed.text[page.start : page.end])
            self._at_start = True
        self._headings += [(s.start + at, s.level + 1, s.title) for s in parsed.sections]
        self._hidden += [(a + at, b + at) for a, b in parsed.hidden]
        self._tables += [(a + at, b + at) for a, b in parsed.tables]
        self._notes += [f"{name}: {note}" for note in parsed.notes]

    def clean(self, text: str) -> str:
        """`text` without what no text holds; counted."""
        text = _ENDS.sub("\n", text)
        text, controls = _CONTROLS.subn("", text)
        text, halves = _HALVES.subn("\ufffd", text)
        if controls:
            self.count("control characters removed", controls)
        if halves:
            self.count("halves of characters replaced by U+FFFD", halves)
        return text

    def done(self) -> Parsed:
        self._close_page()
        text = "".join(self._pieces)
        found = unseen(text)
        return Parsed(
            text=text,
            sections=nest(self._headings, len(text)),
            pages=_pages(self._pages, len(text)),
            title="" if _NO_TITLE.fullmatch(title := " ".join(clean(self.title).split())) else title[:TITLE_CHARS],
            kind=self.kind,
            notes=(
                *self._hidden_note(),
                *found.notes,
                *self._notes,
                *(f"{n} {what}" for what, n in self._counts.items()),
            ),
            hidden=merged([*self._hidden, *found.ranges]),
            tables=merged(self._tables),
            needs_ocr=tuple(self.needs_ocr),
            date=self.date,
        )

    def _hidden_note(self) -> list[str]:
        if not self._why:
            return []
        kinds = ", ".join(f"{n} {why}" for why, n in self._why.items())
        return [f"hidden text: {counted(self._why.total(), 'passage')} ({kinds})"]

    def _close_page(self) -> None:
        """Hidden passages of the page go to its end."""
        for text in self._unseen:
            self._put("" if self._at_start else "\n\n")
            self._hidden.append((self._length, self._length + len(text)))
            self._put(text)
            self._at_start = False
        self._unseen.clear()

    def _put(self, text: str) -> None:
        self._length += len(text)
        if self._length > MAX_CHARS:
            raise Unreadable(f"its text is longer than {MAX_CHARS:,} characters")
        self._pieces.append(text)


def clean(text: str) -> str:
    return _HALVES.sub("\ufffd", _CONTROLS.sub("", _ENDS.sub("\n", text)))


def nest(headings: Iterable[tuple[int, int, str]], length: int) -> tuple[Section, ...]:
    """Sections of (start, level, title): each lasts until the next of the same or a smaller level."""
    found: list[Section] = []
    open_: list[int] = []
    for start, level, title in sorted(headings, key=lambda h: h[0]):
        while open_ and found[open_[-1]].level >= level:
            last = open_.pop()
            found[last] = replace(found[last], end=start)
        if level <= 0:  # of end_sections
            continue
        found.append(Section(title, level, open_[-1] if open_ else None, start, length))
        open_.append(len(found) - 1)
    return tuple(found)


def _pages(starts: Sequence[tuple[int, str]], length: int) -> tuple[Page, ...]:
    ends = [start for start, _ in starts[1:]] + [length]
    return tuple(Page(n, start, end, name) for n, ((start, name), end) in enumerate(zip(starts, ends, strict=False), 1))


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same characters as ranges in order that do not overlap."""
    out: list[Range] = []
    for start, end in sorted(ranges):
        if out and start < out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif start < end:
            out.append((start, end))
    return tuple(out)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as `| a | b |`, with the line under the first that makes it a head. Short rows are filled."""
    width = max(len(row) for row in rows)
    lines = ["| " + " | ".join([*map(_cell, row), *[""] * (width - len(row))]) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
