"""Moderation by lists: phrases by category, found whatever somebody did to hide them.

A text is looked at in the form in which a reader takes it: half width, lower case, without accents and zero-width characters, look-alike
letters of other alphabets as Latin ones, digits and signs that stand for letters as letters, `f u c k` and `傻-逼` put together,
`fuuuuck` cut short. All phrases are found in one pass (Aho and Corasick 1975), so the time grows with the text alone, however many
there are.

Our lists are small and say what they are for (lists/en.txt, lists/zh.txt). A list knows no meaning: who quotes a word uses it, and
who threatens in other words is not found. Your own list is a file of the same form, or {"category": ["phrase", ...]} as JSON.
"""

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path

import orjson

from myna.checks.check import Check, Span, Verdict
from myna.checks.folded import CJK, Folded, fold, whole
from myna.records import Candidate, Conversation, DataError

OURS = ("en", "zh")
LARGEST = 16 << 20  # bytes of a list
CATEGORY = re.compile(r"\[([^\[\]]{1,60})\]")
# Letters of other alphabets that look like Latin ones (of Unicode's confusables.txt those that people type).
ALIKE = dict(zip("аеорсухіјѕԁһԛԝкмтвнгѵαβεικνορτυχγωηϲℓıɡɑ", "aeopcyxijsdhqwkmtbhrvabeiknoptuxywncliga", strict=True))
LEET = dict(zip("0134578@$!|€", "oieastbasile", strict=True))
# One letter at a time with something between: f u c k, f.u.c.k, f-u-c-k.
SPELLED = re.compile(rf"(?<![^\W{CJK}])[^\W{CJK}](?:[\s.*_·•~-]{{1,3}}[^\W{CJK}](?![^\W{CJK}])){{2,40}}")
BETWEEN_HAN = re.compile(rf"(?<=[{CJK}])[\s.*_·•~|/+#&^-]{{1,3}}(?=[{CJK}])")
MIXED = re.compile(r"[a-z0-9@$!|€]+")
LONG_RUN = re.compile(r"(.)\1{2,}")


@dataclass(slots=True)
class _Node:
    """A prefix of phrases: where the next character leads, where to go on when it does not, and the phrases that end here."""

    next: dict[str, "_Node"] = field(default_factory=dict)
    back: "_Node | None" = None
    ends: tuple[tuple[int, str], ...] = ()


class Lists:
    """Phrases by category, ready to be found."""

    def __init__(self, phrases: Mapping[str, Sequence[str]]):
        self.categories = tuple(phrases)
        self._root = _Node()
        for category, some in phrases.items():
            for phrase in some:
                self._add(phrase, category)
        self._link()

    def find(self, text: str) -> list[Span]:
        """What is there, in order, each span with its category. One that lies inside of another of its category is left out."""
        found = {span for view in views(text) for span in self._look(view)}
        kept: list[Span] = []
        for span in sorted(found, key=lambda span: (span.start, -span.end, span.label)):
            if not any(one.label == span.label and one.end >= span.end for one in kept[-4:]):
                kept.append(span)
        return kept

    def _look(self, view: Folded) -> Iterator[Span]:
        node = self._root
        for place, character in enumerate(view.text):
            while character not in node.next and node.back is not None:
                node = node.back
            node = node.next.get(character, self._root)
            for size, category in node.ends:
                start, end = place + 1 - size, place + 1
                if whole(view.text, start, end):
                    yield Span(*view.span(start, end), category)

    def _add(self, phrase: str, category: str) -> None:
        folded = _shortened(_read(phrase)).text
        if not folded.strip():
            raise DataError(f"{phrase[:40]!r}: nothing is left of this phrase when it is compared")
        node = self._root
        for character in folded:
            node = node.next.setdefault(character, _Node())
        node.ends = (*node.ends, (len(folded), category))

    def _link(self) -> None:
        todo = deque(self._root.next.values())
        for node in todo:
            node.back = self._root
        while todo:
            node = todo.popleft()
            for character, after in node.next.items():
                back = node.back
                while back is not None and character not in back.next:
                    back = back.back
                after.back = back.next[character] if back is not None else self._root
                after.ends += after.back.ends
                todo.append(after)


def views(text: str) -> Iterator[Folded]:
    """The text as a reader may take it: as it stands, with letters for digits, and put together where it is spelled out."""
    read = _read(text)
    yield _shortened(read)
    plain = _leet(read)
    if plain.text != read.text:
        yield _shortened(plain)
    joined = _joined(plain)
    if joined.text != plain.text:
        yield _shortened(joined)


def read_lists(*sources: str) -> Lists:
    """From our own lists by name ("en", "zh") and from files. Raises DataError."""
    phrases: dict[str, list[str]] = {}
    for source in sources:
        for category, some in (_ours(source) if source in OURS else _file(Path(source))).items():
            phrases.setdefault(category, []).extend(some)
    if not phrases:
        raise DataError("moderation.lists: no list is named")
    return Lists(phrases)


