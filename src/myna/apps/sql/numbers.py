"""Which cell does a number in a text come from? A number that comes from none is the model's own, and is marked."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from myna.apps.sql.database import Rows

# 1,234.5  -7  .5  12%  3.2万. Bounded, so that no text makes it slow. A number within a word (Q3, mp3) is part of a name.
NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])[-−]?(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,40})(?:\.\d{1,40})?(?:\s?(?:%|万|亿|千|百|thousand|million|billion|k|m|bn)(?![a-zA-Z]))?|(?<![A-Za-z0-9_.])[-−]?\.\d{1,40}",
    re.IGNORECASE,
)
UNITS = {"%": Fraction(1, 100), "百": Fraction(100), "千": Fraction(1000), "万": Fraction(10**4), "亿": Fraction(10**8)}
UNITS |= {"thousand": Fraction(1000), "k": Fraction(1000), "million": Fraction(10**6), "m": Fraction(10**6)}
UNITS |= {"billion": Fraction(10**9), "bn": Fraction(10**9)}
SPOKEN = {
    word: n for n, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), start=2)
}
SPOKEN |= {word: n for n, word in enumerate("二三四五六七八九十", start=2)} | {"两": 2}
# 一 and one count as often as they merely stand there; a Chinese numeral counts before a measure word.
WORD = re.compile(
    rf"\b(?:{'|'.join(w for w in SPOKEN if w.isascii())})\b|(?<![一二三四五六七八九十百千万第])[二两三四五六七八九十](?=[个位名首张家次种条人部本座辆])",
    re.IGNORECASE,
)
MARK = "[?]"  # after a number that no cell gives


@dataclass(frozen=True, slots=True)
class Found:
    """A number in a text: characters start to end, and where it comes from; "" is nowhere."""

    start: int
    end: int
    source: str


def trace(text: str, rows: Rows, known: Sequence[str] = ()) -> list[Found]:
    """Every number of the text. It may come from a cell, from the column's sum, mean, least or greatest, from the count of rows,
    or from `known` texts: the question's own numbers, the query's. A rounded number comes from what rounds to it."""
    sources = list(_sources(rows, known))
    found = []
    for start, end, value, half in _numbers(text):
        # "25 %" may be said of 0.25, and of a cell that holds 25.
        values = [(value, half), (value * 100, half * 100)] if "%" in text[start:end] else [(value, half)]
        source = next((where for amount, where in sources if any(_rounds_to(amount, *one) for one in values)), "")
        found.append(Found(start, end, source))
    return found


def marked(text: str, found: Sequence[Found]) -> str:
    """The text with a mark after every number that comes from nowhere."""
    for one in sorted(found, key=lambda one: -one.end):
        if not one.source:
            text = text[: one.end] + MARK + text[one.end :]
    return text


def _numbers(text: str) -> Iterator[tuple[int, int, Fraction, Fraction]]:
    """Start, end, value, and half of the last place: how far what it was rounded from may lie."""
    flat = "".join(
        n if len(n := unicodedata.normalize("NFKC", c)) == 1 else c for c in text
    )  # full-width digits; same length
    for match in NUMBER.finditer(flat):
        digits, unit = _split(match[0])
        try:
            value = Decimal(digits.replace(",", "").replace("−", "-"))
        except InvalidOperation:
            continue
        scale = UNITS.get(unit, Fraction(1))
        exponent = int(value.as_tuple().exponent)
        # Without a unit or a decimal point it is a count, and exact.
        half = Fraction(10) ** exponent / 2 if exponent < 0 or unit else Fraction(0)
        yield match.start(), match.end(), Fraction(value) * scale, half * scale
    for match in WORD.finditer(flat):
        yield match.start(), match.end(), Fraction(SPOKEN[match[0].lower()]), Fraction(0)


def _split(written: str) -> tuple[str, str]:
    digits = written.rstrip("%万亿千百abcdehilmnortuABCDEHILMNORTUkK \u00a0")
    return digits, written[len(digits) :].strip().lower()


def _rounds_to(amount: Fraction, value: Fraction, half: Fraction) -> bool:
    """Also of an amount's absolute value: "fell by 3" is -3."""
    exact = abs(amount - value) <= half or abs(abs(amount) - value) <= half
    # A mean is never said with all its places: a whole number may stand for one that is not.
    return exact or (half == 0 and amount.denominator != 1 and abs(amount - value) <= Fraction(1, 2))


def _sources(rows: Rows, known: Sequence[str]) -> Iterator[tuple[Fraction, str]]:
    """Amounts and where they are, the plainest first."""
    columns: list[list[Fraction]] = [[] for _ in rows.columns]
    for i, row in enumerate(rows.rows):
        for j, cell in enumerate(row):
            where = f"row {i + 1}, {rows.columns[j]}"
            if isinstance(cell, str):
                yield from ((value, where) for _, _, value, _ in _numbers(cell))
                yield from ((Fraction(int(digits)), where) for digits in re.findall(r"\d{1,40}", cell))
            elif cell is not None and not isinstance(cell, bool):
                amount = _fraction(cell)
                if amount is not None:
                    columns[j].append(amount)
                    yield amount, where
    yield Fraction(len(rows.rows)), "count of rows"
    for name, amounts in zip(rows.columns, columns, strict=True):
        if amounts:
            yield sum(amounts, Fraction(0)), f"sum of {name}"
            yield sum(amounts, Fraction(0)) / len(amounts), f"mean of {name}"
    for text in known:
        yield from ((value, "the question or the query") for _, _, value, _ in _numbers(text))


def _fraction(cell: int | float | Decimal) -> Fraction | None:
    try:
        return Fraction(cell)
    except (ValueError, OverflowError):  # NaN, infinity
        return None
