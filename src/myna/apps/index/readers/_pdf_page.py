"""One page of a PDF as lines, with what cannot be seen on it told apart.

A letter cannot be seen when its text is drawn invisibly (mode 3) and no picture fills the page (then it is a scan's OCR layer, which
people select and search), when it is smaller than 2 points, outside the page, or when it is white or transparent and the page, drawn, shows no
contrast where it stands. Letters covered by a later shape are not looked for.
"""

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from myna.apps.index.readers._pdf_lines import Line

if TYPE_CHECKING:
    from pypdfium2 import PdfPage

TINY = 2.0  # points
WHITE = 0xF0  # of 255, in every channel
CONTRAST = 24  # of 255, between the darkest and the lightest dot of a box
SCAN = 0.5  # of the page's area that a scan's picture fills
PIXELS = 4e6  # of the drawing that is looked at
_INVISIBLE = {3, 7}  # text render modes: neither filled nor stroked; clip only
_SMALL, _OUTSIDE = 1, 2  # no addresses of objects
_ODD = {_SMALL: "tiny letters", _OUTSIDE: "outside the page"}
Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(slots=True)
class PageText:
    lines: list[Line]
    hidden: list[tuple[str, str]]  # why, words
    pictures: int = 0
    scanned: bool = False  # its text is an OCR layer
    unmapped: int = 0  # characters without a meaning


def read_page(page: "PdfPage") -> PageText:
    import pypdfium2.raw as raw

    textpage = page.get_textpage()
    suspects, pictures, filled = _objects(page)
    scanned = filled and bool(suspects) and set(suspects.values()) == {"invisible letters"}
    letters = _Letters(textpage, raw, page, {} if scanned else suspects)
    out = PageText([], [], pictures, scanned)
    letters.read(out)
    textpage.close()
    return out


def _objects(page: "PdfPage") -> tuple[dict[int, str], int, bool]:
    """Text objects that may not be seen, by address, and why; pictures; whether one of these fills the page."""
    import pypdfium2.raw as raw

    width, height = page.get_size()
    suspects: dict[int, str] = {}
    pictures, largest = 0, 0.0
    for thing in page.get_objects(filter=(raw.FPDF_PAGEOBJ_TEXT, raw.FPDF_PAGEOBJ_IMAGE), max_depth=6):
        if thing.type == raw.FPDF_PAGEOBJ_IMAGE:
            pictures += 1
            left, bottom, right, top = thing.get_bounds()
            largest = max(largest, (right - left) * (top - bottom))
        elif why := _suspicious(thing.raw, raw):
            suspects[ctypes.addressof(thing.raw.contents)] = why
    return suspects, pictures, largest >= SCAN * width * height


def _suspicious(thing: Any, raw: Any) -> str:
    if raw.FPDFTextObj_GetTextRenderMode(thing) in _INVISIBLE:
        return "invisible letters"
    channels = [ctypes.c_uint() for _ in range(4)]
    if not raw.FPDFPageObj_GetFillColor(thing, *channels):
        return ""
    red, green, blue, alpha = (channel.value for channel in channels)
    return "white letters" if alpha < 16 or min(red, green, blue) >= WHITE else ""


