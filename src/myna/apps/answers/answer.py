"""A question, answered out of an index: gate -> query -> search, once or in rounds -> passages -> sentences with citations -> what they
rest on."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from myna.apps.answers import citations, gate
from myna.apps.answers.citations import Sentence, Source
from myna.apps.answers.gate import Decision
from myna.apps.answers.newer import newer
from myna.apps.answers.passages import MOST as MOST_PASSAGES
from myna.apps.answers.passages import ROOM, Passage, form, prompt
from myna.apps.answers.queries import MOST, Turn, alone, ways
from myna.apps.answers.rounds import MOST as MOST_ROUNDS
from myna.apps.answers.rounds import Round, gather, step
from myna.apps.index.index import Index
from myna.apps.index.parsed import Parsed
from myna.provider import Provider, Scorer, powers
from myna.records import Conversation, Delta, RequestError, Sampling, fold
from myna.records.language import counted, is_chinese

CALLS = 3  # at most, and one a round: the follow-up on its own feet, other ways to ask, the answer
K = 5  # passages
LONGEST = 8_000  # characters of a question
MOST_ROOM = 1_000_000  # tokens
DRAW = Sampling(temperature=0.0, max_tokens=400)
TALK = "You are a friendly assistant that answers questions about the user's documents. Answer in one or two short sentences, in the user's language."
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """question    as it was searched for: a follow-up on its own feet
    text        with marks after each sentence: [1], and [—] for what nobody should rely on
    sources     what citations rest on, in the documents' own words
    passages    what the model was shown
    removed     marks that it made up
    rounds      that looked further, each with what it searched for
    calls       of the model
    """

    question: str
    decision: Decision
    text: str
    sentences: tuple[Sentence, ...] = ()
    sources: tuple[Source, ...] = ()
    passages: tuple[Passage, ...] = ()
    queries: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rounds: tuple[Round, ...] = ()
    calls: int = 0


async def answer(
    provider: Provider,
    index: Index,
    question: str,
    *,
    before: Sequence[Turn] = (),
    k: int = K,
    rewrites: int = 0,
    rounds: int = 0,
    enough: float | None = None,
    room: int = ROOM,
    rerank: Scorer | None = None,
    style: str = "",
    sampling: Sampling = Sampling(),
    tell: Tell | None = None,
) -> Answer:
    """At most CALLS + `rounds` calls of the model.

    before     the conversation so far
    k          passages, from 1 to 9; as many as have `room` tokens are shown
    rewrites   other ways to ask that are searched for, too, up to 4
    rounds     that look whether the passages are enough and search for what is missing, up to 4 (rounds.py)
    enough     of the question's words, the share that the passages must have, else it is not asked; gate.py's own if left out
    style      how to answer, in words of yours
    tell       gets the model's words as they come, before anything is looked at

    Raises RequestError where the question is empty or too long or a number is out of range, and what index and provider raise.
    """
    check(question, k, rewrites, room, enough, rounds)
    how = sampling.resolve(DRAW)
    if (decision := gate.before(question)).way == "none":
        return await _talked(provider, question, decision, how, tell)
    with step("rewrite", question):
        asked = await alone(provider, question, before)
        queries = await ways(provider, asked, rewrites)
    with step("search", asked):
        found = await index.search(queries, k, rerank=rerank)
        more = await gather(provider, index, asked, found.hits, rounds, asked=queries[1:], room=room, rerank=rerank)
    passages, calls = more.passages, bool(before) + bool(rewrites) + more.calls
    left = [f"{counted(more.left, 'passage')} did not fit into {room} tokens"] if more.left else []
    decision = gate.after(asked, [one.hit.text for one in passages], enough)
    made = Answer(
        asked, decision, unknown(question), passages=passages, queries=(*queries, *more.queries),
        notes=(*found.notes, *more.notes, *left), rounds=more.rounds, calls=calls,
    )  # fmt: skip
    if decision.way == "abstain":
        return made
    kept = form(passages) if "regex" in powers.of(provider).forms else None
    with step("answer", asked):
        said, cut = await _said(provider, prompt(asked, passages, style), replace(how, form=kept), tell)
    made = replace(made, text="", notes=(*made.notes, *cut), calls=calls + 1)
    return await _looked_at(made, said, question, index)


async def _talked(provider: Provider, question: str, decision: Decision, how: Sampling, tell: Tell | None) -> Answer:
    """Small talk: one call, nothing searched for, nothing to cite."""
    said, notes = await _said(provider, Conversation.of(("system", TALK), ("user", question)), how, tell)
    text, removed = citations.without_marks(said)
    return Answer(question, decision, text, removed=removed, notes=notes, calls=1)


async def _looked_at(made: Answer, said: str, question: str, index: Index) -> Answer:
    """What the model said, and what of it holds."""
    sentences, removed = citations.read(said, made.passages)
    if not sentences:
        decision = Decision("abstain", "the model found no answer in the passages")
        return replace(made, decision=decision, text=unknown(question), removed=removed)
    said_once = tuple({one.text: one for one in reversed(sentences)}.values())[::-1]
    again, sentences = len(sentences) - len(said_once), said_once
    found = {one.number: await _document(index, one) for one in made.passages}
    documents = {number: document for number, document in found.items() if document is not None}
    gone = {number for one in sentences for number in one.cited} - documents.keys()
    there = tuple(one for one in made.passages if one.number in documents)
    sentences = citations.weighed(sentences, there, made.question)
    moved = sum(one.moved for one in sentences)
    notes = [
        *made.notes,
        *([f"{counted(len(gone), 'cited passage is', 'cited passages are')} no longer in the index"] if gone else []),
        *([f"{counted(again, 'sentence was', 'sentences were')} said again and left out"] if again else []),
        *([f"{counted(moved, 'citation was', 'citations were')} moved to the passage that says it"] if moved else []),
    ]
    cited = citations.sources(sentences, there, documents)
    return replace(
        made, text=citations.marked(sentences), sentences=sentences, sources=cited, removed=removed,
        notes=(*notes, *newer(cited, there)),
    )  # fmt: skip


async def _document(index: Index, passage: Passage) -> Parsed | None:
    """The document as the index has it now, whose text is still what was shown."""
    document = await asyncio.to_thread(index.parsed, passage.hit.sha256)
    if document is None or document.visible(passage.hit.start, passage.hit.end).strip() != passage.hit.text.strip():
        return None
    return document


async def _said(
    provider: Provider, what: Conversation, how: Sampling, tell: Tell | None
) -> tuple[str, tuple[str, ...]]:
    """The model's words, and a note where they were cut."""
    deltas: list[Delta] = []
    async with aclosing(provider.stream(what, how)) as stream:
        async for delta in stream:
            deltas.append(delta)
            if tell and delta.text:
                tell(delta.text)
    reply = fold(deltas)
    if not reply.candidates:
        return "", ()
    cut = reply.candidates[0].finish_reason == "length"
    return reply.candidates[0].text, ("the answer was cut: it has as many tokens as it may have",) if cut else ()


def check(question: str, k: int, rewrites: int, room: int, enough: float | None, rounds: int = 0) -> None:
    """Raises RequestError where the question is empty or too long, or a number is out of range."""
    if not question.strip():
        raise RequestError("the question is empty.", param="question")
    if len(question) > LONGEST:
        raise RequestError(
            f"a question has from 1 to {LONGEST} characters; this one has {len(question)}.", param="question"
        )
    for name, value, least, most in (
        ("k", k, 1, MOST_PASSAGES), ("rewrites", rewrites, 0, MOST), ("rounds", rounds, 0, MOST_ROUNDS), ("room", room, 1, MOST_ROOM),
    ):  # fmt: skip
        if not least <= value <= most:
            raise RequestError(f"{name} is from {least} to {most:,}, not {value}.", param=name)
    if enough is not None and not 0 <= enough <= 1:
        raise RequestError(f"enough is a share, from 0 to 1, not {enough}.", param="enough")


def unknown(question: str) -> str:
    """That the documents do not say, in the question's language."""
    return "文档里没有答案。" if is_chinese(question) else "The documents do not say."
