"""When a document is from: what it says of itself, else when its file was last changed.

What a document says is a stranger's word: only a plain date is taken of it, of the year 1000 or later and not after tomorrow (whoever
claims to come from the future would be the newest for ever), and none that programs write where they know none.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

LONGEST = 64  # characters of a date, with its time
OLDEST = 1000  # year
# The first day of Windows, Excel, Mac, Unix and ZIP: no date at all.
ZEROS = frozenset("1601-01-01 1899-12-30 1899-12-31 1900-01-01 1904-01-01 1970-01-01 1980-01-01".split())
# The moments that python-docx and python-pptx write into whatever they make, out of their templates.
TEMPLATES = frozenset("2013-12-23T23:15:00Z 2013-01-27T09:14:16Z 2013-01-27T09:15:58Z".split())
_MONTHS = {name: i for i, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
_MONTH = f"(?P<m>{'|'.join(_MONTHS)})[a-z]{{0,6}}\\.?"
_FORMS = [
    re.compile(form, re.IGNORECASE | re.DOTALL)
    for form in (
        # PDF (D:20240305101112+08'00') and ISO 8601 without dashes
        r"(?:D:)?(?P<y>[0-9]{4})(?:(?P<m>[0-9]{2})(?:(?P<d>[0-9]{2})(?:T?[0-9]{2,6}(?:\.[0-9]+)?)?(?:Z.*|[+-][0-9]{2}.*)?)?)?",
        r"(?P<y>[0-9]{4})([-/.])(?P<m>[0-9]{1,2})(?:\2(?P<d>[0-9]{1,2})(?:[T\s,].*)?)?",
        r"(?P<y>[0-9]{4})\s?年(?:\s?(?P<m>[0-9]{1,2})\s?月(?:\s?(?P<d>[0-9]{1,2})\s?[日号].*)?)?",
        rf"(?:[a-z]{{3,9}},?\s)?(?P<d>[0-9]{{1,2}})(?:st|nd|rd|th)?[\s-]{_MONTH},?[\s-](?P<y>[0-9]{{4}})(?:\s.*)?",  # RFC 5322
        rf"(?:[a-z]{{3,9}},?\s)?{_MONTH}\s(?P<d>[0-9]{{1,2}})(?:st|nd|rd|th)?,?\s(?P<y>[0-9]{{4}})(?:\s.*)?",
    )
]


@dataclass(frozen=True, slots=True)
class Dated:
    """A day as in 2024-03-05; a document may say less: 2024-03, 2024. `by`: whose word it is."""

    day: str
    by: Literal["document", "file"]

    @classmethod
    def of(cls, said: str, files: Iterable[str]) -> "Dated | None":
        """What the document says, else the day of the oldest file with these contents; None where neither is known."""
        if said:
            return cls(said, "document")
        known = min((one for one in files if one), default="")
        return cls(known, "file") if known else None

    def __str__(self) -> str:
        return f"{'as of' if self.by == 'document' else 'file of'} {self.day}"


def day(text: str, today: date | None = None) -> str:
    """A date, with or without a time after it, in ISO 8601 and as exactly as it is given; "" where it is none or not taken. No zone
    is reckoned with: it is the day where it was written."""
    bare = unicodedata.normalize("NFKC", text[:LONGEST]).strip()
    for form in () if bare in TEMPLATES else _FORMS:
        if found := form.fullmatch(bare):
            return _checked(found["y"], found["m"], found["d"], today or date.today())
    return ""


def day_of(seconds: float) -> str:
    """The day of a file's time stamp, where we are; "" for one that is none."""
    try:
        return day(datetime.fromtimestamp(seconds).date().isoformat())
    except (OverflowError, OSError, ValueError):
        return ""


def _checked(year: str, month: str | None, day_: str | None, today: date) -> str:
    number = _MONTHS.get((month or "1")[:3].lower()) or int(month or 1)
    try:
        whole = date(int(year), number, int(day_ or 1))
    except ValueError:
        return ""
    if whole.year < OLDEST or whole > today + timedelta(days=1) or whole.isoformat() in ZEROS:
        return ""
    return whole.isoformat()[: 10 if day_ else 7 if month else 4]
