"""The formats of an XLSX file's cells: which numbers are dates, which letters are white."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from xml.etree import ElementTree as ET

from myna.apps.index.readers._ooxml import S

# Formats that every file has: dates and times (ECMA-376 part 1, 18.8.30), those of Chinese and Japanese Excel too.
_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}
_QUOTED = re.compile(r'"[^"]*"|\\.|\[(?!h+\]|m+\]|s+\])[^\]]*\]|_.|\*.', re.IGNORECASE)
_WHITE = {"FFFFFFFF", "00FFFFFF", "FFFFFF"}


@dataclass(frozen=True, slots=True)
class Looks:
    """By the number of a cell's format."""

    dates: frozenset[int] = frozenset()
    white: frozenset[int] = frozenset()  # white letters, nothing behind them

    def is_date(self, format_: str) -> bool:
        return format_.isdigit() and int(format_) in self.dates

    def why(self, format_: str) -> str:
        return "white letters" if format_.isdigit() and int(format_) in self.white else ""


def read_looks(root: ET.Element) -> Looks:
    codes = {form.get("numFmtId", ""): form.get("formatCode", "") for form in root.iter(f"{S}numFmt")}
    fonts = [_is_white(font) for font in root.iterfind(f"{S}fonts/{S}font")]
    fills = [_is_bare(fill) for fill in root.iterfind(f"{S}fills/{S}fill")]
    dates, white = set(), set()
    for number, form in enumerate(root.iterfind(f"{S}cellXfs/{S}xf")):
        code = form.get("numFmtId", "0")
        if _is_date(codes[code]) if code in codes else code.isdigit() and int(code) in _DATES:
            dates.add(number)
        if _at(fonts, form.get("fontId", ""), False) and _at(fills, form.get("fillId", "0"), True):
            white.add(number)
    return Looks(frozenset(dates), frozenset(white))


def _at(values: list[bool], place: str, default: bool) -> bool:
    return values[int(place)] if place.isdigit() and int(place) < len(values) else default


def _is_date(code: str) -> bool:
    return bool(re.search("[ymdhs]", _QUOTED.sub("", code.split(";")[0]).lower().replace("general", "")))


def _is_white(font: ET.Element) -> bool:
    colour = font.find(f"{S}color")
    if colour is None:
        return False
    return colour.get("rgb", "").upper() in _WHITE or (
        colour.get("theme") == "0" and float(colour.get("tint", "0") or 0) >= 0
    )


def _is_bare(fill: ET.Element) -> bool:
    pattern = fill.find(f"{S}patternFill")
    if pattern is None:
        return False
    if pattern.get("patternType", "none") == "none":
        return True
    colour = pattern.find(f"{S}fgColor")
    return colour is not None and colour.get("rgb", "").upper() in _WHITE


def date_of(raw: str, since_1904: bool) -> str:
    """The day and time of a serial number, as ISO 8601; a number below 1 is a time alone."""
    try:
        serial = float(raw)
        if 0 <= serial < 1:
            return (datetime(2000, 1, 1) + timedelta(seconds=round(serial * 86400))).time().isoformat()
        if not since_1904 and serial < 60:
            serial += 1  # before the 29th of February 1900, which Excel believes in
        first = datetime(1904, 1, 1) if since_1904 else datetime(1899, 12, 30)
        moment = first + timedelta(seconds=round(serial * 86400))
    except (ValueError, OverflowError):
        return raw
    return moment.date().isoformat() if serial == int(serial) else moment.isoformat(sep=" ")
