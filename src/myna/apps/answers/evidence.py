"""Whether a value's words have it: numbers with their sign, dates, names, in English and Chinese."""

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from myna.apps.index.porter import stem
from myna.checks.same import words as parts

# A sign stands before a number and its currency, or after it as accountants write it; between two numbers or letters ("R-12", "3-5", "2024-03-05")
# it is none. In parentheses a number may be below zero, or just in parentheses.
_NUMBER = re.compile(
    r"(?P<open>\(\s?)?(?P<minus>(?<![\w.)\]])[-−–]\s?|(?i:\bminus )|负|零下)?(?P<money>[$€£¥￥]|(?i:eur|usd|gbp|cny|rmb)\s?)?"
    r"(?P<late>(?<=[$€£¥￥])[-−–])?(?P<digits>\d{1,3}(?:[,\u00a0' ]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?P<after>[-−–](?![\w(]))?(?P<close>\s?\))?"
)
_DAY = re.compile(r"(?:\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2}日?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})")
_MONTHS = {name: number for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_MONTH = re.compile(rf"(?i)\b({'|'.join(_MONTHS)})[a-z]{{0,6}}\b")


@dataclass(frozen=True, slots=True)
class Doubt:
    """why    what of a value its words do not have
    kept   most of it is there, so that it stays, and is marked; else there is no evidence of it
    """

    why: str
    kept: bool = False


def doubted(value: Any, words: str, choices: Collection[str] = ()) -> Doubt | None:
    """What of a value its words do not have; None where they have all of it.

    A number must be there with its sign, a day (2024-03-05) however it is written; of other texts every number and more than half of the words, by
    their stems. One of the schema's own `choices` need not be there in those words; of true and false words say nothing that can be looked at.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return None if Decimal(str(value)) in signed(words) else Doubt(f"its words do not have {value}")
    if _DAY.fullmatch(str(value)):
        return None if _has_day(str(value), words) else Doubt(f"its words do not have {value}")
    own, there = set(parts(str(value))), set(parts(words))
    missing = own - there
    stems = {stem(word) for word in there}
    known = sum(stem(word) in stems for word in own)
    kept = value in choices or (known > len(own) / 2 and not any(word[0].isdigit() for word in missing))
    return Doubt(f"its words do not have {', '.join(sorted(missing)[:5])}", kept) if missing else None


def signed(words: str) -> set[Decimal]:
    """The numbers in a text with their signs; what stands in parentheses with both."""
    found: set[Decimal] = set()
    for one in _NUMBER.finditer(unicodedata.normalize("NFKC", words)):
        try:
            size = Decimal(re.sub(r"[^\d.]", "", one["digits"]))
        except InvalidOperation:  # digits of a script that Decimal does not know
            continue
        below = one["minus"] or one["late"] or one["after"]
        found |= {-size} if below else {size, -size} if one["open"] and one["close"] else {size}
    return found


def _has_day(day: str, words: str) -> bool:
    """Year, month and day, in any order; the year may have two digits, and the month a name."""
    said = unicodedata.normalize("NFKC", words)
    there = {int(one) for one in re.findall(r"\d{1,4}", said)} | {_MONTHS[one.lower()] for one in _MONTH.findall(said)}
    year, *rest = sorted(map(int, re.findall(r"\d+", day)), reverse=True)
    return bool({year, year % 100} & there) and set(rest) <= there
