"""A picture: its words by OCR, or a note that it needs one."""

from myna.apps.index.draft import Draft
from myna.apps.index.ocr import picture_text
from myna.apps.index.parsed import Parsed


def read(data: bytes, name: str) -> Parsed:
    draft = Draft("picture")
    draft.page()
    words = picture_text(lambda: data)
    if words is None:
        draft.needs_ocr.append(1)
        draft.note("a picture, which needs OCR (install tesseract)")
    else:
        draft.add(words)
        draft.note("read by OCR")
    return draft.done()
