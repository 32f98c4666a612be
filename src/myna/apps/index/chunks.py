"""A document to the passages that are searched: ranges of its text that never cross a section.

A chunk is small, so that it is found by what it says; its parent, the innermost section around it, is what a reader of the
chunk may want to see (small-to-big). Hidden passages are in no chunk. A hidden range of a few characters, such as a zero-width
blank within a word, may lie inside one: what is searched and shown is `Parsed.visible(start, end)`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from myna.apps.index.parsed import Parsed, Range

SIZE = 1200  # characters of a chunk, at most
SMALL = 8  # characters of a hidden range that does not end a chunk

# Where to cut, best first: after a blank line, a line, a sentence, a clause, a word.
_CUTS = tuple(
    re.compile(pattern)
    for pattern in (r"\n\s*\n", r"\n", r"[。！？!?…]+[”’」』）)\"']*|[.!?]['\")\]]*(?=\s)", r"[，、；：,;:](?=\s|[^\x00-\x7f])", r"\s+")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Chunk:
    start: int
    end: int
    section: int | None  # the innermost one around it: index into Parsed.sections
    parent: Range  # that section's range; the whole text where there is none


def chunks(parsed: Parsed, size: int = SIZE) -> tuple[Chunk, ...]:
    """In order, without overlap. Every visible character that is not blank is in one of them."""
    if size < 1:
        raise ValueError(f"a chunk has at least one character, not {size}")
    whole = (0, len(parsed.text))
    made: list[Chunk] = []
    for start, end, section in _stretches(parsed):
        parent = whole if section is None else (parsed.sections[section].start, parsed.sections[section].end)
        for a, b in _cut(parsed, start, end, size):
            a, b = _trimmed(parsed.text, a, b)
            if parsed.visible(a, b).strip():
                made.append(Chunk(a, b, section, parent))
    return tuple(made)


def _stretches(parsed: Parsed) -> Iterator[tuple[int, int, int | None]]:
    """The text between two boundaries, of sections or of hidden passages, with the innermost section it belongs to."""
    hidden = [(a, b) for a, b in parsed.hidden if b - a > SMALL]
    edges = {0, len(parsed.text)}
    edges |= {at for section in parsed.sections for at in (section.start, section.end)}
    edges |= {at for both in hidden for at in both}
    unseen = {start for start, _ in hidden}
    starts: dict[int, list[int]] = {}
    for number, section in enumerate(parsed.sections):
        starts.setdefault(section.start, []).append(number)
    around: list[int] = []
    ordered = sorted(edges)
    until = 0  # of a hidden passage, which may hold boundaries of sections
    ends = dict(hidden)
    for start, end in pairwise(ordered):
        while around and parsed.sections[around[-1]].end <= start:
            around.pop()
        around += [number for number in starts.get(start, ()) if parsed.sections[number].end > start]
        until = ends[start] if start in unseen else until
        if start >= until:
            yield start, end, around[-1] if around else None


def _cut(parsed: Parsed, start: int, end: int, size: int) -> Iterator[Range]:
    while end - start > size:
        at = _place(parsed, start, start + size)
        yield start, at
        start = at
    yield start, end


def _place(parsed: Parsed, start: int, limit: int) -> int:
    """Where to cut, after `start` and at `limit` at the latest: before a table rather than within it, and not in the first third
    while the rest offers anything."""
    for a, b in parsed.tables:
        if start < a < limit < b:
            limit = a
    low = start + (limit - start) // 3
    for cut in _CUTS:
        places = [match.end() for match in cut.finditer(parsed.text, start, limit) if match.end() > low]
        if places:
            return places[-1]
    return limit


def _trimmed(text: str, start: int, end: int) -> Range:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
