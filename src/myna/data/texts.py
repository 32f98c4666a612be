"""Whole texts become examples: each with its label, or a query and what it should find.

A text is framed as the model's tokenizer frames one ([CLS] ... [SEP]); a conversation of several turns goes through the chat
template. Nothing is cut unless `Fit.overlong` says so, and then it is counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from myna.chat import Chat, Passages
from myna.data.examples import Cuts, Fit
from myna.data.formats import Record
from myna.data.sources import OnBad, Place, Sourced, stop
from myna.data.tokens import Example, Tokenized
from myna.records import ChatError, Conversation, DataError, Document, RequestError

LABEL, NUMBER = "label", "text"  # facts: which label, and which of all different texts


@dataclass(frozen=True, slots=True)
class Reader:
    """Texts into token ids of at most `fit.context`, with what the tokenizer puts around them."""

    chat: Chat
    passages: Passages
    fit: Fit

    def text(self, text: str, cuts: Cuts) -> list[int] | None:
        """None if it is left out. Raises DataError, ChatError."""
        ids = self.passages.tokenizer.encode(text)
        room = self.fit.context - self.passages.overhead()
        over = len(ids) - room
        if over > 0 and self.fit.overlong in ("error", "split"):
            raise DataError(
                f"{len(ids)} tokens, and the context has room for {room}. Shorten the text, raise the context, or say what "
                f"is to be done: --data.overlong drop or truncate"
            )
        if over > 0:
            cuts.dropped += self.fit.overlong == "drop"
            cuts.truncated += self.fit.overlong == "truncate"
            cuts.lost_tokens += len(ids) if self.fit.overlong == "drop" else over
        if over > 0 and self.fit.overlong == "drop":
            return None
        framed = self.passages.one(ids[:room]).ids
        if not framed:
            raise DataError("there is no text")
        return [*framed]

    def record(self, record: Record, cuts: Cuts) -> list[int] | None:
        """A text, the one message of a conversation, or all of several."""
        if isinstance(record, Document):
            return self.text(record.text, cuts)
        if len(record.messages) == 1:
            return self.text(record.messages[0].text, cuts)
        whole = replace(record, candidates=())
        sequence = whole_text(self.chat.render(whole, open_turn=False).ids)
        kept = self.fit((sequence,), cuts)
        return kept[0][0].ids.tolist() if kept else None


def whole_text(ids: Sequence[int], **facts: float) -> Tokenized:
    """A text that is read, not predicted: all of it counts."""
    return Tokenized(np.array(ids, np.int32), np.ones(len(ids), np.float32), facts=facts)


def labels_of(records: Iterable[Sourced[Record]], bad: OnBad = stop) -> list[str]:
    """The labels there are, in order: numbers by size, words by letter. Raises DataError if there are fewer than two."""
    found = {label for place, record in records if (label := _label(place, record, bad)) is not None}
    if len(found) < 2:
        raise DataError(f"data.train: {'one label' if found else 'no label'} in all rows; classes are two or more")
    return sorted(found, key=int) if all(label.isdecimal() for label in found) else sorted(found)


def of_labelled(
    records: Iterable[Sourced[Record]], labels: Sequence[str], reader: Reader, cuts: Cuts, bad: OnBad = stop
) -> Iterator[Sourced[Example]]:
    """Texts, each with the number of its label among the facts."""
    for place, record in records:
        label = _label(place, record, bad)
        if label is None:
            continue
        try:
            if label not in labels:
                raise DataError(
                    f"target: {label!r} is no label of the training rows; these are {', '.join(labels)[:200]}"
                )
            ids = reader.record(record, cuts)
        except (DataError, ChatError, RequestError) as e:
            bad(place, DataError(f"{place}: {e}"))
            continue
        if ids is not None:
            yield Sourced(place, (whole_text(ids, **{LABEL: labels.index(label)}),))


def of_matched(
    records: Iterable[Sourced[Conversation]], prefixes: tuple[str, str], reader: Reader, cuts: Cuts, bad: OnBad = stop
) -> Iterator[Sourced[Example]]:
    """(query, what it should find, what it should not...). The query is the one message; of its candidates the best is to be
    found. Without candidates there are two messages, and the answer is to be found. `prefixes` stand before queries and
    before what is found. Equal texts have the same NUMBER, so that none counts as a wrong answer where it is the right one.
    """
    numbers: dict[tuple[int, ...], int] = {}
    for place, conversation in records:
        try:
            texts = _matched(conversation)
            ids = [reader.text(prefixes[n > 0] + text, cuts) for n, text in enumerate(texts)]
            if (size := sum(map(len, filter(None, ids)))) > reader.fit.context:
                raise DataError(
                    f"the query and its texts have {size} tokens, and a row has room for {reader.fit.context}: raise data.context"
                )
        except (DataError, ChatError) as e:
            bad(place, DataError(f"{place}: {e}"))
            continue
        kept = [one for one in ids if one is not None]
        if len(kept) == len(ids):
            known = (numbers.setdefault(tuple(one), len(numbers)) for one in kept)
            sides = (min(n, 2) for n in range(len(kept)))
            facts = ({NUMBER: number, "side": side} for number, side in zip(known, sides, strict=True))
            yield Sourced(place, tuple(whole_text(one, **of) for one, of in zip(kept, facts, strict=True)))


def _matched(conversation: Conversation) -> list[str]:
    """Raises DataError."""
    messages, candidates = conversation.messages, conversation.candidates
    if not candidates and len(messages) == 2:
        return [message.text for message in messages]
    if len(messages) != 1 or not candidates:
        raise DataError(
            "messages: a query is one message, and what it should find its best candidate or the answer to it"
        )
    if any(candidate.score is None for candidate in candidates):
        raise DataError("candidates: one has no score; the best is to be found")
    ranked = sorted(candidates, key=lambda candidate: -(candidate.score or 0.0))
    if len(ranked) > 1 and ranked[0].score == ranked[1].score:
        raise DataError("candidates: two are the best; write a row for each")
    return [messages[0].text, *(candidate.text for candidate in ranked)]


def _label(place: Place, record: Record, bad: OnBad) -> str | None:
    target = record.target if isinstance(record, Conversation) else None
    if isinstance(target, bool):
        return str(target).lower()
    if isinstance(target, str | int) and str(target):
        return str(target)
    bad(place, DataError(f"{place}: target: a label is a word or a number; found {str(target)[:60]!r}"))
    return None
