"""When two answers are the same: by their words, English and Chinese alike.

    normalised("The Eiffel Tower.") == "eiffel tower"      f1("in 1889", "1889") == 2 / 3
    groups(["Paris", "paris.", "Rome"]) == ((0, 1), (2,))

Words are SQuAD's (Rajpurkar et al. 2016): no case, no articles, no punctuation; a Chinese, Japanese or Korean character is a word of its
own, as in CMRC 2018's scorer (Cui et al. 2019).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

ALIKE = 0.8  # F1 from which two answers say the same: one word more in five, not another number in two
HALF = 0.5  # F1 from which an answer counts as the labelled one
LONG = 20  # words that may stand around it
LONGEST = 4_000  # characters of an answer that are compared; longer ones are no short answers, see samples.py
_ARTICLES = frozenset({"a", "an", "the"})
# Digits with their separators are one word; so is any other run of letters, outside of the scripts that write no spaces.
_WORD = re.compile(
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)


def words(text: str) -> list[str]:
    """The words that count. "１，２３４" and "1,234" and "1234" are one and the same."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    plain = [word.replace(",", "") for word in found]
    return [word for word in plain if word not in _ARTICLES] or plain  # "A" alone is an answer


def normalised(text: str) -> str:
    """What is left when case, articles, punctuation and spaces do not count."""
    return " ".join(words(text))


def f1(said: str, wanted: str) -> float:
    """Harmonic mean of precision and recall of words, from 0 to 1 (Rajpurkar et al. 2016). Two empty answers are 1."""
    a, b = Counter(words(said)), Counter(words(wanted))
    common = (a & b).total()
    if not a or not b:
        return float(not a and not b)
    return 2 * common / (a.total() + b.total())


def alike(a: str, b: str) -> bool:
    """Same words, or nearly: F1 of ALIKE and more, with the same numbers in both."""
    x, y = words(a), words(b)
    if x == y:
        return True
    if [word for word in x if word[0].isdigit()] != [word for word in y if word[0].isdigit()]:
        return False
    return f1(a, b) >= ALIKE


def right(said: str, answers: Sequence[str]) -> bool:
    """Whether a short answer is one of those that are right: it has that one's words in it, one after the other, or has F1 of HALF and
    more with it and all its numbers. An answer of more than LONG words more is none: it may name whatever there is."""
    given, there = words(said), numbers(said)
    for one in answers:
        wanted = words(one)
        if not wanted or len(given) > len(wanted) + LONG:
            continue
        if any(given[i : i + len(wanted)] == wanted for i in range(len(given) - len(wanted) + 1)):
            return True
        if f1(said, one) >= HALF and numbers(one) <= there:
            return True
    return False


def numbers(text: str) -> set[str]:
    """The numbers among the words."""
    return {word for word in words(text) if word[0].isdigit()}


def groups(answers: Sequence[str], same: Callable[[str, str], bool] = alike) -> tuple[tuple[int, ...], ...]:
    """Numbers of answers that say the same, the largest group first, then the one that was said first.

    Two answers are in one group if a chain of `same` leads from one to the other, so their order changes nothing.
    """
    of = list(range(len(answers)))
    for i, one in enumerate(answers):
        for j in range(i):
            if of[i] != of[j] and same(answers[j], one):
                low, high = sorted((of[i], of[j]))
                of = [low if group == high else group for group in of]
    members = {group: tuple(i for i, mine in enumerate(of) if mine == group) for group in of}
    return tuple(sorted(members.values(), key=lambda group: (-len(group), group[0])))
