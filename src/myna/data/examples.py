"""Records become examples: token ids and weights, from the tokenizer and the one renderer.

    of_documents      a text, in pieces of at most `context` tokens; every token but a text's first is learned
    of_conversations  a conversation as the renderer weighs it: what the assistant says, and that it ends
    of_preferences    (chosen, rejected): two sequences that begin with the same prompt
    of_judged         one answer, its score among the facts

Nothing is cut or left out unless `overlong` says so, and all of it is counted in `Cuts`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, get_args

import numpy as np

from myna.chat import Chat, Tokenizer
from myna.data.sources import OnBad, Sourced, stop
from myna.data.tokens import Example, Tokenized, length_of
from myna.data.turns import check_answered, check_candidates
from myna.records import Candidate, ChatError, Conversation, DataError, Document, RequestError

Overlong = Literal["error", "split", "drop", "truncate"]
OVERLONG: tuple[str, ...] = get_args(Overlong)
BATCH = 1 << 20  # characters that are tokenized in one call, on all cores
# What ends a text in pretraining, in the names of the tokenizers that have a token for it beside the one that ends an answer.
TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<eos>", "</s>")


@dataclass(slots=True)
class Cuts:
    """What did not fit: rows cut into several examples, rows cut short, rows left out; and the tokens lost by that."""

    split: int = 0
    truncated: int = 0
    dropped: int = 0
    lost_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """Examples of at most `context` tokens, and what becomes of longer rows.

    error      a DataError with the row's place
    split      windows of `context` tokens; the first token of each repeats the last of the one before, as context
    drop       left out
    truncate   cut after `context` tokens
    """

    context: int
    overlong: Overlong = "error"

    def __post_init__(self) -> None:
        if self.context < 2:
            raise DataError(f"context {self.context}: at least 2 tokens, one to see and one to learn")
        if self.overlong not in OVERLONG:
            raise DataError(f"overlong {self.overlong!r} is none of {', '.join(OVERLONG)}")

    def __call__(self, example: Example, cuts: Cuts) -> list[Example]:
        """The example, or what is left of it. Raises DataError."""
        size = length_of(example)
        if size <= self.context:
            return [example]
        if self.overlong == "error" or (self.overlong == "split" and len(example) > 1):
            also = "; a pair cannot be split" if self.overlong == "split" else ""
            raise DataError(
                f"{size} tokens, and the context holds {self.context}{also}. Shorten the row, raise the context, or say "
                f"what is to be done: --overlong {' or '.join(o for o in OVERLONG if o not in ('error', self.overlong))}"
            )
        kept: list[Example] = []
        if self.overlong == "split":
            kept = [(window,) for window in windows(example[0], self.context) if window.supervised]
            cuts.split += 1
        elif self.overlong == "truncate":
            short = self._truncated(example)
            kept = [short] if all(sequence.supervised for sequence in short) else []
            cuts.truncated += bool(kept)
        cuts.dropped += not kept
        cuts.lost_tokens += max(0, size - sum(length_of(piece) - (i > 0) for i, piece in enumerate(kept)))
        return kept

    def _truncated(self, example: Example) -> Example:
        """Each side is cut to its share of the room; a short one leaves its rest to the other."""
        room, cut = self.context, list[Tokenized]()
        for n, i in enumerate(sorted(range(len(example)), key=lambda i: len(example[i]))):
            share = min(len(example[i]), room // (len(example) - n))
            cut.append(_slice(example[i], 0, share))
            room -= share
        order = sorted(range(len(example)), key=lambda i: len(example[i]))
        return tuple(cut[order.index(i)] for i in range(len(example)))


def windows(sequence: Tokenized, context: int) -> Iterator[Tokenized]:
    """Stretches of at most `context` tokens. The last token of one is the first of the next, where nothing predicts it: so
    every token but the sequence's first is learned exactly once."""
    for start in range(0, max(len(sequence) - 1, 1), context - 1):
        yield _slice(sequence, start, start + context)


def of_documents(
    records: Iterable[Sourced[Document]], tokenizer: Tokenizer, context: int, bad: OnBad = stop
) -> Iterator[Sourced[Example]]:
    """Texts, each with the token that begins a text, if the tokenizer wants one, and the one that ends it, if there is one."""
    end = end_of_text(tokenizer)
    tail = () if end is None else (end,)
    for batch in _batches(records):
        for (place, document), middle in zip(batch, _encode(batch, tokenizer, bad), strict=True):
            if middle is None:
                continue
            ids = np.array(middle if document.tokens else (*tokenizer.opening, *middle, *tail), np.int32)
            for window in windows(Tokenized(ids, np.ones(len(ids), np.float32)), context):
                yield Sourced(place, (window,))


def of_conversations(
    records: Iterable[Sourced[Conversation]], chat: Chat, fit: Fit, cuts: Cuts, bad: OnBad = stop
) -> Iterator[Sourced[Example]]:
    """Conversations to fine-tune on. A bad one's error names its place and field."""

    def read(conversation: Conversation) -> list[Example]:
        check_answered(conversation)
        return [(_rendered(conversation, chat),)]

    return _each(records, read, fit, cuts, bad)


