"""A text in the form in which it is compared, with the way back: which character of the original each folded one came from."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
HAN = re.compile(rf"[{CJK}]")


@dataclass(frozen=True, slots=True)
class Folded:
    """`places[i]` is the place in the original that character i of `text` stands for."""

    text: str
    places: tuple[int, ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The original characters [start, end) of folded ones; there is at least one."""
        return self.places[start], self.places[end - 1] + 1


def fold(text: str, one: Callable[[str], str]) -> Folded:
    """Character by character, as `one` folds each; "" drops it."""
    letters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for letter in one(character):
            letters.append(letter)
            places.append(place)
    return Folded("".join(letters), tuple(places))


@lru_cache(1 << 16)
def plain(character: str) -> str:
    """Half width, lower case."""
    return unicodedata.normalize("NFKC", character).casefold()


def find(text: Folded, phrase: str) -> Iterator[tuple[int, int]]:
    """Where a folded phrase stands, as original characters. Where it begins or ends like a Latin word, so must the text there;
    Chinese has no blanks between words."""
    start = text.text.find(phrase)
    while phrase and start >= 0:
        end = start + len(phrase)
        if whole(text.text, start, end):
            yield text.span(start, end)
        start = text.text.find(phrase, start + 1)


def whole(text: str, start: int, end: int) -> bool:
    """Whether [start, end) breaks no Latin word and no number in two."""
    return not (_joined(text, start) or _joined(text, end))


def _joined(text: str, place: int) -> bool:
    if not 0 < place < len(text):
        return False
    return all(c == "_" or (c.isalnum() and not HAN.match(c)) for c in text[place - 1 : place + 1])
