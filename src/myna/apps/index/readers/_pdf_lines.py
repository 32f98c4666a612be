"""Lines of a page to paragraphs, and the lines that are headings."""

import re
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace

from myna.apps.index.draft import Draft

PITCH = 1.8  # line heights from one line to the next, within a paragraph
LARGER = 1.15  # than the body's letters, for a heading
LONG = 200  # characters; no heading is longer
COLUMN = 24.0  # points: lines that begin within so much of each other stand in one column
_MARK = re.compile(
    r"[•‣◦●○■□▪–—*·-][ \t]|\(?\d{1,3}[.)、．][ \t]?|[(（][一二三四五六七八九十\d]{1,3}[)）]|[一二三四五六七八九十]{1,3}、"
)
_CJK = "\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
_WORD = re.compile(
    f"[^ {_CJK}]+[ ]?|.[，。、；：？！）》」』”]?"
)  # what stands on one line, for certain: of Chinese, a character
_BETWEEN_CJK = re.compile(f"[{_CJK}]$")
_AT_CJK = re.compile(f"^[{_CJK}]")


@dataclass(slots=True)
class Line:
    """A line, or lines that were joined. Places are in points from the page's lower left."""

    text: str
    left: float
    right: float
    bottom: float
    size: float
    close: bool = False  # it follows the line before it without a gap
    end: float = 0.0  # where its last line ends


def paragraphs(lines: Sequence[Line], titles: Container[str]) -> Iterator[Line]:
    """Lines joined where a paragraph runs on: same size, next below, not indented, and the upper line had no room for its first
    word. Lines that are `titles` (as `plain` has them) stay alone."""
    margins: dict[int, float] = {}
    for line in lines:
        column = int(line.left / COLUMN)
        margins[column] = max(margins.get(column, 0.0), line.right)
    block: Line | None = None
    for line in lines:
        close = block is not None and _below(block, line)
        margin = max(margins.get(int(line.left / COLUMN) + beside, 0.0) for beside in (-1, 0, 1))
        alone = plain(line.text) in titles or (block is not None and plain(block.text) in titles)
        if block and close and not alone and _runs_on(block, line, margin):
            block.text = joined(block.text, line.text)
            block.left, block.right = min(block.left, line.left), max(block.right, line.right)
            block.bottom, block.end = line.bottom, line.right
            continue
        if block:
            yield block
        block = replace(line, close=close, end=line.right)
    if block:
        yield block


def _below(block: Line, line: Line) -> bool:
    return 0 < block.bottom - line.bottom <= PITCH * max(block.size, line.size)


def _runs_on(block: Line, line: Line, margin: float) -> bool:
    if block.text.endswith("\xad"):
        return True
    same = abs(block.size - line.size) <= 0.1 * block.size
    word = len(_WORD.match(line.text)[0]) * (line.right - line.left) / len(line.text)  # type: ignore[index]
    full = block.end + word >= margin - 0.5 * line.size
    return same and full and line.left <= block.left + 1.2 * line.size and not _MARK.match(line.text)


def plain(text: str) -> str:
    """Letters and digits alone, to compare a line with a title."""
    return "".join(ch for ch in text.casefold() if ch.isalnum())


def joined(upper: str, lower: str) -> str:
    """Two lines of a paragraph: no space between Chinese characters, none after a hyphen that only parted a word."""
    if upper.endswith("\xad"):
        return upper[:-1] + lower
    if _BETWEEN_CJK.search(upper) and _AT_CJK.match(lower):
        return upper + lower
    return f"{upper} {lower}"


def tell_headings(draft: Draft, lines: Sequence[tuple[Line, int]]) -> None:
    """Marks the lines whose letters are larger than the body's; larger letters, higher level."""
    sizes: Counter[float] = Counter()
    for line, _ in lines:
        sizes[_rounded(line.size)] += len(line.text)
    if not sizes:
        return
    body = sizes.most_common(1)[0][0]
    large = sorted((s for s in sizes if s >= LARGER * body), reverse=True)
    level = {size: min(n, 6) for n, size in enumerate(large, 1)}
    before: Line | None = None
    for line, at in lines:
        size = _rounded(line.size)
        if size in level and _is_title(line) and not (before and line.close and _rounded(before.size) == size):
            draft.mark(at, level[size], line.text)
        before = line


def _is_title(line: Line) -> bool:
    return len(line.text) <= LONG and any(ch.isalpha() for ch in line.text)


def _rounded(size: float) -> float:
    return round(2 * size) / 2
