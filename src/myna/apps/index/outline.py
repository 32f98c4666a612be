"""Which summaries a tree has, before any is made: of sections, of documents, of folders, bottom up.

What is short goes up as it is: the text of a few short sections is a better account of them than a summary. What is long is cut into
groups that fit one prompt, each group becomes a summary, and so on until one is left (RAPTOR, Sarthi et al. 2024, which groups
by vectors; here the documents' own headings and folders do).

A summary's key is a hash of all that it is made from. So what is missing is known without a model, and what exists under its key
is right. Where a group ends depends on the keys within it: a document more or less moves the groups beside it and no others.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from myna.apps.index.building import one_line, size

SMALL = 2_400  # bytes that need no summary: two chunks of English, one of Chinese
ROOM = 8_000  # bytes that one summary is made from, 2,000 tokens of English
FEW = 4  # parts of a group, at least, where they fit
SUMMARY = 1_500  # bytes of a summary, at most
PLACE = 200  # bytes of a place's name
VERSION = "2"  # of the prompt and the rules here


@dataclass(frozen=True, slots=True)
class Node:
    """A passage as it stands (`chunk`: its number, document and start), or a summary of `parts`."""

    key: str
    place: str  # "manual.md > Pumps"; a folder's name
    size: int  # bytes in a prompt, at most
    level: int  # 0: a passage
    text: str = ""
    chunk: tuple[int, str, int] | None = None
    parts: tuple["Node", ...] = ()

    def chunks(self) -> Iterator[tuple[int, str, int]]:
        """Of all passages below, in order."""
        below = [self]
        while below:
            node = below.pop()
            if node.chunk:
                yield node.chunk
            below.extend(reversed(node.parts))


def outline(db: sqlite3.Connection, model: str) -> list[Node]:
    """Every summary that `model` would have to make, those below first."""
    folders: dict[str, list[Node]] = {}
    for sha, name in db.execute("SELECT sha, min(name) FROM names GROUP BY sha ORDER BY 2").fetchall():
        folders.setdefault(str(PurePath(name).parent), []).extend(_document(db, sha, name, model))
    tops: list[Node] = []
    for folder in sorted(folders, key=lambda one: (-len(PurePath(one).parts), one)):  # deepest first
        above = next((str(p) for p in PurePath(folder).parents if str(p) in folders), None)
        nodes = fold(folders[folder], folder, model)
        (folders[above] if above is not None else tops).extend(nodes)
    return _summaries(fold(tops, "all documents", model))


def fold(nodes: Sequence[Node], place: str, model: str) -> list[Node]:
    """The nodes as they are, where that is short; else one summary of them, and those below it."""
    kept = list(nodes)
    while len(kept) > 1 and sum(node.size for node in kept) > SMALL:
        kept = [
            group[0] if len(group) == 1 and group[0].parts else _summary(group, place, model) for group in _groups(kept)
        ]
    return kept


def _summary(parts: Sequence[Node], place: str, model: str) -> Node:
    place = one_line(place, PLACE)
    whole = "\n".join((VERSION, model, place, *(part.key for part in parts)))
    key = hashlib.sha256(whole.encode()).hexdigest()
    return Node(key, place, SUMMARY + size(place), 1 + max(part.level for part in parts), parts=tuple(parts))


def _groups(nodes: Sequence[Node]) -> Iterator[list[Node]]:
    group: list[Node] = []
    for node in nodes:
        if group and sum(one.size for one in group) + node.size > ROOM:
            yield group
            group = []
        group.append(node)
        if len(group) >= FEW and int(node.key[:8], 16) % FEW == 0:
            yield group
            group = []
    if group:
        yield group


def _document(db: sqlite3.Connection, sha: str, name: str, model: str) -> list[Node]:
    """Its sections folded into their parents, the innermost first."""
    found = db.execute(
        "SELECT number, title, parent, start FROM sections WHERE sha = ? ORDER BY number", (sha,)
    ).fetchall()
    titles: dict[int | None, str] = {None: name}
    for number, title, parent, _ in found:
        titles[number] = f"{titles[parent]} > {title}"
    below: dict[int | None, list[tuple[int, int, Node]]] = {None: []}  # section -> start, order, node
    query = "SELECT id, start, section, text FROM chunks WHERE sha = ? ORDER BY start"
    for chunk, start, section, text in db.execute(query, (sha,)).fetchall():
        below.setdefault(section, []).append((start, 0, _passage(chunk, sha, start, text, titles[section])))
    for number, _, parent, start in reversed(found):
        inner = fold([node for *_, node in sorted(below.pop(number, []), key=_order)], titles[number], model)
        below.setdefault(parent, []).extend((start, order, node) for order, node in enumerate(inner, 1))
    return fold([node for *_, node in sorted(below[None], key=_order)], name, model)


def _order(item: tuple[int, int, Node]) -> tuple[int, int]:
    return item[:2]


def _passage(chunk: int, sha: str, start: int, text: str, place: str) -> Node:
    place = one_line(place, PLACE)
    key = hashlib.sha256(f"{sha}\n{start}\n{place}\n{text}".encode()).hexdigest()
    return Node(key, place, size(text) + size(place), 0, text, (chunk, sha, start))


def _summaries(tops: Sequence[Node]) -> list[Node]:
    found: list[Node] = []
    below = list(tops)
    while below:
        node = below.pop()
        if node.parts:
            found.append(node)
            below.extend(node.parts)
    return sorted(found, key=lambda node: node.level)  # stable: the order within a level is the documents'
