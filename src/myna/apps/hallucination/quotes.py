"""Evidence first: an answer is given only after the words it rests on, and those stand in the evidence exactly.

    found = await answer(provider, "How many points did they give up?", ["The Panthers gave up 308 points ...", ...])
    found.answer                   None where the evidence does not say
    found.quotes[0]                Quote(source=0, start=12, end=35, text=...): evidence[0][12:35] == text

Where grammars are enforced (our engine), a quote that is not in the evidence cannot be written at all: the grammar is the evidence's own
substrings. Elsewhere a quote that is not found is refused, and asked for once more. What a quote proves is another matter: that an answer
follows from it is `claims.table`'s question, and a person's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from myna.apps.hallucination import bounded
from myna.checks.verbatim import CHUNK, MARKS, Quote, locate
from myna.provider import Provider, powers
from myna.records import Conversation, Form, Message, RequestError, Sampling
from myna.records.fence import RULE, fenced

CALLS = 2  # the first, and one more where a quote is not in the evidence
QUOTES = 3  # of one answer
EVIDENCE = 60_000  # characters of all evidence
IN_GRAMMAR = 12_000  # characters that a grammar is made of; more takes an engine too long (docs/log.md)
CLAMP = 500  # characters of a refused quote that go back to the model
NONE = "NONE"
DRAW = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=400)
_LINE = re.compile(r"(?im)^[ \t>*-]*(quote|answer|引文|引用|回答|答案)\**[ \t]*[:：][ \t]*")


@dataclass(frozen=True, slots=True)
class Quoted:
    """outcome   answered; none: the evidence does not say; unquoted: no quote of the last answer is in the evidence, or it is no answer
    refused   what was given as a quote and is in no evidence, of all calls"""

    answer: str | None
    quotes: tuple[Quote, ...]
    outcome: Literal["answered", "none", "unquoted"]
    refused: tuple[str, ...] = ()
    calls: int = 1


async def answer(
    provider: Provider, question: str, evidence: Sequence[str], *, sampling: Sampling = Sampling(), calls: int = CALLS
) -> Quoted:
    """Quotes, then the answer; at most `calls` calls. An answer is kept if at least one quote is in the evidence; the others are refused
    by name. Raises RequestError where there is too much evidence, and what the provider raises."""
    asked, how = prompt(question, evidence), sampling.resolve(DRAW)
    if "grammar" in powers.of(provider).forms and (form := grammar(evidence)):
        how = Sampling(form=form).resolve(how)
    refused: list[str] = []
    with bounded.step("quotes", question[:80], evidence=len(evidence)):
        for call in range(1, calls + 1):
            said = await bounded.say(provider, asked, how)
            text, quoted = read(said)
            found = [one for one in (locate(quote, evidence) for quote in quoted[:QUOTES]) if one]
            wrong = [quote for quote in quoted if quote != NONE and not locate(quote, evidence)]
            refused += wrong
            if quoted == [NONE] or (text == NONE and not quoted):
                return Quoted(None, (), "none", tuple(refused), call)
            if found and text and text != NONE:
                return Quoted(text, tuple(dict.fromkeys(found)), "answered", tuple(refused), call)
            asked = asked + Message("assistant", said or "...") + Message("user", _again(wrong))
    return Quoted(None, (), "unquoted", tuple(refused), calls)


def prompt(question: str, evidence: Sequence[str]) -> Conversation:
    """What the model is asked. Raises RequestError where there is no evidence or too much."""
    size = sum(map(len, evidence))
    if not size or size > EVIDENCE:
        raise RequestError(
            f"the evidence has {size} characters; it must have from 1 to {EVIDENCE}. Search for passages first (myna search).",
            param="evidence",
        )
    system = (
        f"You answer from evidence, and quote first. {RULE} Copy the words of the evidence that answer the question, exactly as they "
        f"stand there, in at most {QUOTES} lines that begin with 'Quote: '. Then write one line that begins with 'Answer: ', short, in the "
        f"language of the question. If the evidence does not answer the question, write 'Quote: {NONE}' and nothing else."
    )
    shown = "\n\n".join(fenced(text, f"evidence {i + 1}") for i, text in enumerate(evidence))
    return Conversation.of(("system", system), ("user", f"{shown}\n\nQuestion: {question}"))


def read(said: str) -> tuple[str, list[str]]:
    """(answer, quotes) of a reply, as it stands: nothing in it is believed yet."""
    parts = _LINE.split(said)
    answer, quotes = "", []
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        text = text.strip().strip("*").strip()
        if name.lower() in ("quote", "引文", "引用"):
            quotes.append(NONE if text.strip(MARKS + ".").upper() == NONE else text)
        else:
            answer = answer or (NONE if text.strip(MARKS + ".").upper() == NONE else text)
    return answer, quotes


def grammar(
    evidence: Sequence[str], end: str = r'"Answer: " /[^\n]+/', *, quotes: int = QUOTES, none: bool = True
) -> Form | None:
    """What a reply may be where the endpoint enforces it: at most so many quotes out of the evidence's lines, whole words of them, then
    `end`; or NONE, where that is allowed. None where the evidence is too long for it."""
    lines = list(dict.fromkeys(line.strip() for text in evidence for line in text.splitlines() if line.strip()))
    if not lines or sum(map(len, lines)) > IN_GRAMMAR:
        return None
    nothing = f'"Quote: {NONE}" | ' if none else ""
    rules = [f'start: {nothing}("Quote: " quote "\\n"){{1,{quotes}}} {end}']
    rules.append("quote: " + " | ".join(f"Q{i}" for i in range(len(lines))))
    for i, line in enumerate(lines):
        chunks = orjson.dumps({"substring_chunks": CHUNK.findall(line)}).decode()
        rules.append(f"Q{i}: %regex {chunks}")
    return Form("grammar", "\n".join(rules), param="evidence")


def _again(wrong: Sequence[str]) -> str:
    shown = fenced("\n".join(quote[:CLAMP] for quote in wrong[:QUOTES])) if wrong else ""
    reason = (
        f"These words are not in the evidence:\n{shown}\n" if wrong else "That is not in the form that was asked for.\n"
    )
    return f"{reason}Copy exact words of the evidence in lines that begin with 'Quote: ', then one line 'Answer: ', or write 'Quote: {NONE}'."
