"""Who reads an answer should know when something newer says otherwise: passages that were found, were not cited, and are from later."""

from collections.abc import Iterator, Sequence

from myna.apps.answers.citations import Source
from myna.apps.answers.gate import coverage
from myna.apps.answers.passages import Passage
from myna.apps.index.dates import Dated
from myna.checks.sentences import sentences

ALIKE = (
    0.5  # of the cited sentence's own words, that the newer one must have to be about the same; all of them: it agrees
)
SHOWN = 200  # characters of what it says


def newer(cited: Sequence[Source], passages: Sequence[Passage]) -> tuple[str, ...]:
    """A line for each cited sentence that a later document says otherwise, as far as words tell."""
    numbers = {one.number for one in cited}
    others = [one for one in passages if one.number not in numbers]
    return tuple(dict.fromkeys(line for source in cited for other in others for line in _against(source, other)))


def _against(source: Source, other: Passage) -> Iterator[str]:
    if not _later(other.hit.dated, source.dated):
        return
    said = (" ".join(other.hit.text[a:b].split()) for a, b in sentences(other.hit.text))
    share, text = max(((coverage(source.text, [one]), one) for one in said), default=(0.0, ""))
    if ALIKE <= share < 1:
        yield f"newer than [{source.number}]: {other.place}: {text[:SHOWN]}"


def _later(one: Dated | None, other: Dated | None) -> bool:
    """For certain: a day of a year is not later than that year."""
    return one is not None and other is not None and one.day > other.day and not one.day.startswith(other.day)
