"""Claims and their evidence: a text, sentence by sentence, each with the words that support it, or none.

rows = await table(provider, text, evidence)
rows[0].claim.text, rows[0].label ("supported", "contradicted", "none"), rows[0].quote
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from myna.apps.hallucination import bounded
from myna.apps.hallucination.quotes import DRAW, EVIDENCE, NONE, grammar, read
from myna.checks.same import numbers
from myna.checks.sentences import sentences
from myna.checks.verbatim import Quote, locate
from myna.provider import Provider, powers
from myna.records import Conversation, RequestError, Sampling
from myna.records.fence import RULE, fenced

MOST = 30  # claims of one text
Label = Literal["supported", "contradicted", "none"]
ANSWER = '"Answer: " ("supported" | "contradicted" | "none")'


@dataclass(frozen=True, slots=True)
class Claim:
    """`text` stands in the whole from `start` to `end`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One claim. `quote` are the words of the evidence that come closest to it, exactly; None where none were given or what was given is
    not there.

    label   supported: the quote states it; contradicted: the quote says otherwise; none: no evidence, the quote says nothing about it
    why     what we found against the model's own label, if anything
    """

    claim: Claim
    label: Label
    quote: Quote | None = None
    why: str = ""


def split(text: str) -> tuple[Claim, ...]:
    """One claim a sentence; a line of dashes says nothing that could be supported."""
    return tuple(Claim(a, b, text[a:b]) for a, b in sentences(text) if any(map(str.isalnum, text[a:b])))


def calls_at_most(text: str) -> int:
    """How many model calls `table` makes of this text: one for each claim."""
    return len(split(text))


async def table(
    provider: Provider, text: str, evidence: Sequence[str], *, sampling: Sampling = Sampling()
) -> tuple[Row, ...]:
    """Each claim with its evidence, in order; one call each.

    "supported" is the model's word, and three things that we look at: the quote is in the evidence exactly; it is no empty phrase; and
    a number of the claim is a number of the quote. Raises RequestError where there are more than MOST claims or too much evidence, and
    what the provider raises.
    """
    claims = split(text)
    if len(claims) > MOST:
        raise RequestError(f"the text has {len(claims)} claims; at most {MOST} are looked at at once.", param="text")
    rows = []
    for claim in claims:
        with bounded.step("claim", claim.text[:80]):
            rows.append(await _row(provider, claim, evidence, sampling.resolve(DRAW)))
    return tuple(rows)


def prompt(claim: str, evidence: Sequence[str]) -> Conversation:
    """What the model is asked of one claim. Raises RequestError where there is too much evidence."""
    if (size := sum(map(len, evidence))) > EVIDENCE:
        raise RequestError(f"the evidence has {size} characters; at most {EVIDENCE} are read.", param="evidence")
    system = (
        f"You check a claim against evidence. {RULE} First copy, exactly, the words of the evidence that come closest to the claim, in one "
        "line that begins with 'Quote: '. Then write one line: 'Answer: supported' if the quote says what the claim says, 'Answer: "
        "contradicted' if it says otherwise, or 'Answer: none' if it says nothing about it."
    )
    shown = "\n\n".join(fenced(text, f"evidence {i + 1}") for i, text in enumerate(evidence))
    return Conversation.of(("system", system), ("user", f"{shown}\n\n{fenced(claim, 'claim')}"))


async def _row(provider: Provider, claim: Claim, evidence: Sequence[str], how: Sampling) -> Row:
    asked = prompt(claim.text, evidence)
    if "grammar" in powers.of(provider).forms and (form := grammar(evidence, ANSWER, quotes=1, none=False)):
        how = Sampling(form=form).resolve(how)
    said, quoted = read(await bounded.say(provider, asked, how))
    if not quoted or quoted[0] == NONE:
        return Row(claim, "none", why="" if quoted else "the model gave no quote")
    if (quote := locate(quoted[0], evidence)) is None:
        return Row(claim, "none", why="the quote is not in the evidence")
    label = said.strip(".* ").lower()
    if label != "supported":
        known = label in ("contradicted", "none")
        why = "" if known else "the model did not say whether the quote supports it"
        return Row(claim, "contradicted" if label == "contradicted" else "none", quote, why)
    if missing := numbers(claim.text) - numbers(quote.text):
        return Row(claim, "none", quote, f"the quote does not have {', '.join(sorted(missing)[:5])}")
    return Row(claim, "supported", quote)
