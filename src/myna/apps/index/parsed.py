"""A document as everyone after the reader sees it: one text, and ranges over it.

Every range is half-open and counts characters of `Parsed.text`. A citation is (sha256 of the file, start, end): `text[start:end]` is
the cited text, exactly, and `page_at(start)` is where it stands.

Hidden text is in `text` too, so that nothing is lost and it can be cited as what it is, but it is never part of what a person
sees: whoever indexes or shows a document takes `visible()`. Whole hidden passages (white letters, comments, alt text, display:none)
stand at the end of their page; characters without a shape (zero width, direction marks, Unicode tags) stay where they were.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

Range = tuple[int, int]
_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?")


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it, its title line included. Children lie inside their parent, whose `level` is smaller."""

    title: str
    level: int  # from 1
    parent: int | None  # index into Parsed.sections, smaller than this one's own
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page, or what stands for one: a slide, a sheet, a part of an e-mail, an attachment (these have a `name`)."""

    number: int  # from 1
    start: int
    end: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read. Making one checks its laws, so that a reader which breaks them fails there and nowhere later: pages are
    numbered from 1 and cover the text without gap or overlap; sections are in order, nest, and siblings do not overlap;
    hidden ranges and tables are in order, not empty, and do not overlap; a date looks like one. Raises ValueError."""

    text: str
    sections: tuple[Section, ...] = ()
    pages: tuple[Page, ...] = ()  # none: the format has no pages
    title: str = ""
    kind: str = "text"  # the reader's name: "pdf", "docx", ...
    notes: tuple[str, ...] = ()  # what was skipped, is suspicious or needs OCR; counted; for the ingest report
    hidden: tuple[Range, ...] = ()  # what a reader of the document would not see
    tables: tuple[Range, ...] = ()  # better not cut through
    needs_ocr: tuple[int, ...] = ()  # numbers of pages that hold a picture and no text
    date: str = ""  # its own, as it says: 2024-03-05, 2024-03, 2024 (dates.py)
    _page_starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_pages(self.pages, len(self.text))
        _check_sections(self.sections, len(self.text))
        _check_ranges("hidden", self.hidden, len(self.text))
        _check_ranges("tables", self.tables, len(self.text))
        if not set(self.needs_ocr) <= {page.number for page in self.pages}:
            raise ValueError(f"needs_ocr names pages that are not there: {self.needs_ocr}")
        if self.date and not _DATE.fullmatch(self.date):
            raise ValueError(f"the date {self.date[:20]!r} is none")
        object.__setattr__(self, "_page_starts", tuple(page.start for page in self.pages))

    def page_at(self, position: int) -> Page | None:
        """The page that holds the character at `position`; None in a format without pages."""
        if not 0 <= position <= len(self.text):
            raise ValueError(f"position {position} is outside the text of {len(self.text)} characters")
        at = bisect_right(self._page_starts, position) - 1
        return self.pages[at] if at >= 0 else None

    def path_at(self, position: int) -> tuple[str, ...]:
        """Titles of the sections around `position`, outermost first."""
        return tuple(s.title for s in self.sections if s.start <= position < s.end)

    def spans(self, start: int = 0, end: int | None = None) -> Iterator[Range]:
        """The visible ranges within [start, end), in order."""
        end = len(self.text) if end is None else end
        for first, last in self.hidden:
            if last <= start or first >= end:
                continue
            if first > start:
                yield start, first
            start = last
        if start < end:
            yield start, end

    def visible(self, start: int = 0, end: int | None = None) -> str:
        """The text of [start, end) without what is hidden."""
        return "".join(self.text[a:b] for a, b in self.spans(start, end))

    @property
    def empty_pages(self) -> tuple[int, ...]:
        """Numbers of the pages without a visible character."""
        return tuple(p.number for p in self.pages if not self.visible(p.start, p.end).strip())


def _check_pages(pages: tuple[Page, ...], length: int) -> None:
    at = 0
    for number, page in enumerate(pages, 1):
        if page.number != number or page.start != at or page.end < at:
            raise ValueError(f"page {number} of {len(pages)} should begin at {at}: {page}")
        at = page.end
    if pages and at != length:
        raise ValueError(f"the pages end at {at}, the text at {length}")


def _check_sections(sections: tuple[Section, ...], length: int) -> None:
    ends: dict[int | None, int] = {}  # parent -> end of its last child so far
    for index, section in enumerate(sections):
        if section.parent is None:
            low, high, level = 0, length, 0
        elif 0 <= section.parent < index:
            parent = sections[section.parent]
            low, high, level = parent.start, parent.end, parent.level
        else:
            raise ValueError(f"section {index} comes before its parent {section.parent}")
        if not (
            max(low, ends.get(section.parent, low)) <= section.start <= section.end <= high and section.level > level
        ):
            raise ValueError(f"section {index} does not lie inside its parent, after its siblings: {section}")
        if index and section.start < sections[index - 1].start:
            raise ValueError(f"section {index} begins before the one before it: {section}")
        ends[section.parent] = section.end


def _check_ranges(what: str, ranges: tuple[Range, ...], length: int) -> None:
    at = 0
    for start, end in ranges:
        if not at <= start < end <= length:
            raise ValueError(
                f"{what}: ({start}, {end}) is empty, out of order or outside the text of {length} characters"
            )
        at = end
