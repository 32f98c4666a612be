"""A rendered text as token ids: control tokens where the template wrote them, all between them in one go."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from myna.chat.tokenizer import Tokenizer
from myna.chat.traced import MARKUP, Traced
from myna.records import Conversation


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one author: `kind` is "markup", a role, or "text" (data the template reworked, such as tools).

    `text` is exact. `start` and `end` are token indices; a token that reaches over a border counts to its last character.
    """

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """ids and weights, one weight per id (1: train on it); segments cover the ids in order.

    `open_reasoning`: the prompt ends inside <think>. `continues`: the answer continues the text (a document), so its first
    blank is its own; `begun`: so does an answer that the prompt begins, and like any other it may hold calls. `stop_ids` end the answer to this prompt, beside those that end every answer of the model.
    """

    ids: tuple[int, ...]
    weights: tuple[int, ...]
    segments: tuple[Segment, ...]
    open_reasoning: bool = False
    continues: bool = False
    begun: bool = False
    stop_ids: frozenset[int] = frozenset()


class Tokenized:
    """The tokens of a rendered text, written range by range. `ends`: the offset in the text after a token's last
    character."""

    def __init__(self, tokenizer: Tokenizer, text: Traced):
        self.ids: list[int] = []
        self.ends: list[int] = []
        self.weights: list[int] = []
        self._tokenizer = tokenizer
        self._text = str.__str__(text)
        self._places = text.places
        self._after_control = False

    def put(self, ids: Sequence[int], end: int, weight: int) -> None:
        self.ids += ids
        self.ends += [end] * len(ids)
        self.weights += [weight] * len(ids)

    def write(self, start: int, stop: int, weight: int = 0) -> None:
        """Tokenize the text from start to stop: control tokens where they are markup, all between them in one go."""
        plain = start
        first = bisect_right(self._places, start, key=lambda place: place[1])
        for low, high, origin in self._places[first:]:
            if low >= stop:
                break
            if origin != MARKUP:
                continue
            at = max(low, start)
            for is_control, piece in self._tokenizer.split_markup(self._text[at : min(high, stop)]):
                if is_control:
                    self._write_plain(plain, at, weight)
                    plain = at + len(piece)
                    self.put([self._tokenizer.control_id(piece)], plain, weight)
                    self._after_control = True
                at += len(piece)
        self._write_plain(plain, stop, weight)

    def _write_plain(self, start: int, stop: int, weight: int) -> None:
        if start >= stop:
            return
        run = self._text[start:stop]
        ids, ends = self._tokenizer.encode_run(run, starts=not self.ids, after_control=self._after_control)
        self.ids += ids
        self.ends += [start + max(end, 1) for end in ends]
        self.weights += [weight] * len(ids)
        self._after_control = False


def segments(text: Traced, ends: list[int]) -> tuple[Segment, ...]:
    found, first = [], 0
    for start, end, origin in text.places:
        last = bisect_right(ends, end, lo=first)
        if end > start:
            found.append(Segment(origin.kind, str.__str__(text)[start:end], first, last))
            first = last
    return tuple(found)


def weigh_others(conversation: Conversation, text: Traced, tokens: Tokenized) -> list[int]:
    """The weights, with 1 also on the words of messages that are not the assistant's and ask for it."""
    weights = tokens.weights
    asked = {i for i, m in enumerate(conversation.messages) if m.weight == 1 and m.role != "assistant"}
    for start, end, origin in text.places if asked else ():
        if origin.message in asked:
            for i in range(bisect_right(tokens.ends, start), bisect_right(tokens.ends, end)):
                weights[i] = 1
    return weights
