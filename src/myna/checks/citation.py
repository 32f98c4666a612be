"""Citations: [3] in an answer names a source that was given, and what it puts in quotes stands there."""

import re

from myna.checks.check import Check, Span, Verdict
from myna.checks.evidence import sources_of
from myna.checks.folded import fold, plain
from myna.checks.sentences import sentences
from myna.records import Candidate, Conversation, DataError

CITED = re.compile(
    r"[\[【]\s{0,4}([^\[\]【】\s,，、]{1,40}(?:\s{0,4}[,，、]\s{0,4}[^\[\]【】\s,，、]{1,40}){0,30})\s{0,4}[\]】]"
)
QUOTED = re.compile(r"“([^“”]{4,2000})”|「([^「」]{4,2000})」|\"([^\"\n]{4,2000})\"")
BETWEEN = re.compile(r"[,，、]")


def citation(*, every: bool = False, quotes: bool = False) -> Check:
    """Every citation, [2] or [2, 5] or 【2】, is of a source in meta.sources, and there is one at all.

    every    each sentence has one
    quotes   what stands in quotes in a sentence that cites is in one of the sources cited there, word for word

    The score is the share of citations, sentences and quotes that are as they should be.
    """

    def check(conversation: Conversation, candidate: Candidate) -> Verdict:
        sources = sources_of(conversation)
        if not sources:
            raise DataError(f"{conversation.id or 'a conversation'} has no meta.sources that an answer could cite")
        text, wrong, looked = candidate.text, list[Span](), 0
        for start, end in sentences(text):
            cited: list[str] = []
            for mark in CITED.finditer(text, start, end):
                names = BETWEEN.split(re.sub(r"\s", "", mark[1]))
                cited += [name for name in names if name in sources]
                looked += 1
                if unknown := [name for name in names if name not in sources]:
                    wrong.append(Span(*mark.span(), f"no source {unknown[0]}"))
            if every:
                looked += 1
                if not cited:
                    wrong.append(Span(start, end, "no citation"))
            if quotes and cited:
                said = [_flat(sources[name]) for name in cited]
                for quote in QUOTED.finditer(text, start, end):
                    looked += 1
                    words = quote[1] or quote[2] or quote[3]
                    if not any(_flat(words) in one for one in said):
                        wrong.append(Span(*quote.span(), "not in the source"))
        if not looked:
            return Verdict.of(False, "it cites nothing")
        reason = "; ".join(dict.fromkeys(f"{span.label}: {text[span.start : span.end][:60]}" for span in wrong))
        return Verdict(not wrong, 1 - len(wrong) / looked, reason[:500], tuple(wrong))

    return check


def _flat(text: str) -> str:
    return " ".join(fold(text, plain).text.split())