class _Letters:
    """The characters of a page, one after the other."""

    def __init__(self, textpage: Any, raw: Any, page: "PdfPage", suspects: dict[int, str]) -> None:
        self.textpage, self.raw, self.page, self.suspects = textpage, raw, page, suspects
        self.bounds = page.get_bbox()
        self.drawn: _Drawn | None = None
        self._box = [ctypes.c_double() for _ in range(4)]
        self._matrix = raw.FS_MATRIX()

    def read(self, out: PageText) -> None:
        """Fills in `out`: runs of letters that were drawn by one object are seen or not, together."""
        line: list[tuple[int, str]] = []
        run: list[tuple[int, str]] = []
        owner = 0
        count = self.raw.FPDFText_CountChars(self.textpage)
        for index in range(max(0, count)):
            code = self.raw.FPDFText_GetUnicode(self.textpage, index)
            ch = _char(code)
            out.unmapped += code in (0, 0xFFFD) or 0xE000 <= code <= 0xF8FF
            made = self.raw.FPDFText_IsGenerated(self.textpage, index) == 1
            now = owner if made or ch.isspace() else self._owner(index)
            if ch == "\n" or now != owner:
                self._settle(run, owner, line, out)
                run, owner = [], now
            if ch and ch != "\n":
                run.append((index, ch))
            if ch in ("\n", "\xad"):
                self._settle(run, owner, line, out)
                self._end(line, out)
                run, line = [], []
        self._settle(run, owner, line, out)
        self._end(line, out)

    def _owner(self, index: int) -> int:
        """The suspicious object that drew a letter, or _SMALL, _OUTSIDE, or 0 for a letter that is seen."""
        if self.suspects:
            thing = self.raw.FPDFText_GetTextObject(self.textpage, index)
            if thing and ctypes.addressof(thing.contents) in self.suspects:
                return ctypes.addressof(thing.contents)
        if self._outside(self._box_of(index)):
            return _OUTSIDE
        return _SMALL if self._size(index) < TINY else 0

    def _settle(self, run: list[tuple[int, str]], owner: int, line: list[tuple[int, str]], out: PageText) -> None:
        """A run goes to the line, or to what is hidden."""
        words = "".join(ch for _, ch in run)
        if not words.strip() or not owner:
            line += run
        elif owner in _ODD:
            out.hidden.append((_ODD[owner], words))
        elif self.suspects[owner] == "white letters" and self._shows(run):
            line += run
        else:
            out.hidden.append((self.suspects[owner], words))

    def _shows(self, run: list[tuple[int, str]]) -> bool:
        boxes = [self._box_of(index) for index, ch in run if not ch.isspace()]
        if self.drawn is None:
            self.drawn = _Drawn(self.page)
        whole = (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
        return self.drawn.contrast(whole) >= CONTRAST

    def _end(self, line: list[tuple[int, str]], out: PageText) -> None:
        words = "".join(ch for _, ch in line).strip()
        inked = [index for index, ch in line if not ch.isspace()]
        if not inked:
            return
        first, last = self._box_of(inked[0]), self._box_of(inked[-1])
        size = self._size(inked[len(inked) // 2])
        out.lines.append(Line(words, first[0], last[2], min(first[1], last[1]), size))

    def _size(self, index: int) -> float:
        """Points: the font's size as it is drawn."""
        size = self.raw.FPDFText_GetFontSize(self.textpage, index)
        if not self.raw.FPDFText_GetMatrix(self.textpage, index, self._matrix):
            return float(size)
        return float(size * (self._matrix.c**2 + self._matrix.d**2) ** 0.5)

    def _box_of(self, index: int) -> Box:
        left, right, bottom, top = self._box
        self.raw.FPDFText_GetCharBox(self.textpage, index, left, right, bottom, top)
        return left.value, bottom.value, right.value, top.value

    def _outside(self, box: Box) -> bool:
        left, bottom, right, top = self.bounds
        return box[2] < left or box[0] > right or box[3] < bottom or box[1] > top


class _Drawn:
    """The page as a picture in shades of gray."""

    def __init__(self, page: "PdfPage") -> None:
        width, height = page.get_size()
        self.scale = min(2.0, (PIXELS / max(1.0, width * height)) ** 0.5)
        bitmap = page.render(scale=self.scale, grayscale=True)
        self.dots, self.stride = bytes(bitmap.buffer), bitmap.stride
        self.width, self.height = bitmap.width, bitmap.height
        self.left, self.top = page.get_bbox()[0], page.get_bbox()[3]

    def contrast(self, box: Box) -> int:
        """Between the darkest and the lightest dot within a box of the page."""
        left, right = (max(0, min(self.width, int((x - self.left) * self.scale))) for x in (box[0], box[2]))
        top, bottom = (max(0, min(self.height, int((self.top - y) * self.scale))) for y in (box[3], box[1]))
        rows = [
            self.dots[y * self.stride + left : y * self.stride + right + 1]
            for y in range(top, min(bottom + 1, self.height))
        ]
        rows = [row for row in rows if row]
        return max(map(max, rows)) - min(map(min, rows)) if rows else 0


def _char(code: int) -> str:
    """pdfium's character: "\\r" goes (a "\\n" follows), a hyphen that ends a line is U+0002."""
    if code in (0, 0xD, 0xFFFE, 0xFFFF):
        return ""
    if code == 2:
        return "\xad"
    return chr(code) if code < 0x110000 else "\ufffd"
