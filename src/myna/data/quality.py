"""Counts by which texts are judged, in the manner of Gopher's and C4's filters; and the rules, which only say, never drop.

Rules and thresholds: Rae et al. 2021 (arXiv:2112.11446, table A1), Raffel et al. 2020 (arXiv:1910.10683, section 2.2). A
word is a word, or one character of a script without blanks.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

import numpy as np

from myna.data.ngrams import ngrams, units, words
from myna.data.sources import Place
from myna.records import Json

LONGEST = 1 << 20  # characters of a text that are looked at; a book's first million say what it is
FIRST = 3
_SYMBOLS = re.compile(r"#|\.\.\.|…")
_ENDS = tuple('.!?"”’。！？」』…')
_BULLETS = ("•", "‣", "●", "- ", "* ", "· ")
# First code point of a stretch of letters, and its script ("" where none of these begins).
_STRETCHES: tuple[tuple[int, str], ...] = (
    (0, ""), (0x41, "Latin"), (0x5B, ""), (0x61, "Latin"), (0x7B, ""), (0xC0, "Latin"), (0x250, ""), (0x370, "Greek"),
    (0x400, "Cyrillic"), (0x530, ""), (0x590, "Hebrew"), (0x600, "Arabic"), (0x700, ""), (0x900, "Devanagari"), (0x980, ""),
    (0xE00, "Thai"), (0xE80, ""), (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, ""), (0x3041, "Kana"), (0x3100, ""),
    (0x3400, "Han"), (0x4DC0, ""), (0x4E00, "Han"), (0xA000, ""), (0xAC00, "Hangul"), (0xD7B0, ""), (0xF900, "Han"),
    (0xFB00, ""), (0x20000, "Han"), (0x32000, ""),
)  # fmt: skip
_BEGINS = np.array([begin for begin, _ in _STRETCHES])


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one text. Shares are from 0 to 1.

    mean_word   characters of a word                         symbols       "#" and "..." for each word
    letters     words that have a letter                     bullets       lines that begin with one
    open_lines  lines that end without punctuation           ellipses      lines that end with "..."
    repeated_lines, repeated_paragraphs                      characters in lines or paragraphs that stood there before
    top_2gram, top_4gram                                     characters in the most frequent pair, four, of words
    repeated_10grams                                         characters in ten words that stood there before
    broken      U+FFFD and control characters                script        of most letters
    """

    characters: int
    words: int
    lines: int
    mean_word: float
    symbols: float
    letters: float
    bullets: float
    open_lines: float
    ellipses: float
    repeated_lines: float
    repeated_paragraphs: float
    top_2gram: float
    top_4gram: float
    repeated_10grams: float
    broken: float
    script: str


RULES: dict[str, Callable[[Quality], bool]] = {
    "fewer than 50 words": lambda q: q.words < 50,
    "more than 100,000 words": lambda q: q.words > 100_000,
    "words too short or too long": lambda q: q.script == "Latin" and not 3 <= q.mean_word <= 10,
    "many symbols": lambda q: q.symbols > 0.1,
    "many words without letters": lambda q: q.letters < 0.8,
    "mostly bullets": lambda q: q.bullets > 0.9,
    "many lines end in ...": lambda q: q.ellipses > 0.3,
    "repeated lines": lambda q: q.repeated_lines > 0.2,
    "repeated paragraphs": lambda q: q.repeated_paragraphs > 0.2,
    "one pair of words over and over": lambda q: q.top_2gram > 0.2,
    "one phrase over and over": lambda q: q.top_4gram > 0.16,
    "repeated passages": lambda q: q.repeated_10grams > 0.1,
    "no line ends like a sentence": lambda q: q.open_lines == 1,
    "broken characters": lambda q: q.broken > 0.001,
}