def of_preferences(
    records: Iterable[Sourced[Conversation]], chat: Chat, fit: Fit, cuts: Cuts, bad: OnBad = stop
) -> Iterator[Sourced[Example]]:
    """(chosen, rejected) for every two candidates of different score, as InstructGPT does with ranked answers
    (Ouyang et al. 2022, arXiv:2203.02155). Only the candidates are learned."""

    def read(conversation: Conversation) -> list[Example]:
        check_candidates(conversation)
        best_first = sorted(_answers(conversation, chat), key=lambda answer: -answer.facts["score"])
        pairs: list[Example] = [(a, b) for a, b in combinations(best_first, 2) if a.facts["score"] > b.facts["score"]]
        if not pairs:
            raise DataError("candidates: none is better than another; there is nothing to prefer")
        for chosen, rejected in pairs:
            _check_shared(chosen, rejected)
        return pairs

    return _each(records, read, fit, cuts, bad)


def of_judged(
    records: Iterable[Sourced[Conversation]], chat: Chat, fit: Fit, cuts: Cuts, bad: OnBad = stop
) -> Iterator[Sourced[Example]]:
    """Every candidate by itself, with its `score` among the facts: for KTO, and for rewards."""

    def read(conversation: Conversation) -> list[Example]:
        check_candidates(conversation)
        return [(answer,) for answer in _answers(conversation, chat)]

    return _each(records, read, fit, cuts, bad)


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """The token that ends a text; None if the tokenizer has none."""
    named = (tokenizer.special[name] for name in TEXT_ENDS if name in tokenizer.special)
    return next(named, tokenizer.eos_ids[-1] if tokenizer.eos_ids else None)


def _each(
    records: Iterable[Sourced[Conversation]],
    read: Callable[[Conversation], list[Example]],
    fit: Fit,
    cuts: Cuts,
    bad: OnBad,
) -> Iterator[Sourced[Example]]:
    for place, conversation in records:
        try:
            kept = [piece for example in read(conversation) for piece in fit(example, cuts)]
        except (DataError, ChatError, RequestError) as e:
            bad(place, DataError(f"{place}: {e}"))
            continue
        for example in kept:
            yield Sourced(place, example)


def _answers(conversation: Conversation, chat: Chat) -> list[Tokenized]:
    """Each candidate after the prompt, learned alone, with its score."""
    prompt = tuple(replace(message, weight=0) for message in conversation.messages)
    found = []
    for candidate in conversation.candidates:
        whole = replace(conversation, messages=(*prompt, *_with_evidence(candidate).messages), candidates=())
        assert candidate.score is not None  # check_candidates
        found.append(replace(_rendered(whole, chat), facts={"score": float(candidate.score)}))
    return found


def _with_evidence(candidate: Candidate) -> Candidate:
    """What a candidate of one message was sampled as belongs to that message."""
    if candidate.tokens is None or len(candidate.messages) != 1 or candidate.messages[0].tokens is not None:
        return candidate
    return replace(candidate, messages=(replace(candidate.messages[0], tokens=candidate.tokens),))


def _rendered(conversation: Conversation, chat: Chat) -> Tokenized:
    rendered = chat.render(conversation, open_turn=False)
    sequence = Tokenized(np.array(rendered.ids, np.int32), np.array(rendered.weights, np.float32))
    if not sequence.supervised:
        raise DataError("the chat template writes nothing of what is to be learned; no token has a weight")
    return sequence


def _check_shared(chosen: Tokenized, rejected: Tokenized) -> None:
    """The answers must follow the same tokens: else what sets them apart is not the answers."""
    at = int(np.argmax(chosen.weights != 0))
    if at != int(np.argmax(rejected.weights != 0)) or not np.array_equal(chosen.ids[:at], rejected.ids[:at]):
        raise DataError("candidates: the chat template writes different prompts before the two answers")


def _slice(sequence: Tokenized, start: int, stop: int) -> Tokenized:
    weights = sequence.weights[start:stop].copy()
    weights[:1] = 0
    numbers = {name: values[start:stop] for name, values in sequence.numbers.items()}
    return replace(sequence, ids=sequence.ids[start:stop], weights=weights, numbers=numbers)


def _batches(records: Iterable[Sourced[Document]]) -> Iterator[list[Sourced[Document]]]:
    batch: list[Sourced[Document]] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.value.text)
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(batch: list[Sourced[Document]], tokenizer: Tokenizer, bad: OnBad) -> list[Sequence[int] | None]:
    """Each document's ids; None where `bad` was told why there are none."""
    try:
        found = iter(tokenizer.encode_many([document.text for _, document in batch if document.tokens is None]))
        return [_ids(record, lambda _: next(found), bad) for record in batch]
    except ChatError:  # one of them; alone it says which
        return [_ids(record, tokenizer.encode, bad) for record in batch]


def _ids(record: Sourced[Document], encode: Callable[[str], Sequence[int]], bad: OnBad) -> Sequence[int] | None:
    place, document = record
    try:
        ids = encode(document.text) if document.tokens is None else document.tokens.ids
        if document.suffix is not None:
            raise DataError("suffix: a text with a gap in it is a prompt; leave the field out")
        if not ids:
            raise DataError("text: empty")
    except (DataError, ChatError) as e:
        bad(place, DataError(f"{place}: {e}"))
        return None
    return ids
