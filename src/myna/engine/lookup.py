"""Prompt lookup (Saxena 2023): when the last few tokens have been seen before, in the prompt or the answer, what followed
them then is the guess. No torch, clock, threads or randomness.

What it would have guessed is compared with every token that comes, whether it was asked or not. So its chances, by how
many tokens agree already, are known without a single wasted row.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from myna.engine.speculate import Rate

if TYPE_CHECKING:
    from myna.engine.request import Sequence

NGRAM = 3  # tokens that must have been seen before
LONGEST = 32  # agreement beyond this tells nothing more
# Agreeing tokens, at most -> the chance of the next before anything was seen. Fewer than NGRAM agree after a change only.
CHANCES = ((0, 0.25), (1, 0.5), (2, 0.6), (3, 0.35), (5, 0.5), (9, 0.75), (LONGEST, 0.9))
CLASS = [next(i for i, (most, _) in enumerate(CHANCES) if length <= most) for length in range(LONGEST + 1)]
RECALL, OWN_RECALL = 1000, 40  # guesses that count in a rate: of all sequences, of one
PRIOR, COMMON = 8.0, 4.0  # guesses that CHANCES count as beside those of all, and those of all beside a sequence's own


def _rates(memory: int) -> list[Rate]:
    return [Rate(memory) for _ in CHANCES]


@dataclass(slots=True)
class _Reading:
    """How far a sequence was read, and where in it the last `length` tokens stood before: what followed is at `at`."""

    read: int = 0
    at: int | None = None
    length: int = 0
    after: dict[tuple[int, ...], int] = field(default_factory=dict)  # n-gram -> where what followed it last stands
    rates: list[Rate] = field(default_factory=lambda: _rates(OWN_RECALL))


class Lookup:
    """A Drafter that repeats what was said before."""

    name = "prompt lookup"

    def __init__(self) -> None:
        self._readings: dict[Sequence, _Reading] = {}
        self._rates = _rates(RECALL)

    def chances(self, sequence: "Sequence", most: int) -> list[float]:
        reading = self._readings.setdefault(sequence, _Reading())
        self._read(reading, sequence.tokens, len(sequence.request.ids))
        if reading.at is None:
            return []
        classes = [CLASS[min(reading.length + i, LONGEST)] for i in range(most)]
        return [self._chance(reading, kind) for kind in classes]

    def seconds(self, sequences: Collection["Sequence"], guesses: int) -> float:
        return 0.0

    def draft(self, wants: Mapping["Sequence", int]) -> dict["Sequence", list[int]]:
        return {sequence: self._follow(sequence, count) for sequence, count in wants.items()}

    def learn(self, sequence: "Sequence", drafted: int, right: int) -> None:
        """Nothing that reading the tokens does not tell."""

    def forget(self, sequence: "Sequence") -> None:
        self._readings.pop(sequence, None)

    def _follow(self, sequence: "Sequence", count: int) -> list[int]:
        """What stood there, and on into the guess itself where that is reached: a period goes on."""
        tokens, at = sequence.tokens, self._readings[sequence].at
        guess: list[int] = []
        for place in range(at, at + count) if at is not None else ():
            guess.append(tokens[place] if place < len(tokens) else guess[place - len(tokens)])
        return guess

    def _chance(self, reading: _Reading, kind: int) -> float:
        return reading.rates[kind].share(self._rates[kind].share(CHANCES[kind][1], PRIOR), COMMON)

    def _read(self, reading: _Reading, tokens: list[int], prompt: int) -> None:
        """Go on to the end of `tokens`; from `prompt` on they are an answer, whose every token tests the guess at it."""
        if not reading.read:
            grams = zip(*(tokens[i:prompt] for i in range(NGRAM)), strict=False)
            reading.after.update(zip(grams, range(NGRAM, prompt), strict=False))  # what follows the last is not known
            reading.read = prompt
            self._look(reading, tokens, prompt)
        for place in range(reading.read, len(tokens)):
            self._test(reading, tokens, place)
        reading.read = len(tokens)

    def _test(self, reading: _Reading, tokens: list[int], place: int) -> None:
        if reading.at is None:
            self._look(reading, tokens, place + 1)
            return
        right, kind = tokens[reading.at] == tokens[place], CLASS[reading.length]
        for rates in (reading.rates, self._rates):
            rates[kind].learn(right, not right)
        if right:
            reading.at, reading.length = reading.at + 1, min(reading.length + 1, LONGEST)
            reading.after[tuple(tokens[place + 1 - NGRAM : place + 1])] = place + 1
        else:
            self._look(reading, tokens, place + 1, instead=reading.at + 1 if reading.length >= NGRAM else None)

    def _look(self, reading: _Reading, tokens: list[int], stop: int, instead: int | None = None) -> None:
        """Find where the last tokens before `stop` stood before, and note that they stand here too. Where they are new,
        a text that is copied with changes may go on at `instead`."""
        gram = tuple(tokens[max(stop - NGRAM, 0) : stop])
        reading.at, reading.length = reading.after.get(gram, instead), 0
        if len(gram) == NGRAM:
            reading.after[gram] = stop
        if reading.at is not None:
            while reading.length < LONGEST and _agree(tokens, reading.at, stop, reading.length):
                reading.length += 1


def _agree(tokens: list[int], at: int, stop: int, length: int) -> bool:
    return at > length and tokens[at - 1 - length] == tokens[stop - 1 - length]
