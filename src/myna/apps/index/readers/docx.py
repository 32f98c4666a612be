"""DOCX: paragraphs, headings, lists, tables, text boxes, footnotes, headers; what Word does not print is hidden text.

Pages are the printer's business and are in no .docx, so there are none. Headings are styles with an outline level (in any language
of Word); footnotes follow the text, as [^n]; a list's paragraphs begin with "- ", because their numbers are not in the file.
"""

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from myna.apps.index.draft import Draft
from myna.apps.index.parsed import Parsed
from myna.apps.index.readers._docx_look import Style, hidden_by, read_styles, shaded
from myna.apps.index.readers._ooxml import Package, Relations, W, chosen, write_chart

_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_R_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_GONE = {f"{W}del", f"{W}moveFrom"}  # deleted, with tracked changes
_SIGNS = {
    f"{W}tab": "\t",
    f"{W}br": "\n",
    f"{W}cr": "\n",
    f"{W}noBreakHyphen": "-",
    f"{W}softHyphen": "\xad",
    f"{W}ptab": "\t",
}
_NOTES = {"footnotes": f"{W}footnote", "endnotes": f"{W}endnote"}
DEEP = 100  # tables and boxes within each other


def read(data: bytes, name: str) -> Parsed:
    package = Package(data)
    start = package.start("word/document.xml")
    relations = package.relations(start)
    parts = dict(relations.values())
    draft = Draft("docx")
    package.about(draft)
    styles = read_styles(package.xml(parts["styles"])) if package.has(parts.get("styles", "")) else {}
    writer = _Writer(draft, package, relations, styles)
    writer.blocks(package.xml(start), False)
    for kind, tag in _NOTES.items():
        if package.has(parts.get(kind, "")):
            for note in package.xml(parts[kind]).iter(tag):
                if note.get(f"{W}type") is None:
                    writer.note(note)
    _margins(writer, package, relations)
    if package.has(parts.get("comments", "")):
        for comment in package.xml(parts["comments"]).iter(f"{W}comment"):
            draft.hide(writer.plain(comment), "comment")
    return draft.done()


def _margins(writer: "_Writer", package: Package, relations: Relations) -> None:
    """Headers and footers, each text once, after everything else."""
    seen: set[str] = set()
    for kind, part in sorted(relations.values()):
        if kind in ("header", "footer") and package.has(part):
            root = package.xml(part)
            words = writer.plain(root)
            if words.strip() and words not in seen:
                if not seen:
                    writer.draft.end_sections()
                seen.add(words)
                writer.blocks(root, False)


