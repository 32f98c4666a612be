"""English words to stems: M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980, as published.

Steps and rules carry the paper's names. `m` counts the vowel-consonant pairs of a stem, [C](VC){m}[V].
"""

from functools import lru_cache
from itertools import pairwise

Rules = tuple[tuple[str, str], ...]

STEP_2: Rules = (
    ("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("abli", "able"),
    ("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate"), ("ator", "ate"),
    ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al"), ("iviti", "ive"),
    ("biliti", "ble"),
)  # fmt: skip
STEP_3: Rules = (
    ("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", ""),
)  # fmt: skip
STEP_4: Rules = tuple(
    (suffix, "") for suffix in "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize".split()
)


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """Of a word of lower-case letters a to z. Words of one or two letters are their own stems."""
    if len(word) <= 2:
        return word
    word = _step_1c(_step_1b(_step_1a(word)))
    for rules, least in ((STEP_2, 1), (STEP_3, 1), (STEP_4, 2)):
        word = _replaced(word, rules, least)
    return _step_5(word)


def _measure(stem: str) -> int:
    """m: how often a vowel is followed by a consonant."""
    kinds = _kinds(stem)
    return sum(1 for before, after in pairwise(kinds) if not before and after)


def _kinds(stem: str) -> list[bool]:
    """True where a letter is a consonant; in one pass, so that a word of y's costs no recursion."""
    kinds: list[bool] = []
    for i, letter in enumerate(stem):
        kinds.append((i == 0 or not kinds[-1]) if letter == "y" else letter not in "aeiou")
    return kinds


def _has_vowel(stem: str) -> bool:
    return not all(_kinds(stem))


def _double(word: str) -> bool:
    """*d"""
    return len(word) > 1 and word[-1] == word[-2] and _kinds(word)[-1]


def _cvc(word: str) -> bool:
    """*o"""
    return len(word) > 2 and _kinds(word)[-3:] == [True, False, True] and word[-1] not in "wxy"


def _step_1a(word: str) -> str:
    for suffix, other in (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")):
        if word.endswith(suffix):
            return word.removesuffix(suffix) + other
    return word


def _step_1b(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            cut = word.removesuffix(suffix)
            return _mended(cut) if _has_vowel(cut) else word
    return word


def _mended(word: str) -> str:
    """What 1b does after it took off -ed or -ing."""
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if _double(word) and word[-1] not in "lsz":
        return word[:-1]
    return word + "e" if _measure(word) == 1 and _cvc(word) else word


def _step_1c(word: str) -> str:
    return word[:-1] + "i" if word.endswith("y") and _has_vowel(word[:-1]) else word


def _replaced(word: str, rules: Rules, least: int) -> str:
    """Steps 2 to 4: the longest suffix that fits decides, and acts where m of what is left is at least so much."""
    suffix, other = max((rule for rule in rules if word.endswith(rule[0])), key=lambda r: len(r[0]), default=("", ""))
    cut = word[: len(word) - len(suffix)]
    if not suffix or _measure(cut) < least or (suffix == "ion" and not cut.endswith(("s", "t"))):
        return word
    return cut + other


def _step_5(word: str) -> str:
    if word.endswith("e"):
        m = _measure(word[:-1])
        if m > 1 or (m == 1 and not _cvc(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word) > 1 else word
