"""Does an answer say only what the evidence says? Numbers, names and words first, which no model has to be asked for; then, if it is
wanted, a model that says of each sentence whether the evidence supports it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from myna.checks.check import AsyncCheck, Check, Span, Verdict
from myna.checks.evidence import evidence_of
from myna.checks.folded import CJK, fold, plain
from myna.checks.sentences import sentences
from myna.provider import Provider
from myna.records import Candidate, Conversation, Unjudged

# 1,234.5 and 12%; bounded, so that no text makes it slow. Digits inside of a word (GPT-4, Q3) are part of a name.
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,40})(?:\.\d{1,40})?(?![A-Za-z0-9_])")
NAME = re.compile(r"(?:[A-Z][\w&’'-]{0,40})(?:\s(?:of|the|de|van|von|&)\s[A-Z][\w’'-]{0,40}|\s[A-Z][\w’'-]{0,40}){0,6}")
TITLE = re.compile(r"《([^《》]{1,80})》")
LATIN = re.compile(rf"[^\W\d_{CJK}]{{2,}}")
HAN = re.compile(rf"[{CJK}]+")
CITED = re.compile(r"[\[【][^\[\]【】]{1,80}[\]】]")
COMMON = frozenset(
    """a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it its may might more most
    no not of on or our over said says she should so some such than that the their them then there these they this those to too under up
    was we were what when where which while who why will with would you your about after all also any because before being between both
    during each few further here itself just only other out own same through until very according answer based document evidence given
    passage passages provided source sources stated text
    yes okay sure course thanks""".split()
)
COMMON_HAN = frozenset(
    "的了是在和与及或也都就而且但于之其这那此该为被把将从到对有没不我你他她它们们个等中上下根据文中所述"
)
MOST_SENTENCES = 40  # that a model is asked about


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to rest on, made ready once."""

    text: str
    numbers: frozenset[Decimal]
    words: frozenset[str]

    @classmethod
    def of(cls, text: str) -> "Evidence":
        folded = fold(text, plain).text
        return cls(folded, frozenset(value for value, _ in numbers(text)), frozenset(words(folded)))


def grounding(*, inputs: Sequence[str] = (), least: float = 0.6) -> Check:
    """Every sentence of the answer rests on the evidence: all its numbers and names are there, and `least` of its words.

    inputs   which inputs of the prompt are the evidence; else meta.sources, else what the user and the tools said

    The score is the share of sentences that do. It knows no meaning: a sentence that turns the evidence's own words round passes.
    """

    def check(conversation: Conversation, candidate: Candidate) -> Verdict:
        evidence, text = Evidence.of(evidence_of(conversation, inputs)), candidate.text
        looked = [(start, end, unsupported(text[start:end], evidence, least)) for start, end in sentences(text)]
        claims = [one for one in looked if one[2] is not None]
        wrong = tuple(Span(start, end, why) for start, end, why in claims if why)
        reason = "; ".join(f"{span.label}: {text[span.start : span.end][:60]}" for span in wrong)
        return Verdict(not wrong, 1 - len(wrong) / len(claims) if claims else 1.0, reason[:500], wrong)

    return check


def unsupported(sentence: str, evidence: Evidence, least: float) -> str | None:
    """What of a sentence is not in the evidence, "" where all is; None where it claims nothing."""
    uncited = CITED.sub(lambda found: " " * len(found.group()), sentence)  # as long, so that a place is the same place
    for value, said in numbers(uncited):
        if value not in evidence.numbers:
            return f"number {said}"
    for start, end in names(uncited):
        if not any(fold(one[start:end], plain).text in evidence.text for one in (uncited, sentence)):
            return f"name {uncited[start:end]}"
    own = words(fold(uncited, plain).text)
    if not own:
        return None
    share = sum(word in evidence.words for word in own) / len(own)
    return "" if share >= least else f"{share:.0%} of its words"


def numbers(text: str) -> list[tuple[Decimal, str]]:
    """Each with how it is written. 0.50 is .5, and 12% is 12."""
    found = (one.group() for one in NUMBER.finditer(fold(text, plain).text))
    return [(Decimal(one.replace(",", "")).normalize(), one) for one in found]


def names(sentence: str) -> list[tuple[int, int]]:
    """Where capitalised words stand that do not open the sentence, and titles in 《》."""
    found = [match for match in NAME.finditer(sentence) if match.start() > _opening(sentence)]
    capitals = [match.span() for match in found if match.group().casefold() not in COMMON and len(match.group()) > 1]
    return capitals + [match.span(1) for match in TITLE.finditer(sentence) if match.group(1).strip()]


def words(folded: str) -> list[str]:
    """Latin words without their endings, and every two neighbouring Chinese characters."""
    latin = [_stem(word) for word in LATIN.findall(folded) if word not in COMMON]
    runs = ("".join(c if c not in COMMON_HAN else " " for c in run).split() for run in HAN.findall(folded))
    han = [pair for run in runs for one in run for pair in ([one[i : i + 2] for i in range(len(one) - 1)] or [one])]
    return latin + han


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _opening(sentence: str) -> int:
    """Where the first word begins: its capital says nothing."""
    found = re.search(r"\w", sentence)
    return found.start() if found else 0


RUBRIC = "Does the evidence say what the statement says? A statement that adds, changes or guesses anything is not supported."


def entailment(provider: Provider, /, *, inputs: Sequence[str] = (), least: float = 0.6) -> AsyncCheck:
    """As `grounding`; and of each sentence that passes there, the model is asked whether the evidence supports it. At most
    MOST_SENTENCES calls; an answer with more sentences is Unjudged."""
    return Entailment(provider, tuple(inputs), least)


@dataclass(frozen=True, slots=True)
class Entailment:
    """See `entailment`."""

    provider: Provider
    inputs: tuple[str, ...]
    least: float
    calls: int = MOST_SENTENCES

    async def __call__(self, conversation: Conversation, candidate: Candidate) -> Verdict:
        from myna.checks.judge import labelled  # asks a model, which words and numbers need not

        first = grounding(inputs=self.inputs, least=self.least)(conversation, candidate)
        evidence, text = evidence_of(conversation, self.inputs), candidate.text
        wrong = {(span.start, span.end): span for span in first.spans}
        known = Evidence.of(evidence)
        claims = [place for place in sentences(text) if unsupported(text[slice(*place)], known, 0) is not None]
        asked = [place for place in claims if place not in wrong]
        if len(asked) > MOST_SENTENCES:
            raise Unjudged(f"{len(asked)} sentences; a model is asked about {MOST_SENTENCES} at most")
        for start, end in asked:
            shown = {"evidence": evidence, "statement": text[start:end]}
            label = await labelled(self.provider, RUBRIC, shown, ("not supported", "supported"))
            if label.index == 0:
                wrong[start, end] = Span(start, end, "the model finds no support")
        spans = tuple(sorted(wrong.values(), key=lambda span: span.start))
        reason = "; ".join(f"{span.label}: {text[span.start : span.end][:60]}" for span in spans)
        return Verdict(not spans, 1 - len(spans) / len(claims) if claims else 1.0, reason[:500], spans)
