"""How documents are read: one file per format, found by its name. A reader is a module with

read(data, name) -> Parsed       raises Unreadable (apps/index/draft.py); whatever else it raises is reported as "the reader failed"

A reader runs in a child process with limits (apps/index/worker.py): it may be slow, hungry, or crash, and it opens no file.
"""

import importlib
from pathlib import PurePath

from myna.apps.index.draft import Unreadable
from myna.apps.index.parsed import Parsed

BY_SUFFIX = {
    **dict.fromkeys((".pdf",), "pdf"),
    **dict.fromkeys((".docx", ".docm", ".dotx"), "docx"),
    **dict.fromkeys((".pptx", ".pptm", ".ppsx", ".potx"), "pptx"),
    **dict.fromkeys((".xlsx", ".xlsm", ".xltx"), "xlsx"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".md", ".markdown", ".mdx"), "markdown"),
    **dict.fromkeys((".csv", ".tsv", ".tab"), "table"),
    **dict.fromkeys((".json", ".jsonl"), "talk"),
    **dict.fromkeys((".eml", ".mht", ".mhtml"), "mail"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"), "picture"),
}
# What a file begins with says more than its name.
BY_MAGIC = (
    (b"%PDF-", "pdf"),
    (b"\x89PNG\r\n\x1a\n", "picture"),
    (b"\xff\xd8\xff", "picture"),
    (b"II*\x00", "picture"),
    (b"MM\x00*", "picture"),
)
_OFFICE = {b"word/document.xml": "docx", b"ppt/presentation.xml": "pptx", b"xl/workbook.xml": "xlsx"}
_OLD_OFFICE = (
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # compound file: .doc, .xls, .ppt, .msg, and every encrypted Office file
)
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_HEAD = 1024  # a PDF's header may stand within so many bytes


def reader_for(data: bytes, name: str) -> str:
    """The reader's name. By what the file holds, then by its suffix, then text if it looks like text. Raises Unreadable."""
    if not data.strip(b"\x00 \t\r\n"):
        raise Unreadable("it is empty" if not data else f"it holds nothing but {len(data):,} blank bytes")
    if data.startswith(_OLD_OFFICE):
        if _ENCRYPTED in data:
            raise Unreadable("it is encrypted: save it without a password")
        raise Unreadable("it is in the format of Office before 2007: save it as .docx, .pptx or .xlsx")
    suffix = PurePath(name).suffix.lower()
    named = BY_SUFFIX.get(suffix)
    if data.startswith(b"PK"):
        office = next((reader for part, reader in _OFFICE.items() if part in data), None)
        if reader := office or (named if named in _OFFICE.values() else None):
            return reader
        raise Unreadable(f"no reader for a zip file named {suffix or 'without a suffix'}")
    for magic, reader in BY_MAGIC:
        if data.startswith(magic) or (reader == "pdf" and magic in data[:_HEAD]):
            return reader
    if named in _OFFICE.values():
        raise Unreadable("it is damaged: an Office file is a zip file, this is none")
    return named or _unnamed(data, suffix)


def _unnamed(data: bytes, suffix: str) -> str:
    head = data[:_HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "html"
    if b"\x00" in data[:_HEAD] and not data.startswith((b"\xff\xfe", b"\xfe\xff")) and not suffix == ".txt":
        raise Unreadable(f"no reader for binary files named {suffix or 'without a suffix'}")
    return "text"


def read(data: bytes, name: str) -> Parsed:
    """The document, by the reader it needs. Raises Unreadable."""
    kind = reader_for(data, name)
    reader = importlib.import_module(f"myna.apps.index.readers.{kind}")
    parsed: Parsed = reader.read(data, name)
    return parsed
