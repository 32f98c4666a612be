"""Characters that have no shape, and words that look like others.

What cannot be seen can still be read by a model: tag characters spell whole sentences, a zero-width space splits a word that a filter
looks for, a direction override shows a text backwards (CVE-2021-42574), a Cyrillic letter stands for a Latin one (Unicode TR39).
Invisible characters are ranges here; where people use them honestly (joiners within emoji, Persian and Indic words, soft hyphens,
direction marks) nobody is warned.
"""

import re
from dataclasses import dataclass, field

from myna.apps.index.parsed import Range

_PLAIN = "\x00-\u02ff\u2000-\u206f\u3000-\u30ff\u3400-\u9fff\uff00-\uffef"  # scripts whose words need no joiner
_CLASSES = {  # name of the group: (pattern, what the note says; "" warns nobody)
    "zero": (f"[\u200b\u2060-\u2064\u180e\ufeff]+|(?:(?<=[{_PLAIN}])|^)[\u200c\u200d]+", "zero-width characters"),
    "turn": ("[\u202d\u202e]", "characters that turn the direction of the text (it reads otherwise than it looks)"),
    "tags": (
        "(?<![\U0001f3f4\U000e0000-\U000e007f])[\U000e0000-\U000e007f]+",
        "Unicode tag characters (they spell text that nobody sees)",
    ),
    "select": (
        "(?<=[\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f\U000e0100-\U000e01ef]+",
        "variation selectors that select nothing (they can carry data)",
    ),
    "quiet": ("[\xad\u200e\u200f\u061c\u202a-\u202c\u2066-\u2069]", ""),
}
_UNSEEN = re.compile("|".join(f"(?P<{name}>{pattern})" for name, (pattern, _) in _CLASSES.items()))

# Letters of other alphabets that are drawn as Latin ones: the part of Unicode's confusables.txt that mail and web addresses suffer from.
_LOOKALIKE = "аеорсухіјѕԁԛԝһɡАВЕКМНОРСТХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧοα"
_LETTERS = re.compile(f"[A-Za-z{_LOOKALIKE}]+")


@dataclass(frozen=True, slots=True)
class Unseen:
    ranges: tuple[Range, ...] = ()
    notes: tuple[str, ...] = field(default=())


def unseen(text: str) -> Unseen:
    """The ranges of `text` that have no shape, and a counted note for each kind that deserves one."""
    if text.isascii():
        return Unseen()
    ranges: list[Range] = []
    counts = dict.fromkeys(_CLASSES, 0)
    for match in _UNSEEN.finditer(text):
        ranges.append(match.span())
        counts[match.lastgroup or ""] += match.end() - match.start()
    notes = [f"hidden text: {counts[name]} {said}" for name, (_, said) in _CLASSES.items() if said and counts[name]]
    mixed = [word for word in _LETTERS.findall(text) if not word.isascii() and any(map(str.isascii, word))]
    if mixed:
        notes.append(f"{len(mixed)} words mix alphabets that look alike, the first: {mixed[0][:40]!r}")
    return Unseen(tuple(ranges), tuple(notes))
