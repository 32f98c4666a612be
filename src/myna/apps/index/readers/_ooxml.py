"""Office files (ECMA-376): a zip of XML parts that name each other by relations.

Read with the standard library. What a hostile file may do is bounded here: the number of parts, the bytes that all parts together
unpack to (a zip's own word for a part's size is checked by zipfile while it reads), and no part may declare a document type, which
Office never writes and entity bombs need.
"""

import io
import lzma
import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

from myna.apps.index.draft import Draft, Unreadable

PARTS = 20_000
UNPACKED = 256 << 20  # bytes of all XML parts that are read
ROWS = 4096  # of a chart

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
S = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_TERMS = "{http://purl.org/dc/terms/}"
_RELATION = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"
_STRICT = {  # namespaces of the strict variant of the standard -> those of the usual one
    "http://purl.oclc.org/ooxml/wordprocessingml/main": W[1:-1],
    "http://purl.oclc.org/ooxml/drawingml/main": A[1:-1],
    "http://purl.oclc.org/ooxml/presentationml/main": P[1:-1],
    "http://purl.oclc.org/ooxml/spreadsheetml/main": S[1:-1],
    "http://purl.oclc.org/ooxml/drawingml/chart": C[1:-1],
    "http://purl.oclc.org/ooxml/officeDocument/relationships": R[1:-1],
}
Relations = dict[str, tuple[str, str]]  # id -> (last word of the type, the part it names)


class Package:
    def __init__(self, data: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as problem:
            raise Unreadable(f"it is damaged: {problem}") from None
        self._names = {name.lower(): name for name in self._zip.namelist()}
        if len(self._names) > PARTS:
            raise Unreadable(f"it has {len(self._names):,} parts, more than {PARTS:,}")
        self._left = UNPACKED

    def has(self, part: str) -> bool:
        return part.lower() in self._names

    def bytes(self, part: str) -> bytes:
        """A part's bytes. Raises Unreadable."""
        name = self._names.get(part.lower())
        if name is None:
            raise Unreadable(f"it is damaged: its part {part} is missing")
        try:
            with self._zip.open(name) as file:
                data = file.read(self._left + 1)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, OSError, EOFError) as problem:
            raise Unreadable(f"its part {part} cannot be unpacked: {problem}") from None
        self._left -= len(data)
        if self._left < 0:
            raise Unreadable(f"it unpacks to more than {UNPACKED >> 20} MiB (a zip bomb?)")
        return data

    def xml(self, part: str) -> ET.Element:
        """A part's root element. Raises Unreadable."""
        parser = ET.XMLParser(target=_Tree())
        try:
            parser.feed(self.bytes(part))
            root: ET.Element = parser.close()
        except ET.ParseError as problem:
            raise Unreadable(f"its part {part} is no XML: {problem}") from None
        return root

    def relations(self, part: str) -> Relations:
        """What `part` names, empty if nothing. Targets outside of the file are left out."""
        folder, name = posixpath.split(part)
        rels = posixpath.join(folder, "_rels", f"{name}.rels")
        if not self.has(rels):
            return {}
        found: Relations = {}
        for relation in self.xml(rels).iter(_RELATION):
            if relation.get("TargetMode") != "External":
                kind = relation.get("Type", "").rpartition("/")[2]
                found[relation.get("Id", "")] = kind, _resolved(folder, relation.get("Target", ""))
        return found

    def start(self, default: str) -> str:
        """The document's main part."""
        named = [part for kind, part in self.relations("").values() if kind == "officeDocument"]
        return next((part for part in named if self.has(part)), default)

    def about(self, draft: Draft) -> None:
        """What the file says of itself: its title, and when it was last changed or else made."""
        if self.has("docProps/core.xml"):
            said = self.xml("docProps/core.xml")
            draft.title = said.findtext("{http://purl.org/dc/elements/1.1/}title") or ""
            draft.dated(said.findtext(f"{_TERMS}modified"), said.findtext(f"{_TERMS}created"))


class _Tree(ET.TreeBuilder):
    """Builds the tree; refuses a document type; the strict variant's names become the usual ones."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise Unreadable("its XML declares a document type, which Office files do not (an entity bomb?)")

    def start(self, tag: Any, attrs: Any) -> ET.Element:
        return super().start(_usual(tag), {_usual(key): value for key, value in attrs.items()})

    def end(self, tag: Any) -> ET.Element:
        return super().end(_usual(tag))


def _usual(tag: str) -> str:
    if tag.startswith("{http://purl.oclc.org"):
        namespace, _, name = tag[1:].partition("}")
        return f"{{{_STRICT.get(namespace, namespace)}}}{name}"
    return tag


def _resolved(folder: str, target: str) -> str:
    return target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))


def on(element: ET.Element | None, attribute: str) -> bool:
    """A switch such as <w:vanish/>: on unless it says otherwise."""
    return element is not None and element.get(attribute, "true") not in ("0", "false", "off", "none")


def write_chart(draft: Draft, package: Package, part: str) -> None:
    """A chart's title and the figures it was drawn from, as a table: categories down, series across."""
    root = package.xml(part)
    title = root.find(f"{C}chart/{C}title")
    draft.add("".join(t.text or "" for t in title.iter(f"{A}t")) if title is not None else "")
    series = list(root.iter(f"{C}ser"))
    if not series:
        return
    heads = ["".join(v.text or "" for v in one.iterfind(f"{C}tx//{C}v")) for one in series]
    names = _points(series[0].find(f"{C}cat")) or _points(series[0].find(f"{C}xVal"))
    columns = [_points(one.find(f"{C}val")) or _points(one.find(f"{C}yVal")) for one in series]
    places = sorted({place for column in (names, *columns) for place in column})
    draft.table(
        [["", *heads], *([names.get(n, ""), *(column.get(n, "") for column in columns)] for n in places[:ROWS])]
    )
    if len(places) > ROWS:
        draft.count("points of a chart left out", len(places) - ROWS)


def _points(values: ET.Element | None) -> dict[int, str]:
    if values is None:
        return {}
    points = ((p.get("idx", ""), p.findtext(f"{C}v") or "") for p in values.iter(f"{C}pt"))
    return {int(place): value for place, value in points if place.isdigit()}


def chosen(element: ET.Element) -> Iterator[ET.Element]:
    """The children; of alternatives for other programs (mc:AlternateContent) only the first."""
    for child in element:
        if child.tag == f"{MC}AlternateContent":
            choice = child.find(f"{MC}Choice")
            choice = choice if choice is not None else child.find(f"{MC}Fallback")
            yield from chosen(choice) if choice is not None else ()
        else:
            yield child
