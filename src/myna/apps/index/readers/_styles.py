"""Which elements of a page a visitor does not see, by their own styles and the page's style elements.

Not a browser: the last matching rule wins, whatever its specificity; rules within @media and with pseudo-classes are not read. What
people use to hide text from visitors is: display, visibility, opacity, tiny letters, letters in the colour of what is behind them,
places far outside the page, boxes without size, and `hidden`.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from myna.apps.index.draft import Draft

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

MAX_RULES = 2000  # that are read of one page's style elements
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)
NEAR = 24  # of 255 that two colours may differ in every channel and cannot be told apart

_AT = re.compile(r"@[^{};]+\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}|@[^{};]+;")
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_HIDING = re.compile(
    r"(?P<display>\bdisplay:none)|(?P<visibility>visibility:(?:hidden|collapse))|(?P<opacity>\bopacity:0*(?:\.0*)?(?:;|$))"
    r"|(?P<tiny>font-size:0*(?:[01](?:\.\d+)?px|0?\.0\d*r?em|0(?:\.0+)?(?:px|pt|r?em|%)?|1(?:\.\d+)?pt)(?:;|$))"
    r"|(?P<outside>(?:left|top|right|bottom|text-indent|margin-left):-\d{4,})"
    r"|(?P<clip>clip:rect\((?:0|1px)|clip-path:inset\((?:50|100)%)|(?P<size>(?:^|;)(?:max-)?(?:height|width):0(?:px)?;?.*overflow:hidden)"
    r"|(?P<scale>transform:scale\(0\))"
)
_WORDS = {
    "display": "display:none",
    "visibility": "visibility:hidden",
    "opacity": "transparent",
    "tiny": "tiny letters",
    "outside": "outside the page",
    "clip": "clipped away",
    "size": "box without size",
    "scale": "box without size",
}
_NAMES: dict[str, Colour] = {"white": WHITE, "black": (0, 0, 0), "snow": (255, 250, 250), "ivory": (255, 255, 240)}
_RELEVANT = re.compile(
    "display|visibility|opacity|font-size|color|background|left|top|indent|clip|height|width|transform"
)


@dataclass(frozen=True, slots=True)
class Looks:
    """Elements by their mem_id."""

    unseen: dict[int, str]  # with all that is in them: why
    faint: dict[int, bool]  # those that set colours: whether letters right in them look like what is behind them


def looks(tree: "LexborHTMLParser", draft: Draft) -> Looks:
    styles = _styles(tree, draft)
    found = {node: why for node, style in styles.items() if (why := _why(style))}
    for node in tree.css("[hidden]"):
        found.setdefault(node.mem_id, "hidden attribute")
    coloured = {node: style for node, style in styles.items() if "color" in style or "background" in style}
    for node in tree.css("font[color], [bgcolor]"):
        own = {"color": node.attributes.get("color"), "background": node.attributes.get("bgcolor")}
        says = "".join(f"{key}:{value};" for key, value in own.items() if value)
        coloured[node.mem_id] = _squeezed(says) + coloured.get(node.mem_id, "")
    return Looks(found, _faint(tree, coloured) if coloured else {})


def _styles(tree: "LexborHTMLParser", draft: Draft) -> dict[int, str]:
    """Declarations that may hide, squeezed, by element: of style elements first, its own last."""
    styles: dict[int, str] = {}
    css = _COMMENT.sub("", "\n".join(node.text() for node in tree.css("style")))
    rules = [rule for rule in _RULE.findall(_AT.sub("", css)) if _RELEVANT.search(rule[1])]
    if len(rules) > MAX_RULES:
        draft.note(f"{len(rules)} style rules, the first {MAX_RULES} were read: some hidden text may count as visible")
    for selector, declarations in rules[:MAX_RULES]:
        for node in _matches(tree, selector):
            styles[node.mem_id] = styles.get(node.mem_id, "") + _squeezed(declarations)
    for node in tree.css("[style]"):
        styles[node.mem_id] = styles.get(node.mem_id, "") + _squeezed(node.attributes.get("style") or "")
    return styles


def _matches(tree: "LexborHTMLParser", selector: str) -> list["LexborNode"]:
    if ":" in selector:
        return []
    try:
        found = tree.css(selector.strip())
    except Exception:  # whatever lexbor says of a selector it cannot read: then it selects nothing, as in a browser
        return []
    return [node for node in found if node.tag not in ("html", "body")]  # hidden until a script shows them


def _squeezed(declarations: str) -> str:
    return re.sub(r"\s+|!important", "", declarations.lower()).rstrip(";") + ";"


def _why(style: str) -> str:
    """Why an element with these declarations is not seen."""
    shown = style.rfind("display:"), style.rfind("display:none")
    for match in _HIDING.finditer(style):
        if match.lastgroup == "display" and shown[0] > shown[1]:
            continue  # a later rule shows it again
        return _WORDS[match.lastgroup or ""]
    return ""


def _faint(tree: "LexborHTMLParser", styles: dict[int, str]) -> dict[int, bool]:
    """Elements that set a colour, and whether letters in it can be told from what is behind; both are inherited from outer elements."""
    ground: dict[int, tuple[Colour | None, Colour | None]] = {}  # letters, background; None: not known
    for node in tree.css("*"):
        style = styles.get(node.mem_id)
        if style is None:
            continue
        letters, behind = _inherited(node, ground)
        if back := re.findall(r"background(?:-color)?:([^;]+)", style):
            behind = colour_of(back[-1], behind)
        if "background-image:" in style:
            behind = None
        if colour := re.findall(r"(?:^|;)color:([^;]+)", style):
            letters = colour_of(colour[-1], behind)
        ground[node.mem_id] = letters, behind
    return {node: bool(letters and behind and near(letters, behind)) for node, (letters, behind) in ground.items()}


def _inherited(
    node: "LexborNode", ground: dict[int, tuple[Colour | None, Colour | None]]
) -> tuple[Colour | None, Colour | None]:
    up = node.parent
    while up is not None:
        if up.mem_id in ground:
            return ground[up.mem_id]
        up = up.parent
    return (0, 0, 0), WHITE


def near(a: Colour, b: Colour) -> bool:
    return all(abs(x - y) <= NEAR for x, y in zip(a, b, strict=True))


def colour_of(css: str, behind: Colour | None) -> Colour | None:
    """#rgb, #rrggbb, rgb(), rgba(), white, transparent: the colour; None for any other."""
    if css in ("transparent",) or re.fullmatch(r"rgba\([\d.,]*,0*(?:\.0*)?\)", css):
        return behind
    if css in _NAMES:
        return _NAMES[css]
    if match := re.fullmatch(r"#?([0-9a-f]{6})", css):
        return int(match[1][:2], 16), int(match[1][2:4], 16), int(match[1][4:], 16)
    if match := re.fullmatch(r"#([0-9a-f])([0-9a-f])([0-9a-f])", css):
        return int(match[1], 16) * 17, int(match[2], 16) * 17, int(match[3], 16) * 17
    if match := re.match(r"rgba?\((\d+),(\d+),(\d+)", css):
        return int(match[1]), int(match[2]), int(match[3])
    return None
