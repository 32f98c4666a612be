"""Where sentences stand in a text, English and Chinese."""

import re

# A sentence ends at 。！？；… with the closing marks after it, at a line's end, or at . ! ? before white space. Not after one letter
# (J. Smith, U.S.), a number at a line's start (1. First), or these:
_SHORT = frozenset(
    "mr mrs ms dr prof sr jr st vs etc fig no vol pp ca cf al e.g i.e inc ltd co corp u.s u.k ph.d jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
_END = re.compile(r"[。！？；…]+[”’」』）)\"']*|\n+|(?<![.!?])[.!?]++[\"'”’)\]]*+(?=\s|$)")
_LAST = re.compile(r"[^\s(\[\"'“‘]+$")
_SEEN = 24  # characters before a full stop that are looked at, so that the time grows with the text alone


def sentences(text: str) -> tuple[tuple[int, int], ...]:
    """Their ranges, without the blanks around them: what is no white space is in exactly one of them."""
    found, start = [], 0
    for end in _END.finditer(text):
        if end[0][0] == "." and _abbreviation(text[max(start, end.start() - _SEEN) : end.start()]):
            continue
        found.append((start, end.end()))
        start = end.end()
    found.append((start, len(text)))
    return tuple((a, b) for a, b in (_trimmed(text, *one) for one in found) if a < b)


def _abbreviation(before: str) -> bool:
    last = _LAST.search(before)
    word = last[0].lower() if last else ""
    return word in _SHORT or (len(word) == 1 and word.isalpha()) or (word.isdigit() and before.strip() == word)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    return start, start + len(piece.strip())
