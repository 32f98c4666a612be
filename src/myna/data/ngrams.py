"""Texts as sets of numbers: hashes of all their n-grams, by numpy. What dedup.py and overlap.py compare."""

import re
import unicodedata
import zlib
from collections.abc import Collection, Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd; 2**64 over the golden ratio, so that neighbours land far apart
# A unit of overlap: a Chinese or Japanese character, a Korean syllable, or a word of any other script.
_IDEOGRAPHS = "\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_BLANKS = re.compile(r"\s+")


def normalized(text: str) -> str:
    """The text without what people do not see as a difference: width and form of letters (NFKC), case, kind of white space."""
    return _lately(text) if len(text) < SHORT else _normalized(text)


def _normalized(text: str) -> str:
    return _BLANKS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


# Copies and overlap each ask for the same row twice; long texts are not held for that.
SHORT = 1 << 20  # characters
_lately = lru_cache(maxsize=2)(_normalized)


def characters(text: str) -> Hashes:
    """The normalized text's characters as numbers; a lone surrogate is a character too."""
    data = normalized(text).encode("utf-32-le", errors="surrogatepass")
    return np.frombuffer(data, np.uint32).astype(np.uint64)


def words(text: str) -> list[str]:
    """Words, and where a script has no blanks characters, of the normalized text; punctuation is left out."""
    found: list[str] = _UNIT.findall(normalized(text))
    return found


def units(text: str) -> Hashes:
    """The text's `words` as numbers."""
    return np.array([zlib.crc32(word.encode(errors="surrogatepass")) for word in words(text)], np.uint64)


def ngrams(numbers: Hashes, n: int) -> Hashes:
    """The hash of every n numbers in a row [max(len - n + 1, 0)]: a polynomial modulo 2**64, then mixed (SplitMix64)."""
    return next((grams for _, grams in ngrams_of(numbers, (n,))), np.zeros(0, np.uint64))


def ngrams_of(numbers: Hashes, sizes: Collection[int]) -> Iterator[tuple[int, Hashes]]:
    """(n, `ngrams` of n) for each of these sizes that there are enough numbers for, the small ones first."""
    hashed = np.zeros(len(numbers), np.uint64)
    for at in range(min(max(sizes, default=0), len(numbers))):
        hashed = hashed[: len(numbers) - at]
        hashed *= FACTOR
        hashed += numbers[at:]
        hashed += np.uint64(1)
        if at + 1 in sizes:
            yield at + 1, mixed(hashed)


def mixed(hashed: Hashes) -> Hashes:
    """Every bit of the result depends on every bit of the number (Steele et al. 2014)."""
    hashed = (hashed ^ (hashed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashed = (hashed ^ (hashed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashed ^ (hashed >> np.uint64(31))
