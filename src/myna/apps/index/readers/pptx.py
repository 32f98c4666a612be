"""PPTX: a slide is a page, its title a heading; tables, charts and diagrams too. Speaker notes follow their slide under "Notes".

Hidden slides, shapes that are not shown or lie outside the slide, white letters on a slide with nothing behind them, comments and
alt text are hidden text.
"""

from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from myna.apps.index.draft import Draft
from myna.apps.index.parsed import Parsed
from myna.apps.index.readers._ooxml import A, C, P, Package, R, Relations, chosen, on, write_chart
from myna.apps.index.readers._pptx_look import Behind, number

_TITLES = {"title", "ctrTitle"}
_FURNITURE = {"sldNum", "dt", "ftr", "hdr", "sldImg"}  # of every slide: number, date, footer
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds"
DEEP = 50  # groups within groups
TINY = 200  # hundredths of a point


def read(data: bytes, name: str) -> Parsed:
    package = Package(data)
    start = package.start("ppt/presentation.xml")
    root, relations = package.xml(start), package.relations(start)
    draft = Draft("pptx")
    package.about(draft)
    size = root.find(f"{P}sldSz")
    area = (int(size.get("cx", 0)), int(size.get("cy", 0))) if size is not None else (0, 0)
    for count, entry in enumerate(root.iter(f"{P}sldId"), 1):
        _, part = relations.get(entry.get(f"{R}id", ""), ("", ""))
        draft.page()
        draft.end_sections()
        if package.has(part):
            _Slide(draft, package, part, package.relations(part), area).write()
        else:
            draft.note(f"slide {count} is missing in the file")
    return draft.done()


@dataclass
class _Slide:
    draft: Draft
    package: Package
    part: str
    relations: Relations
    area: tuple[int, int]
    behind: Behind = field(init=False)

    def write(self) -> None:
        root = self.package.xml(self.part)
        tree = root.find(f"{P}cSld/{P}spTree")
        if tree is None:
            return
        if root.get("show") in ("0", "false"):
            self.draft.hide(_plain(tree), "hidden slide")
            return
        self.behind = Behind(self.package, tree, root, self.relations)
        title = next((shape for shape in tree.iter(f"{P}sp") if _kind(shape) in _TITLES), None)
        if title is not None and not self.unseen(title):
            self.draft.heading(" ".join(self.paragraphs(title)), 1)
        self.shapes(tree, title, 0)
        for kind, part in self.relations.values():
            if kind == "notesSlide" and self.package.has(part):
                self.notes(self.package.xml(part))
            elif kind == "comments" and self.package.has(part):
                self.draft.hide("\n".join(t.text or "" for t in self.package.xml(part).iter() if t.text), "comment")

    def shapes(self, tree: ET.Element, title: ET.Element | None, depth: int) -> None:
        if depth > DEEP:
            self.draft.count("groups nested too deeply, left out")
            return
        for shape in chosen(tree):
            named = next((thing for part in shape for thing in part if thing.tag == f"{P}cNvPr"), None)
            if named is not None:
                self.draft.hide(named.get("descr") or "", "alt text")
            if shape is title or _kind(shape) in _FURNITURE:
                continue
            if why := self.unseen(shape):
                self.draft.hide(_plain(shape), why)
            elif shape.tag == f"{P}grpSp":
                self.shapes(shape, title, depth + 1)
            elif shape.tag == f"{P}graphicFrame":
                self.graphic(shape)
            else:
                self.draft.add("\n".join(self.paragraphs(shape)))

    def unseen(self, shape: ET.Element) -> str:
        """Why a shape is not seen: it is not shown, or lies outside of the slide."""
        named = next((thing for part in shape for thing in part if thing.tag == f"{P}cNvPr"), None)
        if named is not None and "hidden" in named.attrib and on(named, "hidden"):
            return "hidden shape"
        place = shape.find(f"{P}spPr/{A}xfrm")
        offset = place.find(f"{A}off") if place is not None else None
        extent = place.find(f"{A}ext") if place is not None else None
        if offset is None or extent is None or not all(self.area):
            return ""
        x, y, width, height = (
            number(e.get(k)) for e, k in ((offset, "x"), (offset, "y"), (extent, "cx"), (extent, "cy"))
        )
        inside = x < self.area[0] and y < self.area[1] and x + width >= 0 and y + height >= 0
        return "" if inside else "outside the slide"

    def paragraphs(self, shape: ET.Element) -> list[str]:
        bare = self.behind.nothing(shape)
        return [self.words(p, bare) for p in shape.iter(f"{A}p")]

    def words(self, p: ET.Element, bare: bool) -> str:
        """A paragraph's visible text. `bare`: nothing but a white slide is behind it."""
        out = []
        for child in chosen(p):
            if child.tag == f"{A}br":
                out.append("\n")
            elif child.tag in (f"{A}r", f"{A}fld"):
                text = child.findtext(f"{A}t") or ""
                if why := _unseen_run(child.find(f"{A}rPr"), bare):
                    self.draft.hide(text, why)
                else:
                    out.append(text)
            elif child.tag not in (f"{A}pPr", f"{A}endParaRPr"):
                out.append("".join(t.text or "" for t in child.iter() if t.tag.endswith("}t")))
        return "".join(out)

    def graphic(self, frame: ET.Element) -> None:
        """A table, a chart or a diagram."""
        for table in frame.iter(f"{A}tbl"):
            rows = [list(row.iter(f"{A}tc")) for row in table.iter(f"{A}tr")]
            self.draft.table(
                [["\n".join(self.words(p, False) for p in cell.iter(f"{A}p")) for cell in row] for row in rows]
            )
        for chart in frame.iter(f"{C}chart"):
            _, part = self.relations.get(chart.get(f"{R}id", ""), ("", ""))
            if self.package.has(part):
                write_chart(self.draft, self.package, part)
        for diagram in frame.iter(_DIAGRAM):
            _, part = self.relations.get(diagram.get(f"{R}dm", ""), ("", ""))
            if self.package.has(part):
                self.draft.add(_plain(self.package.xml(part)))

    def notes(self, root: ET.Element) -> None:
        words = [self.paragraphs(shape) for shape in root.iter(f"{P}sp") if _kind(shape) not in _FURNITURE]
        text = "\n".join("\n".join(lines) for lines in words)
        if text.strip():
            self.draft.heading("Notes", 2)
            self.draft.add(text)


def _kind(shape: ET.Element) -> str:
    """The kind of placeholder a shape is, "" for none."""
    place = shape.find(f"{P}nvSpPr/{P}nvPr/{P}ph")
    return place.get("type", "obj") if place is not None else ""


def _unseen_run(properties: ET.Element | None, bare: bool) -> str:
    if properties is None:
        return ""
    if 0 < number(properties.get("sz")) <= TINY:
        return "tiny letters"
    colour = properties.find(f"{A}solidFill/{A}srgbClr")
    alpha = colour.find(f"{A}alpha") if colour is not None else None
    if alpha is not None and number(alpha.get("val")) == 0:
        return "transparent"
    white = colour is not None and colour.get("val", "").upper() in ("FFFFFF", "FEFEFE", "FDFDFD")
    return "white letters" if white and bare else ""


def _plain(root: ET.Element) -> str:
    return "\n".join(words for p in root.iter(f"{A}p") if (words := "".join(t.text or "" for t in p.iter(f"{A}t"))))