@dataclass
class _Writer:
    draft: Draft
    package: Package
    relations: Relations
    styles: dict[str, Style]
    depth: int = 0
    listed: bool = False  # the paragraph before was an item of a list

    def blocks(self, parent: ET.Element, dark: bool) -> None:
        """Paragraphs and tables under `parent`, in order. `dark`: there is a colour behind them, so white letters can be read."""
        for child in chosen(parent):
            if child.tag == f"{W}p":
                self.paragraph(child, dark)
            elif child.tag == f"{W}tbl":
                self.table(child, dark)
            elif child.tag in _GONE:
                self.draft.hide(self.plain(child), "deleted text")
            elif child.tag not in (f"{W}sectPr", f"{W}sdtPr", f"{W}pPr", f"{W}tblPr"):
                self.blocks(child, dark)

    def paragraph(self, p: ET.Element, dark: bool) -> None:
        properties = p.find(f"{W}pPr")
        style = self.styles.get(_value(properties, "pStyle"), Style())
        boxes: list[ET.Element] = []
        text = self.words(p, dark or shaded(properties), style, boxes)
        level = _level(properties, style)
        if level and text.strip():
            self.draft.heading(text, level)
        elif _is_item(properties, style) and text.strip():
            self.draft.add(f"- {text}", "\n" if self.listed else "\n\n")
        else:
            self.draft.add(text)
        self.listed = _is_item(properties, style) and not level
        for box in boxes:
            self.deeper(box)

    def deeper(self, box: ET.Element) -> None:
        """A text box, whose paragraphs follow the one it hangs on."""
        self.depth += 1
        if self.depth > DEEP:
            self.draft.count("text boxes nested too deeply, left out")
        elif box.tag == f"{_C}chart":
            kind, part = self.relations.get(box.get(_R_ID, ""), ("", ""))
            if kind == "chart" and self.package.has(part):
                write_chart(self.draft, self.package, part)
        else:
            self.blocks(box, True)  # what is behind a box is not known
        self.depth -= 1

    def words(self, parent: ET.Element, dark: bool, style: Style, boxes: list[ET.Element]) -> str:
        """The visible text of a paragraph; what is hidden in it goes to the draft, text boxes to `boxes`."""
        out = []
        for child in chosen(parent):
            if child.tag == f"{W}r":
                out.append(self.run(child, dark, style, boxes))
            elif child.tag in _GONE:
                self.draft.hide(self.plain(child), "deleted text")
            elif child.tag == f"{_M}t":
                out.append(child.text or "")
            elif child.tag not in (f"{W}pPr", f"{W}instrText", f"{W}sdtPr"):
                out.append(self.words(child, dark, style, boxes))
        return "".join(out)

    def run(self, run: ET.Element, dark: bool, style: Style, boxes: list[ET.Element]) -> str:
        properties = run.find(f"{W}rPr")
        why = hidden_by(properties, style, self.styles, dark)
        out = [self.sign(child, boxes) for child in chosen(run)]
        if why:
            self.draft.hide("".join(out), why)
            return ""
        return "".join(out)

    def sign(self, child: ET.Element, boxes: list[ET.Element]) -> str:
        """What one child of a run says."""
        if child.tag == f"{W}t":
            return child.text or ""
        if child.tag in _SIGNS:
            return _SIGNS[child.tag]
        if child.tag in (f"{W}footnoteReference", f"{W}endnoteReference"):
            return f"[^{_mark(child)}]"
        if child.tag == f"{W}ruby":
            base = child.find(f"{W}rubyBase")
            return "" if base is None else self.words(base, True, Style(), boxes)
        if child.tag in (f"{W}drawing", f"{W}pict", f"{W}object"):
            self.drawing(child, boxes)
        return ""

    def drawing(self, drawing: ET.Element, boxes: list[ET.Element]) -> None:
        for thing in drawing.iter():
            if thing.tag.endswith("}docPr"):
                self.draft.hide(thing.get("descr") or "", "alt text")
            elif thing.tag in (f"{W}txbxContent", f"{_C}chart"):
                boxes.append(thing)

    def note(self, note: ET.Element) -> None:
        boxes: list[ET.Element] = []
        paragraphs = [self.words(p, False, Style(), boxes) for p in note.iter(f"{W}p")]
        self.draft.add(f"[^{_mark(note)}]: " + "\n".join(paragraphs).strip())

    def table(self, table: ET.Element, dark: bool) -> None:
        """A table; one cell, or cells that hold tables themselves, are there for the layout and read like text."""
        look = _value(table.find(f"{W}tblPr"), "tblStyle")
        dark = dark or look.lower() not in (
            "",
            "tablegrid",
            "tablenormal",
            "a1",
            "a3",
        )  # a style may colour what is behind
        rows = _rows(table)
        if _nested(table) or (len(rows) == 1 and len(rows[0]) == 1):
            self.depth += 1
            if self.depth > DEEP:
                self.draft.count("tables nested too deeply, left out")
            else:
                for row in rows:
                    for cell in row:
                        self.blocks(cell, dark or shaded(cell.find(f"{W}tcPr")))
            self.depth -= 1
            return
        boxes: list[ET.Element] = []
        self.draft.table([[self.cell(cell, dark, boxes) for cell in row] for row in rows])
        for box in boxes:
            self.deeper(box)

    def cell(self, cell: ET.Element, dark: bool, boxes: list[ET.Element]) -> str:
        dark = dark or shaded(cell.find(f"{W}tcPr"))
        words = []
        for p in cell.iter(f"{W}p"):
            properties = p.find(f"{W}pPr")
            style = self.styles.get(_value(properties, "pStyle"), Style())
            words.append(self.words(p, dark or shaded(properties), style, boxes))
        return "\n".join(words)

    def plain(self, root: ET.Element) -> str:
        """All text under `root`, whatever it looks like."""
        ends = {f"{W}p": "\n", f"{W}tab": "\t", f"{W}br": "\n"}
        return "".join(
            (t.text or "") if t.tag in (f"{W}t", f"{W}delText") else ends.get(t.tag, "") for t in root.iter()
        )


def _rows(table: ET.Element) -> list[list[ET.Element]]:
    """Cells by row; a cell over several columns is followed by nothing in its other columns."""
    return [list(_cells(row)) for row in _under(table, f"{W}tr")]


def _cells(row: ET.Element) -> list[ET.Element]:
    cells = []
    for cell in _under(row, f"{W}tc"):
        span = _value(cell.find(f"{W}tcPr"), "gridSpan")
        cells += [cell] + [ET.Element(f"{W}tc")] * (min(int(span), 64) - 1 if span.isdigit() and int(span) else 0)
    return cells


def _under(parent: ET.Element, tag: str) -> list[ET.Element]:
    """Children named `tag`, those within content controls too."""
    found = []
    for child in chosen(parent):
        if child.tag == tag:
            found.append(child)
        elif child.tag in (f"{W}sdt", f"{W}sdtContent", f"{W}ins", f"{W}customXml"):
            found += _under(child, tag)
    return found


def _nested(table: ET.Element) -> bool:
    return sum(1 for _ in table.iter(f"{W}tbl")) > 1


def _level(properties: ET.Element | None, style: Style) -> int:
    own = _value(properties, "outlineLvl")
    if own.isdigit():
        return int(own) + 1 if int(own) < 9 else 0
    return style.level


def _is_item(properties: ET.Element | None, style: Style) -> bool:
    number = properties.find(f"{W}numPr") if properties is not None else None
    return style.listed if number is None else _value(number, "numId") != "0"


def _mark(note: ET.Element) -> str:
    return note.get(f"{W}id", "")


def _value(parent: ET.Element | None, name: str) -> str:
    child = parent.find(f"{W}{name}") if parent is not None else None
    return child.get(f"{W}val", "") if child is not None else ""