def moderation(*, lists: Sequence[str] = OURS, categories: Sequence[str] = (), allow: Sequence[str] = ()) -> Check:
    """None of the phrases of these lists is in the answer.

    lists        ours by name (en, zh), or files of your own
    categories   only these; all if nothing is said
    allow        phrases that are let through
    """
    found = lists_of(tuple(lists))
    if unknown := [name for name in categories if name not in found.categories]:
        raise DataError(f"moderation.categories: {unknown[0]!r}; these lists have {', '.join(found.categories)}")
    return Moderation(found, frozenset(categories), frozenset(_read(phrase).text for phrase in allow))


@dataclass(frozen=True, slots=True)
class Moderation:
    """See `moderation`."""

    lists: Lists
    categories: frozenset[str]
    allow: frozenset[str]

    def __call__(self, conversation: Conversation, candidate: Candidate) -> Verdict:
        text = candidate.text
        found = [
            span for span in self.lists.find(text)
            if (not self.categories or span.label in self.categories) and _read(text[span.start : span.end]).text not in self.allow
        ]  # fmt: skip
        return Verdict.of(not found, ", ".join(sorted({span.label for span in found})), tuple(found))

    def mend(self, text: str) -> str:
        """With stars instead of what was found."""
        letters = list(text)
        for span in self(Conversation(()), _said(text)).spans:
            letters[span.start : span.end] = "*" * (span.end - span.start)
        return "".join(letters)


@lru_cache(16)
def lists_of(sources: tuple[str, ...]) -> Lists:
    """`read_lists`, kept: a file that changes is read by the next process."""
    return read_lists(*sources)


def _said(text: str) -> Candidate:
    from myna.records import Message

    return Candidate((Message("assistant", text),))


@lru_cache(1 << 16)
def _letter(character: str) -> str:
    """As a reader takes it; "" for what nobody sees."""
    if character.isascii():
        return character.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", character).casefold())
    kept = "".join(c for c in folded if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return unicodedata.normalize("NFC", "".join(ALIKE.get(c, c) for c in kept))


def _read(text: str) -> Folded:
    return fold(text, _letter)


def _leet(read: Folded) -> Folded:
    """Signs as letters in what has letters, too: sh1t and a$$hole, but no 1984."""

    def letters(match: re.Match[str]) -> str:
        said = match[0]
        if not any(c.isalpha() for c in said) or said.isalpha():
            return said
        kept = said.rstrip("!")  # at its end it is a mark
        return "".join(LEET.get(c, c) for c in kept) + said[len(kept) :]

    return Folded(MIXED.sub(letters, read.text), read.places)


def _joined(read: Folded) -> Folded:
    keep = bytearray(b"\x01" * len(read.text))
    for match in SPELLED.finditer(read.text):
        for place in range(*match.span()):
            keep[place] = read.text[place].isalnum()
    for match in BETWEEN_HAN.finditer(read.text):
        keep[match.start() : match.end()] = bytes(match.end() - match.start())
    return _kept(read, keep)


def _shortened(read: Folded) -> Folded:
    """A letter that comes three times or more in a row comes once."""
    keep = bytearray(b"\x01" * len(read.text))
    for match in LONG_RUN.finditer(read.text):
        keep[match.start() + 1 : match.end()] = bytes(match.end() - match.start() - 1)
    return _kept(read, keep)


def _kept(read: Folded, keep: bytearray) -> Folded:
    if all(keep):
        return read
    places = [place for place, kept in enumerate(keep) if kept]
    return Folded("".join(read.text[place] for place in places), tuple(read.places[place] for place in places))


@cache
def _ours(name: str) -> dict[str, list[str]]:
    return _parsed((files("myna.checks") / "lists" / f"{name}.txt").read_text(encoding="utf-8"), name)


def _file(path: Path) -> dict[str, list[str]]:
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: a list of more than {LARGEST >> 20} MiB")
        text = path.read_text(encoding="utf-8")
        if not text.lstrip().startswith("{"):
            return _parsed(text, str(path))
        value = orjson.loads(text)
    except (OSError, UnicodeDecodeError, orjson.JSONDecodeError) as e:
        raise DataError(f"{path}: {e}. Our own lists are: {', '.join(OURS)}") from None
    if not all(
        isinstance(some, list) and some and all(isinstance(one, str) for one in some) for some in value.values()
    ):
        raise DataError(f'{path}: expected {{"category": ["phrase", ...], ...}}, with no empty list')
    return value


def _parsed(text: str, name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    category = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not (line := line.strip()) or line.startswith("#"):
            continue
        if mark := CATEGORY.fullmatch(line):
            category = mark[1]
        elif not category:
            raise DataError(f"{name}:{number}: a phrase before the first [category]")
        else:
            found.setdefault(category, []).append(line)
    return found
