"""Looking again: a model says whether the passages are enough, and if not, what to search for next. Bounded; a round that brings nothing new
is the last.

What a question only describes ("the company that NTL became") is a name in some passage, and that name, beside the question's own words, finds
the next one; small models write the name alone, which finds half as much (docs/log.md). The query is made of what strangers wrote: it goes
into the index's search and nowhere else, and into later prompts inside a fence.
"""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from myna.apps.answers.passages import Passage, chosen, shown
from myna.apps.index.index import Hit, Index
from myna.provider import Provider, Scorer, complete, powers
from myna.records import Conversation, Form, Sampling
from myna.records.fence import RULE, fenced
from myna.trace import here

MOST = 4
BROUGHT = 2  # passages that a round may add: what was asked for is one thing
LONGEST = 120  # characters of a query
NAMED = 80  # of a question that name a span
ENOUGH, SEARCH = "ENOUGH", "SEARCH:"
FORM = Form("regex", rf"{ENOUGH}|{SEARCH} [^\n\[\]<>]{{3,{LONGEST}}}", param="rounds")
DRAW = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=60)


@dataclass(frozen=True, slots=True)
class Round:
    """query   what was searched for beside the question, "" where nothing was
    fresh   passages that it brought
    ended   why there is no further round, "" where there may be one"""

    query: str
    fresh: int
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Passages of all rounds, those of the question first, and how many did not fit."""

    passages: tuple[Passage, ...]
    left: int
    rounds: tuple[Round, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def queries(self) -> tuple[str, ...]:
        return tuple(one.query for one in self.rounds if one.query)

    @property
    def calls(self) -> int:
        return len(self.rounds)


async def gather(
    provider: Provider,
    index: Index,
    question: str,
    hits: Sequence[Hit],
    most: int,
    *,
    asked: Sequence[str] = (),
    room: int,
    rerank: Scorer | None = None,
) -> Gathered:
    """The question's own hits, and what at most `most` rounds add to them: one call and one search each. `asked` was searched for already.

    Raises what provider and index raise.
    """
    passages, left = chosen(hits, room)
    found = Gathered(passages, left)
    kept, done = list(hits), [question, *asked]
    for number in range(1, most + 1):
        with step("round", str(number)) as span:
            query = await wanted(provider, question, found.passages, done[1:])
            made, more = await _searched(index, query, done, kept, found, room, rerank)
            if span:
                span.note(query=made.query, fresh=made.fresh, ended=made.ended)
        found = replace(more, rounds=(*found.rounds, made))
        if made.ended:
            return found
        done.append(made.query)
    return found


async def wanted(provider: Provider, question: str, passages: Sequence[Passage], done: Sequence[str]) -> str | None:
    """What to search for next: "" where the passages are enough, None where the model said neither. One call; where forms are kept it can
    say nothing else. Raises what the provider raises."""
    form = FORM if FORM.kind in powers.of(provider).forms else None
    reply = await complete(provider, prompt(question, passages, done), replace(DRAW, form=form))
    said = reply.text.strip()
    if re.match(rf"{ENOUGH}\b", said, re.IGNORECASE):
        return ""
    query = re.match(rf"{SEARCH}[ \t]*([^\n]{{1,{LONGEST}}})", said, re.IGNORECASE)
    return (query[1].strip(" \t\"'“”") or None) if query else None


def prompt(question: str, passages: Sequence[Passage], done: Sequence[str] = ()) -> Conversation:
    """What the model is asked in a round: exactly this."""
    system = (
        f"You look whether passages are enough to answer a question. {RULE} If they say everything that the question asks for, write {ENOUGH}. "
        f"If something is missing, write {SEARCH} and a question for just what is missing: put in the names that the passages give for what the "
        "question only describes. Use the language of the question. Write nothing else."
    )
    before = f"\n\n{fenced([*done], 'searched for already')}" if done else ""
    texts = "\n\n".join(shown(one) for one in passages) or "There are no passages yet."
    return Conversation.of(("system", system), ("user", f"{texts}{before}\n\nQuestion: {question}"))


async def _searched(
    index: Index,
    query: str | None,
    done: Sequence[str],
    kept: list[Hit],
    found: Gathered,
    room: int,
    rerank: Scorer | None,
) -> tuple[Round, Gathered]:
    """The round, and what there is after it. Adds what is new to `kept`."""
    if query is None:
        return Round("", 0, "the model did not say what is missing"), found
    if not query:
        return Round("", 0, "the passages are enough"), found
    if query.casefold() in {one.casefold() for one in done}:
        return Round(query, 0, "that was searched for already"), found
    there = {(one.sha256, one.start, one.end) for one in kept}
    new = await index.search(f"{done[0]} {query}", len(kept) + BROUGHT, rerank=rerank)
    fresh = [one for one in new.hits if (one.sha256, one.start, one.end) not in there][:BROUGHT]
    kept += fresh
    passages, left = chosen(kept, room)
    brought = len(passages) - len(found.passages)
    ended = "" if brought else "nothing new was found" if left == found.left else "there is no room for more"
    return Round(query, brought, ended), replace(found, passages=passages, left=left, notes=(*found.notes, *new.notes))


def step(kind: str, name: str) -> Any:
    """A span of that kind for the time of the block, where a trace is open; None elsewhere."""
    above = here()
    return above.trace.span(kind, name[:NAMED]) if above else nullcontext()
