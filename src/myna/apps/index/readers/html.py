"""HTML as a browser builds it (lexbor, HTML5 rules), without running anything and without fetching anything.

The main text (main, role=main, the only article; else all but nav, header, footer, aside) is page 1, what stands around it page 2:
nothing is dropped, and whoever searches can tell them apart. What a visitor does not see is hidden text: see _styles.py for the
styles that count; comments, alt text, templates and noscript too. Styles from other files are not read.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from myna.apps.index.dates import LONGEST
from myna.apps.index.decode import decode
from myna.apps.index.draft import Draft
from myna.apps.index.parsed import Parsed
from myna.apps.index.readers._styles import Looks, looks

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

Piece = tuple[str, "LexborNode | str"]  # ("text", words) | ("open", node) | ("close", node)

_NO_TEXT = {
    "script",
    "style",
    "head",
    "iframe",
    "object",
    "embed",
    "svg",
    "math",
    "audio",
    "video",
    "canvas",
    "datalist",
}
_UNSEEN = {"template": "template", "noscript": "noscript"}
_INLINE = set(
    "a abbr acronym b bdi bdo big cite code data del dfn em font i img input ins kbd label mark nobr output q rp rt ruby s samp small "
    "span strike strong sub sup time tt u var wbr -text -comment br".split()
)
_AROUND = "nav, footer, aside, header, [role=navigation], [role=contentinfo], [role=complementary], [role=banner]"
_MAIN = 0.2  # share of the text that a main element needs to be believed
_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([-\w]{2,40})", re.IGNORECASE)
_DATED = (
    "article:modified_time", "og:updated_time", "dcterms.modified", "dc.date.modified", "datemodified", "last-modified", "article:published_time",
    "datepublished", "dcterms.issued", "dcterms.created", "dc.date.issued", "dc.date.created", "dcterms.date", "dc.date", "pubdate", "date",
)  # fmt: skip
_SPACE = re.compile("[ \t\n\r\f]+")


def read(data: bytes, name: str) -> Parsed:
    draft = Draft("html")
    declared = _DECLARED.search(data[:4096])
    decoded = decode(data, declared[1].decode() if declared else "")
    for note in decoded.notes:
        draft.note(note)
    write_html(draft, decoded.text)
    return draft.done()


def write_html(draft: Draft, html: str) -> None:
    """The document's text, put down in `draft`."""
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise ImportError('HTML needs selectolax: pip install "myna[apps]"') from None
    tree = LexborHTMLParser(html)
    title = tree.css_first("title")
    draft.title = title.text() if title else ""
    draft.dated(*_dates(tree))
    body = tree.body
    if body is None:
        return
    page = _Page(draft, looks(tree, draft))
    main, around = _main(tree, body)
    if not around:
        page.write(body, set())
        return
    draft.page("main text")
    page.write(main, {node.mem_id for node in around})
    draft.page("around the main text")
    draft.end_sections()
    for node in around:
        page.write(node, {main.mem_id})


def _dates(tree: "LexborHTMLParser") -> Iterator[str]:
    """What the page says of when it was changed, else published: in its head, then where a visitor sees it."""
    said: dict[str, str] = {}
    for node in tree.css("meta[content]"):
        about = node.attributes
        key = about.get("property") or about.get("name") or about.get("itemprop") or about.get("http-equiv") or ""
        said.setdefault(key.lower(), about.get("content") or "")
    yield from (said[key] for key in _DATED if said.get(key))
    for mark in ("itemprop=dateModified", "itemprop=datePublished", "pubdate"):
        yield from (node.attributes.get("datetime") or node.text()[:LONGEST] for node in tree.css(f"time[{mark}]")[:1])
    times = {node.attributes.get("datetime") or "" for node in tree.css("time[datetime]")}
    if len(times) == 1:  # of several nobody knows which is the page's
        yield from times


def _main(tree: "LexborHTMLParser", body: "LexborNode") -> tuple["LexborNode", list["LexborNode"]]:
    """The element with the main text, and the outermost elements around it or within it that are no part of it."""
    articles = tree.css("main, [role=main]") or tree.css("article")
    main = articles[0] if len(articles) == 1 else body
    if main is not body and len(main.text()) < _MAIN * len(body.text()):
        main = body
    around = [
        node
        for node in body.css(_AROUND)
        if not (node.tag == "header" and _within(node, ("article", "main", "section")))
    ]
    if main is not body:
        around = [node for node in around if _inside(node, main)]
        around = [*_beside(main, body), *around]
    ids = {node.mem_id for node in around}
    around = [node for node in around if not any(up.mem_id in ids for up in _ancestors(node))]
    left = len(body.text()) - sum(len(node.text()) for node in around)
    return main, around if left >= _MAIN * len(body.text()) else []


def _beside(main: "LexborNode", body: "LexborNode") -> list["LexborNode"]:
    """The elements that together hold everything in `body` outside of `main`, in order."""
    up = [main, *_ancestors(main)]
    path = {node.mem_id for node in up}
    return [
        child
        for parent in reversed(up)
        if parent.mem_id != main.mem_id and (parent.mem_id == body.mem_id or _inside(parent, body))
        for child in parent.iter(include_text=True)
        if child.mem_id not in path
    ]


