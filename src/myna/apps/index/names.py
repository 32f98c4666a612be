"""Names of things as keys: one key for the ways a name is written.

`Ada Lovelace`, `the Ada  Lovelace`, `ＡＤＡ LOVELACE` and `Ada Lovelace's` are one; so are `查尔斯·巴贝奇` and `查尔斯巴贝奇`, 《红楼梦》 and 红楼梦,
`Vikings` and `Viking`. Two names that a text puts beside each other, one in brackets, are said to be the same: `World Health
Organization (WHO)`, `世界卫生组织（WHO）`.
"""

import re
from collections.abc import Iterator, Sequence

from myna.apps.index.words import is_cjk, units

LONGEST = 12  # units of a name: words, or characters of Chinese
_ARTICLES = frozenset(("the", "a", "an"))
_BRACKET = re.compile(r"[(（]\s*([^()（）]{2,80}?)\s*[)）]")


def key(name: str) -> str:
    """ "" where nothing is left that could be a name: articles, pronouns, single letters and characters, signs."""
    found = units(name)
    while found and found[0] in _ARTICLES:
        del found[0]
    made = _joined(found[:LONGEST])
    return made if len(made) > 1 and not _nobody(made, name) else ""


def last(key: str) -> str:
    """The last word of a key in letters, by which its bearer is mostly called; "" in Chinese, where names are not cut."""
    word = key.rpartition(" ")[2]
    return word if word.isalpha() and len(word) > 1 and not is_cjk(word) else ""


def keys_in(text: str) -> list[tuple[int, int, str]]:
    """Every key that a name within the text could have, with the places of its units: longer ones first."""
    found = units(text)
    spans = ((a, b) for length in range(LONGEST, 0, -1) for a in range(len(found) - length + 1) for b in (a + length,))
    return [(a, b, made) for a, b in spans if len(made := _joined(found[a:b])) > 1 and not _nobody(made, text)]


def longest(found: Sequence[tuple[int, int, str]]) -> Iterator[str]:
    """Of keys in a text those that lie in no other, each once, in the order of `found` (longer ones first)."""
    taken: list[tuple[int, int]] = []
    seen: set[str] = set()
    for a, b, one in found:
        if any(start <= a and b <= end for start, end in taken):
            continue
        taken.append((a, b))
        if one not in seen:
            seen.add(one)
            yield one


def stands_in(name: str, text: str) -> bool:
    """Whether a text has a name, however it is written there."""
    wanted, there = units(name), units(text)
    return bool(wanted) and f"\0{chr(0).join(wanted)}\0" in f"\0{chr(0).join(there)}\0"


def same(text: str) -> list[tuple[str, str]]:
    """(what stands before a bracket, what stands within): the second may be another name of the end of the first."""
    return [(text[max(match.start() - 100, 0) : match.start()], match.group(1)) for match in _BRACKET.finditer(text)]


def ends_with(text: str, name: str) -> bool:
    """Whether a name stands at the very end of a text."""
    wanted, there = units(name), units(text)
    return bool(wanted) and there[-len(wanted) :] == wanted


def _joined(found: Sequence[str]) -> str:
    """Characters of Chinese stand together, words apart."""
    made = ""
    for one in found:
        made += one if not made or (is_cjk(made[-1]) and is_cjk(one)) else f" {one}"
    return made


# Words that stand for somebody and name nobody, and articles, by their keys; WHO, IT and US in capitals are names.
_NOBODY = {
    _joined(units(word)): re.compile(rf"\b{word.upper()}\b")
    for word in (
        *"the an he him his she her hers it its they them their we us our you your me my mine this that these those who whom whose".split(),
        *"which what when where why how and or of in on at for with by from".split(),
        *"他们 她们 它们 我们 你们 自己 什么 这个 那个 哪里 哪个 多少 为什么".split(),
    )
}


def _nobody(made: str, text: str) -> bool:
    return made in _NOBODY and (not made.isascii() or not _NOBODY[made].search(text))
