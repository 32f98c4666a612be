"""XLSX: a sheet is a page. Its rows are written like a CSV file's: `column: value` where the first row names the columns.

Values are those Excel saved last; dates are ISO dates. A formula that was never calculated is written as itself and counted. Hidden
sheets, rows and columns, comments, and white letters in cells without a colour are hidden text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

from myna.apps.index.draft import Draft
from myna.apps.index.parsed import Parsed
from myna.apps.index.readers import table
from myna.apps.index.readers._ooxml import Package, R, S, write_chart
from myna.apps.index.readers._xlsx_look import Looks, date_of, read_looks

_PLACE = re.compile(r"([A-Z]{1,3})(\d{1,7})$")
CELLS = 5_000_000  # of one sheet


def read(data: bytes, name: str) -> Parsed:
    package = Package(data)
    start = package.start("xl/workbook.xml")
    root, relations = package.xml(start), package.relations(start)
    parts = dict(relations.values())
    strings = _strings(package, parts.get("sharedStrings", ""))
    looks = read_looks(package.xml(parts["styles"])) if package.has(parts.get("styles", "")) else Looks()
    properties = root.find(f"{S}workbookPr")
    since_1904 = properties is not None and properties.get("date1904") in ("1", "true")
    draft = Draft("xlsx")
    package.about(draft)
    for entry in root.iter(f"{S}sheet"):
        _, part = relations.get(entry.get(f"{R}id", ""), ("", ""))
        draft.page(entry.get("name", ""))
        draft.end_sections()
        if package.has(part):
            sheet = _Sheet(package, strings, looks, since_1904, draft)
            sheet.write(part, hidden=entry.get("state", "visible") != "visible")
        else:
            draft.note(f"sheet {entry.get('name', '')!r} is missing in the file")
    return draft.done()


def _strings(package: Package, part: str) -> list[str]:
    if not package.has(part):
        return []
    return [_text(item) for item in package.xml(part).iterfind(f"{S}si")]


def _text(item: ET.Element) -> str:
    """A string, plain or in runs; the phonetic guide beside Japanese words is left out."""
    return "".join((t.text or "") for t in [*item.iterfind(f"{S}t"), *item.iterfind(f"{S}r/{S}t")])


@dataclass
class _Sheet:
    package: Package
    strings: list[str]
    looks: Looks
    since_1904: bool
    draft: Draft
    cells: int = 0
    seen: dict[int, dict[int, str]] = field(default_factory=dict)  # row -> column -> value
    unseen: dict[str, dict[int, list[str]]] = field(default_factory=dict)  # why -> row -> values

    def write(self, part: str, hidden: bool) -> None:
        root = self.package.xml(part)
        columns = _hidden_columns(root)
        for number, row in _rows(root):
            out_of_sight = "hidden sheet" if hidden else "hidden row" if row.get("hidden") in ("1", "true") else ""
            for column, cell in _cells(row):
                value = self.value(cell)
                if not value.strip():
                    continue
                why = out_of_sight or ("hidden column" if column in columns else self.looks.why(cell.get("s", "")))
                if why:
                    self.unseen.setdefault(why, {}).setdefault(number, []).append(value)
                else:
                    self.seen.setdefault(number, {})[column] = value
        self._settle()
        for kind, target in sorted(self.package.relations(part).values()):
            if kind == "comments" and self.package.has(target):
                for comment in self.package.xml(target).iter(f"{S}comment"):
                    self.draft.hide("".join(t.text or "" for t in comment.iter(f"{S}t")), "comment")
            elif kind == "drawing" and self.package.has(target):
                self._drawing(target)

    def _settle(self) -> None:
        used = sorted({column for row in self.seen.values() for column in row})
        rows = [[row.get(column, "") for column in used] for _, row in sorted(self.seen.items())]
        self.draft.tabled(self.draft.add(table.records(self.draft, rows)))
        for why, hidden in self.unseen.items():
            self.draft.hide("\n".join("; ".join(values) for values in hidden.values()), why)

    def _drawing(self, part: str) -> None:
        for thing in self.package.xml(part).iter():
            if thing.tag.endswith("}cNvPr"):
                self.draft.hide(thing.get("descr") or "", "alt text")
            elif thing.tag.endswith("}txBody"):
                self.draft.add("".join(t.text or "" for t in thing.iter() if t.tag.endswith("}t")))
        for kind, target in sorted(self.package.relations(part).values()):
            if kind == "chart" and self.package.has(target):
                write_chart(self.draft, self.package, target)

    def value(self, cell: ET.Element) -> str:
        """What a cell shows, or the formula it has no value for."""
        kind, raw = cell.get("t", "n"), cell.findtext(f"{S}v")
        if kind == "inlineStr":
            item = cell.find(f"{S}is")
            return _text(item) if item is not None else ""
        if not raw:
            formula = cell.findtext(f"{S}f")
            if formula:
                self.draft.count("formulas without a saved value, written as formulas")
            return f"={formula}" if formula else ""
        if kind == "s":
            return self.strings[int(raw)] if raw.isdigit() and int(raw) < len(self.strings) else ""
        if kind == "b":
            return "TRUE" if raw.strip() == "1" else "FALSE"
        if kind == "n" and self.looks.is_date(cell.get("s", "")):
            return date_of(raw, self.since_1904)
        return _number(raw) if kind == "n" else raw


def _rows(root: ET.Element) -> Iterator[tuple[int, ET.Element]]:
    number = 0
    for row in root.iterfind(f"{S}sheetData/{S}row"):
        own = row.get("r", "")
        number = int(own) if own.isdigit() and int(own) > number else number + 1
        yield number, row


def _cells(row: ET.Element) -> Iterator[tuple[int, ET.Element]]:
    """Cells with their columns, from 1: a cell may say where it is, else it follows the one before."""
    column = 0
    for cell in row.iterfind(f"{S}c"):
        match = _PLACE.match(cell.get("r", ""))
        column = _column(match[1]) if match else column + 1
        yield column, cell


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number


def _hidden_columns(root: ET.Element) -> set[int]:
    found: set[int] = set()
    for span in root.iterfind(f"{S}cols/{S}col"):
        if span.get("hidden") in ("1", "true"):
            first, last = span.get("min", ""), span.get("max", "")
            if first.isdigit() and last.isdigit():
                found |= set(range(int(first), min(int(last), 16384) + 1))
    return found


def _number(raw: str) -> str:
    """0.1 for 0.10000000000000001, which Excel writes and does not show: 15 digits are all it has."""
    try:
        value = float(raw)
    except ValueError:
        return raw
    short = f"{value:.15g}"
    return raw if "e" in short or raw.lstrip("-").isdigit() else short