def _ancestors(node: "LexborNode") -> Iterator["LexborNode"]:
    while (node := node.parent) is not None:  # type: ignore[assignment]
        yield node


def _within(node: "LexborNode", tags: Iterable[str]) -> bool:
    return any((up.tag or "") in tags for up in _ancestors(node))


def _inside(node: "LexborNode", outer: "LexborNode") -> bool:
    return any(up.mem_id == outer.mem_id for up in _ancestors(node))


class _Page:
    """Elements of one document being written down."""

    def __init__(self, draft: Draft, look: Looks) -> None:
        self.draft = draft
        self.looks = look
        self.line: list[str] = []
        self.list_item = False

    def write(self, root: "LexborNode", skip: set[int]) -> None:
        block = ""
        tables: list[LexborNode] = []  # data tables whose rows are collected, outermost first
        for what, piece in self._walk(root, skip):
            if isinstance(piece, str):
                self.line.append(piece)
                continue
            tag = piece.tag or ""
            if what == "open" and tag == "table" and not tables and _is_data(piece):
                self._flush(block)
                self._table(piece)
                skip.add(piece.mem_id)
            elif tag == "br" and what == "open":
                self.line.append("\n" if self.line else "")
            elif tag not in _INLINE:
                self._flush(tag if what == "close" else block)
                self.list_item |= what == "open" and tag == "li"
        self._flush(block)

    def _flush(self, tag: str) -> None:
        text = "\n".join(line.strip(" ") for line in "".join(self.line).split("\n")).strip("\n")
        self.line.clear()
        if not text.strip():
            return
        if re.fullmatch("h[1-6]", tag):
            self.draft.heading(text, int(tag[1]))
        else:
            self.draft.add(f"- {text}" if self.list_item else text, "\n" if self.list_item else "\n\n")
        self.list_item = False

    def _table(self, table: "LexborNode") -> None:
        rows = []
        for row in table.css("tr"):
            cells = [cell for cell in row.iter() if cell.tag in ("td", "th")]
            rows.append(["".join(self._words(cell)) for cell in cells])
        if caption := table.css_first("caption"):
            self.draft.add("".join(self._words(caption)))
        self.draft.table(rows)

    def _words(self, root: "LexborNode") -> Iterator[str]:
        for what, piece in self._walk(root, set()):
            if isinstance(piece, str):
                yield piece
            elif piece.tag not in _INLINE or (piece.tag == "br" and what == "open"):
                yield " "

    def _walk(self, root: "LexborNode", skip: set[int]) -> Iterator[Piece]:
        """What a visitor sees of `root`, in order; the rest is hidden. No recursion: a page may nest a million deep. A node that is
        put into `skip` while it is open is not entered."""
        node: LexborNode | None = root
        spaced = False  # within pre, where white space stays
        while node is not None:
            entered = False
            tag = node.tag or ""
            if tag == "-text":
                words = node.text() if spaced else _SPACE.sub(" ", node.text())
                if self.looks.faint and self._faint(node):
                    self.draft.hide(words, "letters in the colour behind them")
                else:
                    yield "text", words
            elif self._seen(node, tag, skip):
                yield "open", node
                entered = node.mem_id not in skip
                spaced = spaced or tag == "pre"
            if entered and (child := node.first_child) is not None:
                node = child
                continue
            if entered:
                spaced = spaced and tag != "pre"
                yield "close", node
            while node is not None and node.mem_id != root.mem_id and node.next is None:
                node = node.parent
                if node is not None:
                    spaced = spaced and node.tag != "pre"
                    yield "close", node
            node = None if node is None or node.mem_id == root.mem_id else node.next

    def _faint(self, node: "LexborNode") -> bool:
        """The nearest element around a text that sets a colour makes it unreadable."""
        return next((self.looks.faint[up.mem_id] for up in _ancestors(node) if up.mem_id in self.looks.faint), False)

    def _seen(self, node: "LexborNode", tag: str, skip: set[int]) -> bool:
        """Whether an element is looked into; what it hides is noted down."""
        if node.mem_id in skip or tag in _NO_TEXT:
            return False
        if tag == "-comment":
            self.draft.hide(re.sub(r"^<!--|-->$", "", node.html or ""), "comment")
            return False
        if tag.startswith("-"):
            return False
        if why := _UNSEEN.get(tag) or self.looks.unseen.get(node.mem_id, ""):
            self.draft.hide(_SPACE.sub(" ", _inner(node) if tag in _UNSEEN else node.text()), why)
            return False
        if tag in ("img", "area") and (alt := node.attributes.get("alt")):
            self.draft.hide(alt, "alt text")
        if tag == "input" and node.attributes.get("type") in (None, "text", "submit", "button", "search"):
            self.line.append(f" {node.attributes.get('value') or ''} ")
        return True


def _inner(node: "LexborNode") -> str:
    """The words of an element whose content is no part of the page."""
    from selectolax.lexbor import LexborHTMLParser

    inside = re.sub(r"^<[^>]*>|</[^>]*>$", "", node.html or "")
    return LexborHTMLParser(inside).root.text() if inside else ""  # type: ignore[union-attr]


def _is_data(table: "LexborNode") -> bool:
    """A table of data and not of layout: no table, heading or list within, at least two cells."""
    return not table.css_first("table table, h1, h2, h3, h4, ul, ol, form") and len(table.css("td, th")) > 1
