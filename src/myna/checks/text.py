"""What an answer's text must be: so long, with these words and without those, like this expression."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jsonschema_rs

from myna.checks.check import Check, Span, Verdict
from myna.checks.folded import CJK, find, fold, plain
from myna.checks.sentences import sentences
from myna.records import Candidate, Conversation, DataError

Unit = Literal["characters", "words", "sentences"]
LARGEST = 1 << 20  # bytes of a compiled expression
CUT = "…"
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+(?:['’][^\W{CJK}]+)*")


@dataclass(frozen=True, slots=True)
class Length:
    """See `length`."""

    least: int
    most: int | None
    unit: Unit

    def __call__(self, conversation: Conversation, candidate: Candidate) -> Verdict:
        text, parts = candidate.text, self._parts(candidate.text)
        count = len(parts)
        if self.most is not None and count > self.most:
            start = parts[self.most][0]
            score = self.most / count
            return Verdict(False, score, f"{count} {self.unit}, at most {self.most}", (Span(start, len(text), "over"),))
        if count < self.least:
            return Verdict(False, count / self.least, f"{count} {self.unit}, at least {self.least}")
        return Verdict.of(True, f"{count} {self.unit}")

    def mend(self, text: str) -> str:
        """Its beginning, as much as there may be, with a mark where it was cut."""
        parts = self._parts(text)
        if self.most is None or len(parts) <= self.most:
            return text
        if self.unit == "characters":
            return text[: max(self.most - len(CUT), 0)] + CUT[: self.most]
        return text[: parts[self.most - 1][1]] + CUT if self.most else ""

    def _parts(self, text: str) -> Sequence[tuple[int, int]]:
        if self.unit == "characters":
            return [(n, n + 1) for n in range(len(text))]
        return [*sentences(text)] if self.unit == "sentences" else [found.span() for found in WORD.finditer(text)]


def length(*, least: int = 0, most: int | None = None, unit: Unit = "characters") -> Check:
    """From `least` to `most` units. A Chinese character is a word, as word processors count. The score says how far off it is."""
    if least < 0 or (most is not None and most < least) or (not least and most is None):
        raise DataError(f"length: from {least} to {most}: give least, most or both, and most not below least")
    return Length(least, most, unit)


def includes(*, texts: Sequence[str], least: int | None = None) -> Check:
    """At least so many of the texts are in the answer, all of them if nothing is said; in any case and width. Latin words as whole
    words. The score is the share of those that are needed."""
    wanted = _folded("includes", texts)
    needed = len(wanted) if least is None else least
    if not 1 <= needed <= len(wanted):
        raise DataError(f"includes.least: {least}; there are {len(wanted)} texts")

    def check(conversation: Conversation, candidate: Candidate) -> Verdict:
        text = fold(candidate.text, plain)
        missing = [said for said, one in wanted.items() if next(find(text, one), None) is None]
        found = len(wanted) - len(missing)
        said = f"missing: {', '.join(missing)}"[:500] if missing else ""
        return Verdict(found >= needed, min(found / needed, 1.0), said)

    return check


def excludes(*, texts: Sequence[str]) -> Check:
    """None of the texts is in the answer, in any case or width; Latin words as whole words."""
    banned = _folded("excludes", texts)

    def check(conversation: Conversation, candidate: Candidate) -> Verdict:
        text = fold(candidate.text, plain)
        found = sorted((*place, said) for said, one in banned.items() for place in find(text, one))
        said = f"found: {', '.join(dict.fromkeys(said for _, _, said in found))}"[:500] if found else ""
        return Verdict.of(not found, said, tuple(Span(*one) for one in found))

    return check


def regex(*, pattern: str, forbid: bool = False) -> Check:
    """The expression is found in the answer, or with `forbid` is not; `^` and `$` hold it to the whole. In time that grows with the
    text alone, so without lookaround and backreferences (Rust's regex crate)."""
    try:
        options = jsonschema_rs.RegexOptions(size_limit=LARGEST)
        search = jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=options, offline=True)
    except (jsonschema_rs.ValidationError, ValueError):
        raise DataError(
            f"regex.pattern: {pattern[:80]!r} is no expression that is searched in linear time (no lookaround, no backreference)"
        ) from None

    def check(conversation: Conversation, candidate: Candidate) -> Verdict:
        found = search.is_valid(candidate.text)
        return Verdict.of(found is not forbid, f"{pattern[:200]} is {'' if found else 'not '}in it")

    return check


def language(*, code: Literal["en", "zh"], least: float = 0.5) -> Check:
    """At least this share of the letters are of the language's script: Latin for en, Chinese characters for zh."""

    def check(conversation: Conversation, candidate: Candidate) -> Verdict:
        letters = [c for c in candidate.text if c.isalpha()]
        own = sum(("\u4e00" <= c <= "\u9fff") if code == "zh" else c.isascii() for c in letters)
        share = own / len(letters) if letters else 0.0
        return Verdict(
            share >= least, min(share / least, 1.0) if least else 1.0, f"{share:.0%} of the letters are {code}"
        )

    return check


def _folded(check: str, texts: Sequence[str]) -> dict[str, str]:
    if isinstance(texts, str) or not texts or not all(text.strip() for text in texts):
        raise DataError(f"{check}.texts: a list of texts, none of them empty")
    return {text: fold(text.strip(), plain).text for text in texts}
