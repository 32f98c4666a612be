"""Text to the words that search counts. The same for what is indexed and for what is asked.

Chinese, Japanese and Korean are cut into characters and every two neighbours, which finds Chinese as well as a segmenter does
(Nie, Gao, Zhang, Zhou 2000; the pairs alone found less, docs/log.md). Latin words are lower-cased and stemmed
(Porter 1980). Full-width forms, ligatures and accents are folded (NFKC, then marks dropped). A number is one word, without
the commas that group its digits. What is written together in two scripts (`iPhone手机`, `GB2312`) is cut where the script changes.
"""

import re
import unicodedata
from collections.abc import Iterator

from myna.apps.index.porter import stem

LONGEST = 64  # characters of one word; the rest of a longer one is cut into words of its own

_CJK = (
    "\u3005-\u3007\u3040-\u309a\u309d-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
)
_WORD = re.compile(
    rf"(?P<cjk>[{_CJK}]+)"
    r"|(?P<number>\d+(?:[.,]\d+)*)"
    r"|(?P<latin>[a-z]+(?:['\u2019][a-z]+)*)"
    rf"|(?P<other>[^\W\d_a-z{_CJK}]+)"
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def words(text: str) -> list[str]:
    """In order, with repetitions. None of them holds a blank."""
    found: list[str] = []
    for kind, run in _runs(text):
        found += [*run, *(run[i : i + 2] for i in range(len(run) - 1))] if kind == "cjk" else _words(kind, run)
    return found


def units(text: str) -> list[str]:
    """The same with single characters of Chinese alone, so that what stands side by side in the text does so here."""
    return [one for kind, run in _runs(text) for one in (run if kind == "cjk" else _words(kind, run))]


def is_cjk(character: str) -> bool:
    return (found := _WORD.match(character)) is not None and found.lastgroup == "cjk"


def fold(text: str) -> str:
    """One form for what looks alike: half width, lower case, no accents. Characters may be more or fewer than before."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(c for c in folded if c.isascii() or unicodedata.category(c) != "Mn" or c in "\u3099\u309a")
    return unicodedata.normalize("NFC", kept)


def _runs(text: str) -> Iterator[tuple[str, str]]:
    return ((match.lastgroup or "", match.group()) for match in _WORD.finditer(fold(text)))


def _words(kind: str, run: str) -> list[str]:
    match kind:
        case "latin":
            return [stem(piece) for piece in _pieces(run.partition("'")[0].partition("\u2019")[0])]
        case "number":
            return _pieces(_number(run))
    return _pieces(run)


def _number(run: str) -> str:
    """1,234.50 -> 1234.50; a list of numbers such as 1,2 stays as it is."""
    return run.replace(",", "") if _GROUPED.fullmatch(run) else run


def _pieces(run: str) -> list[str]:
    return [run[i : i + LONGEST] for i in range(0, len(run), LONGEST)]
