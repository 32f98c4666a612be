"""PDF through pdfium: the text in reading order, pages, headings, hidden text; scans go to OCR where there is one.

pdfium gives characters with boxes, sizes and colours; lines end where it says so. Lines of a paragraph are joined again (a Chinese
sentence is not cut by the end of a line), headings come from the outline, and where there is none from the sizes of letters.
Tables come out row by row, as text: the gain of pdfplumber was not worth it (docs/log.md).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from myna.apps.index.draft import Draft, Unreadable
from myna.apps.index.ocr import gray_png, picture_text
from myna.apps.index.parsed import Parsed
from myna.apps.index.readers._pdf_lines import Line, paragraphs, plain, tell_headings
from myna.apps.index.readers._pdf_page import PageText, read_page

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

OCR_SCALE = 300 / 72  # pixels a point: what tesseract asks for
OCR_PIXELS = 40e6  # of a page's picture
MAX_OUTLINE = 20_000  # entries
_FREE_TEXT, _LINK, _POPUP, _WIDGET = 3, 2, 16, 20  # kinds of annotations (fpdf_annot.h)


def read(data: bytes, name: str) -> Parsed:
    pdf = _open(data)
    draft = Draft("pdf")
    about = pdf.get_metadata_dict()
    draft.title = about.get("Title", "")
    draft.dated(about.get("ModDate"), about.get("CreationDate"))
    if files := pdf.count_attachments():
        draft.note(f"{files} files within the PDF, not read")
    if pdf.get_formtype() in (2, 3):
        draft.note("a form of the XFA kind: what its fields hold is not read")
    outline = _outline(draft, pdf)
    lines: list[tuple[Line, int]] = []  # with the place of each in the text
    for index in range(len(pdf)):
        draft.page()
        start, entries = draft.length, outline.get(index, [])
        try:
            page = pdf[index]
            text = read_page(page)
        except Exception as problem:
            draft.note(f"page {index + 1} could not be read: {problem}")
            continue
        written = _write_page(draft, page, text, {entry.plain for entry in entries})
        _mark(draft, entries, written, start)
        lines += written
        page.close()
    if not outline:
        tell_headings(draft, lines)
    return draft.done()


def _open(data: bytes) -> "PdfDocument":
    try:
        import pypdfium2
    except ImportError:
        raise ImportError('PDF needs pypdfium2: pip install "myna[apps]"') from None
    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as problem:
        if problem.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise Unreadable("it is encrypted: save it without a password") from None
        raise Unreadable(f"it is damaged or no PDF: {problem}") from None
    return pdf


def _write_page(draft: Draft, page: "PdfPage", text: PageText, titles: set[str]) -> list[tuple[Line, int]]:
    placed = []
    for paragraph in paragraphs(text.lines, titles):
        place = draft.add(paragraph.text, "\n" if paragraph.close else "\n\n")
        if place:
            placed.append((paragraph, place[0]))
    for why, words in text.hidden:
        draft.hide(words, why)
    if text.scanned:
        draft.count("pages whose text is the OCR layer of a scan")
    if text.unmapped:
        draft.count("characters whose font does not say what they are", text.unmapped)
    _annotations(draft, page)
    if not placed and text.pictures:
        _recognize(draft, page)
    return placed


def _recognize(draft: Draft, page: "PdfPage") -> None:
    """The words of a page that is a picture, or a note that they are missing."""
    width, height = page.get_size()
    scale = min(OCR_SCALE, (OCR_PIXELS / max(1.0, width * height)) ** 0.5)
    words = picture_text(lambda: _png(page, scale))
    if words is None:
        draft.needs_ocr.append(draft.page_number)
        draft.count("pages are pictures and need OCR (install tesseract)")
    else:
        draft.add(words)
        draft.count("pages read by OCR")


def _png(page: "PdfPage", scale: float) -> bytes:
    bitmap = page.render(scale=scale, grayscale=True)
    return gray_png(bytes(bitmap.buffer), bitmap.width, bitmap.height, bitmap.stride)


def _annotations(draft: Draft, page: "PdfPage") -> None:
    """What people wrote onto the page: fields and text boxes are seen, comments are not."""
    import pypdfium2.raw as raw

    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        note = raw.FPDFPage_GetAnnot(page, index)
        if not note:
            continue
        kind = raw.FPDFAnnot_GetSubtype(note)
        words = _value(note, b"V" if kind == _WIDGET else b"Contents")
        if kind in (_WIDGET, _FREE_TEXT):
            draft.add(words)
        elif kind not in (_LINK, _POPUP):
            draft.hide(words, "comment")
        raw.FPDFPage_CloseAnnot(note)


def _value(note: object, key: bytes) -> str:
    import ctypes

    import pypdfium2.raw as raw

    size = raw.FPDFAnnot_GetStringValue(note, key, None, 0)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    raw.FPDFAnnot_GetStringValue(note, key, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return buffer.raw[: size - 2].decode("utf-16-le", "replace")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the document's own outline."""

    title: str
    level: int
    plain: str


def _outline(draft: Draft, pdf: "PdfDocument") -> dict[int, list[Entry]]:
    """The outline's entries, by the page they lead to."""
    found: dict[int, list[Entry]] = {}
    for count, entry in enumerate(pdf.get_toc()):
        if count >= MAX_OUTLINE:
            draft.note(f"the outline has more than {MAX_OUTLINE:,} entries; the rest was not read")
            break
        target = entry.get_dest()
        index = target.get_index() if target else None
        title = " ".join(entry.get_title().split())
        if index is not None and title:
            found.setdefault(index, []).append(Entry(title, entry.level + 1, plain(title)))
    return found


def _mark(draft: Draft, entries: list[Entry], lines: list[tuple[Line, int]], start: int) -> None:
    """Sections of one page: an entry begins at the line that says its title, or with the page."""
    words = [(plain(line.text), at) for line, at in lines]
    for entry in entries:
        same = [at for text, at in words if text == entry.plain]
        near = [
            at for text, at in words if entry.plain and (text.startswith(entry.plain) or text.endswith(entry.plain))
        ]
        draft.mark((same or near or [start])[0], entry.level, entry.title)