def quality(text: str) -> Quality:
    text = text[:LONGEST]
    found, lines = words(text), [line.strip() for line in text.splitlines() if line.strip()]
    count, sizes = max(len(found), 1), np.array([len(word) for word in found], np.int64)
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return Quality(
        characters=len(text),
        words=len(found),
        lines=len(lines),
        mean_word=float(sizes.sum()) / count,
        symbols=len(_SYMBOLS.findall(text)) / count,
        letters=sum(any(c.isalpha() for c in word) for word in found) / count,
        bullets=_share(lines, lambda line: line.startswith(_BULLETS)),
        open_lines=_share(lines, lambda line: not line.endswith(_ENDS)),
        ellipses=_share(lines, lambda line: line.endswith(("...", "…"))),
        repeated_lines=_repeated(lines),
        repeated_paragraphs=_repeated(paragraphs),
        top_2gram=_top(text, sizes, 2),
        top_4gram=_top(text, sizes, 4),
        repeated_10grams=_covered(text, sizes, 10),
        broken=sum(c == "\ufffd" or (c < " " and c not in "\n\r\t\f") for c in text) / max(len(text), 1),
        script=script(text),
    )


def flaws(found: Quality) -> list[str]:
    """The rules a text breaks."""
    return [name for name, broken in RULES.items() if broken(found)]


def script(text: str) -> str:
    """The script of most of the text's letters, told from code points; "none" where there are no letters of a known one."""
    points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)
    stretches = np.bincount(np.searchsorted(_BEGINS, points, side="right") - 1, minlength=len(_STRETCHES))
    counts = Counter[str]()
    for (_, name), count in zip(_STRETCHES, stretches.tolist(), strict=True):
        if name:
            counts[name] += count
    name, count = counts.most_common(1)[0]
    return name if count else "none"


@dataclass
class Summary:
    """The qualities of many texts: sums, how many break which rule, and the first places that do."""

    texts: int = 0
    characters: int = 0
    words: int = 0
    scripts: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)

    def add(self, place: Place, text: str) -> Quality:
        found = quality(text)
        self.texts += 1
        self.characters += len(text)
        self.words += found.words
        self.scripts[found.script] += 1
        self.sizes.append(len(text))
        for rule in flaws(found):
            self.broken[rule] += 1
            if len(places := self.first.setdefault(rule, [])) < FIRST:
                places.append(str(place))
        return found

    def percentiles(self) -> dict[str, int]:
        """Characters of a text."""
        at = {"min": 0, "p10": 10, "median": 50, "p90": 90, "max": 100}
        return {name: int(np.percentile(self.sizes or [0], p)) for name, p in at.items()}

    def to_json(self) -> Json:
        row = asdict(self)
        del row["sizes"]
        return row | {"scripts": dict(self.scripts), "broken": dict(self.broken), "lengths": self.percentiles()}


def _share(lines: list[str], test: Callable[[str], bool]) -> float:
    return sum(map(test, lines)) / max(len(lines), 1)


def _repeated(parts: Iterable[str]) -> float:
    seen, again, total = set[str](), 0, 0
    for part in parts:
        total += len(part)
        again += len(part) if part in seen else 0
        seen.add(part)
    return again / max(total, 1)


def _top(text: str, sizes: np.ndarray, n: int) -> float:
    """The share of characters in the most frequent n-gram, if it is there more than once."""
    _, first, counts = np.unique(ngrams(units(text), n), return_index=True, return_counts=True)
    if not len(counts) or counts.max() == 1:
        return 0.0
    at = int(first[counts.argmax()])
    return float(min(1.0, sizes[at : at + n].sum() * counts.max() / max(sizes.sum(), 1)))


def _covered(text: str, sizes: np.ndarray, n: int) -> float:
    """The share of characters in n-grams that stood there before, each counted once."""
    grams = ngrams(units(text), n)
    again = np.ones(len(grams), bool)
    again[np.unique(grams, return_index=True)[1]] = False
    steps = np.zeros(len(sizes) + 1, np.int64)
    np.add.at(steps, np.flatnonzero(again), 1)
    np.add.at(steps, np.flatnonzero(again) + n, -1)
    return float(sizes[np.cumsum(steps)[: len(sizes)] > 0].sum() / max(sizes.sum(), 1))
