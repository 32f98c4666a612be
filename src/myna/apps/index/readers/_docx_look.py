"""How a run of a .docx looks: whether anybody sees it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET

from myna.apps.index.readers._ooxml import W, on

TINY = 4  # half points: letters of up to 2 points
WHITE = 0xF0  # of 255, in every channel
_HEADING = re.compile(r"heading ([1-9])$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Style:
    """What a named style, with those it is based on, says. None: nothing."""

    level: int = 0  # of a heading, from 1; 0: none
    listed: bool = False
    vanish: bool | None = None
    white: bool | None = None
    tiny: bool | None = None


def read_styles(root: ET.Element) -> dict[str, Style]:
    """By id. A style that is based on itself, over whatever way, ends there."""
    elements = {style.get(f"{W}styleId", ""): style for style in root.iter(f"{W}style")}
    found: dict[str, Style] = {}
    for name in elements:
        chain: list[str] = []
        while name in elements and name not in chain and name not in found:
            chain.append(name)
            based = elements[name].find(f"{W}basedOn")
            name = based.get(f"{W}val", "") if based is not None else ""
        base = found.get(name, Style())
        for link in reversed(chain):
            base = found[link] = _styled(elements[link], base)
    return found


def _styled(element: ET.Element, base: Style) -> Style:
    name = element.find(f"{W}name")
    title = name.get(f"{W}val", "") if name is not None else ""
    paragraph, run = element.find(f"{W}pPr"), element.find(f"{W}rPr")
    level = base.level
    if match := _HEADING.match(title):
        level = int(match[1])
    elif title.lower() == "title":
        level = 1
    outline = paragraph.find(f"{W}outlineLvl") if paragraph is not None else None
    if outline is not None and (value := outline.get(f"{W}val", "")).isdigit():
        level = int(value) + 1 if int(value) < 9 else 0
    listed = base.listed or (paragraph is not None and paragraph.find(f"{W}numPr") is not None)
    return replace(_looks(run, base), level=level, listed=listed)


def _looks(run: ET.Element | None, base: Style) -> Style:
    if run is None:
        return base
    vanish, colour, size = run.find(f"{W}vanish"), run.find(f"{W}color"), run.find(f"{W}sz")
    return replace(
        base,
        vanish=on(vanish, f"{W}val") if vanish is not None else base.vanish,
        white=_white(colour) if colour is not None else base.white,
        tiny=_tiny(size) if size is not None else base.tiny,
    )


def hidden_by(run: ET.Element | None, paragraph: Style, styles: Mapping[str, Style], dark: bool) -> str:
    """Why nobody sees a run with these properties, in a paragraph of this style; "" if people do."""
    named = run.find(f"{W}rStyle") if run is not None else None
    character = styles.get(named.get(f"{W}val", ""), Style()) if named is not None else Style()
    base = replace(
        paragraph,
        **{key: value for key in ("vanish", "white", "tiny") if (value := getattr(character, key)) is not None},
    )
    look = _looks(run, base)
    if look.vanish:
        return "hidden letters"
    if look.white and not dark and not shaded(run):
        return "white letters"
    return "tiny letters" if look.tiny else ""


def shaded(properties: ET.Element | None) -> bool:
    """There is a colour behind it: shading or a highlight."""
    if properties is None:
        return False
    shade, highlight = properties.find(f"{W}shd"), properties.find(f"{W}highlight")
    if highlight is not None and highlight.get(f"{W}val", "none") not in ("none", "white"):
        return True
    if shade is None:
        return False
    fill = shade.get(f"{W}fill", "auto")
    patterned = shade.get(f"{W}val", "clear") not in ("clear", "nil")
    return patterned or shade.get(f"{W}themeFill") is not None or (fill != "auto" and not _is_white(fill))


def _white(colour: ET.Element) -> bool:
    if colour.get(f"{W}themeColor") in ("background1", "light1"):
        return colour.get(f"{W}themeShade") is None
    return _is_white(colour.get(f"{W}val", ""))


def _is_white(value: str) -> bool:
    if not re.fullmatch("[0-9A-Fa-f]{6}", value):
        return False
    return min(bytes.fromhex(value)) >= WHITE


def _tiny(size: ET.Element) -> bool:
    value = size.get(f"{W}val", "")
    return value.isdigit() and int(value) <= TINY
