"""What is behind the letters of a slide: white letters are hidden only where nothing but a white slide is behind them."""

from xml.etree import ElementTree as ET

from myna.apps.index.readers._ooxml import A, P, Package, Relations

_FILLS = {f"{A}solidFill", f"{A}gradFill", f"{A}blipFill", f"{A}pattFill", f"{A}grpFill"}
_WHITE = {"FFFFFF", "FEFEFE", "FDFDFD"}
Box = tuple[int, int, int, int]  # left, top, right, bottom, in EMU


class Behind:
    def __init__(self, package: Package, tree: ET.Element, slide: ET.Element, relations: Relations) -> None:
        self.white = _white_slide(package, slide, relations)
        self.filled = [(shape, _box(shape)) for shape in tree.iter() if _is_filled(shape)] if self.white else []

    def nothing(self, shape: ET.Element) -> bool:
        """Nothing but a white slide is behind this shape, as far as the file says."""
        if not self.white:
            return False
        box = _box(shape)
        return not any(
            other is shape or box is None or place is None or _overlap(box, place) for other, place in self.filled
        )


def _white_slide(package: Package, slide: ET.Element, relations: Relations) -> bool:
    """The slide's background, or its layout's, or its master's, is white for certain."""
    root = slide
    for above in ("slideLayout", "slideMaster", ""):
        background = root.find(f"{P}cSld/{P}bg")
        if background is not None:
            return _is_white(package, background, root, relations)
        part = next((part for kind, part in relations.values() if kind == above), "")
        if not package.has(part):
            return False
        root, relations = package.xml(part), package.relations(part)
    return False


def _is_white(package: Package, background: ET.Element, root: ET.Element, relations: Relations) -> bool:
    colour = background.find(f".//{A}srgbClr")
    if colour is not None:
        return colour.get("val", "").upper() in _WHITE and background.find(f".//{A}gradFill") is None
    scheme = background.find(f".//{A}schemeClr")
    mapping = root.find(f"{P}clrMap")  # of a master
    name = scheme.get("val", "") if scheme is not None else ""
    name = mapping.get(name, name) if mapping is not None else {"bg1": "lt1"}.get(name, name)
    theme = next((part for kind, part in relations.values() if kind == "theme"), "")
    if not package.has(theme):
        return False
    entry = package.xml(theme).find(f".//{A}clrScheme/{A}{name}") if name.isalnum() else None
    shades = [shade.get("lastClr") or shade.get("val") or "" for shade in entry] if entry is not None else []
    return bool(shades) and shades[0].upper() in _WHITE | {"WINDOW"}


def _is_filled(shape: ET.Element) -> bool:
    if shape.tag in (f"{P}pic", f"{P}graphicFrame"):
        return True
    properties = shape.find(f"{P}spPr") if shape.tag == f"{P}sp" else None
    if properties is None:
        return False
    if properties.find(f"{A}noFill") is not None:
        return False
    style = shape.find(f"{P}style/{A}fillRef")
    return any(child.tag in _FILLS for child in properties) or (style is not None and style.get("idx") != "0")


def _box(shape: ET.Element) -> Box | None:
    place = shape.find(f"{P}spPr/{A}xfrm")
    place = place if place is not None else shape.find(f"{P}xfrm")
    offset = place.find(f"{A}off") if place is not None else None
    extent = place.find(f"{A}ext") if place is not None else None
    if offset is None or extent is None:
        return None
    x, y = number(offset.get("x")), number(offset.get("y"))
    return x, y, x + number(extent.get("cx")), y + number(extent.get("cy"))


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def number(value: str | None) -> int:
    """An attribute's whole number; 0 where it is none."""
    try:
        return int(value or 0)
    except ValueError:
        return 0
