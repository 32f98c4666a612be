"""Guessing what comes next, so that one step can verify several tokens. No torch, clock, threads or randomness.

A guess is right if it is the token that would have been sampled anyway: the noise of a draw depends on the position alone,
so answers, greedy or sampled, are the same token for token with and without guessing. What is guessed, how much of it, and
by whom may therefore depend on anything, the clock included: only speed does.

A step guesses as many tokens as raise the expected tokens per second: the chance of each to be right, learned from what
became of others like it, against what the step costs with that many more rows and what the guessing itself costs.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from operator import mul
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from myna.engine.costs import Costs

if TYPE_CHECKING:
    from myna.engine.request import Plan, Sequence

log = logging.getLogger(__name__)

GAIN = 1.08  # guessing must promise this much more than a plain step: what it promises is an estimate
T = TypeVar("T")


class Drafter(Protocol):
    """Somebody who guesses. Whatever it says is verified; one that raises or talks nonsense is not asked again."""

    name: str

    def chances(self, sequence: "Sequence", most: int) -> list[float]:
        """For each of up to `most` guesses at what follows, the chance that it is right if those before it are."""

    def seconds(self, sequences: Collection["Sequence"], guesses: int) -> float:
        """What so many guesses for each of these sequences take; 0 where a step does not notice it."""

    def draft(self, wants: Mapping["Sequence", int]) -> Mapping["Sequence", Iterable[int]]:
        """Up to so many guesses for each sequence, whose blocks have room for them. Fewer or none is fine."""

    def learn(self, sequence: "Sequence", drafted: int, right: int) -> None:
        """The first `right` of the `drafted` guesses were what was sampled."""

    def forget(self, sequence: "Sequence") -> None:
        """The sequence ended."""


@dataclass(slots=True)
class Rate:
    """The share of guesses that were right, of about the last `memory` of them."""

    memory: int
    right: float = 0.0
    wrong: float = 0.0

    def learn(self, right: int, wrong: int) -> None:
        self.fade(right + wrong)
        self.right += right
        self.wrong += wrong

    def fade(self, guesses: float = 1) -> None:
        """Believe what was seen less, as after so many more guesses."""
        kept = (1 - 1 / self.memory) ** guesses
        self.right *= kept
        self.wrong *= kept

    def share(self, prior: float, weight: float) -> float:
        """`prior` counts as much as `weight` guesses."""
        return (self.right + prior * weight) / (self.right + self.wrong + weight)


@dataclass(slots=True)
class Want:
    """Who guesses how many tokens for a sequence."""

    drafter: Drafter
    count: int


@dataclass(slots=True)
class Tally:
    """What became of a drafter's guesses, for who wants to know."""

    drafted: int = 0
    right: int = 0


class _Offer(NamedTuple):
    """What a drafter can do for a sequence. chances: of each guess, that it and all before it are right. paid: that takes
    time."""

    drafter: Drafter
    chances: list[float]
    paid: bool


class _Pick(NamedTuple):
    """How many guesses whom gets from whom, and the tokens per second that it promises."""

    rate: float
    wants: dict["Sequence", Want]


class Speculator:
    """Asks drafters for what pays.

    rows   most rows that decodes and their guesses have together
    vocab  a guess outside it is nonsense
    costs  seconds of a step by its rows
    """

    def __init__(self, drafters: Iterable[Drafter], *, rows: int, vocab: int, costs: Costs | None = None):
        self.drafters = list(drafters)
        self.rows = rows
        self.vocab = vocab
        self.costs = costs or Costs(rows)
        self.tally = {drafter.name: Tally() for drafter in self.drafters}
        self._asked: dict[Sequence, Drafter] = {}

    def choose(self, most: Mapping["Sequence", int], budget: int) -> dict["Sequence", Want]:
        """Who guesses how much in a step that decodes these sequences: up to so many tokens each, `budget` together."""
        spare = min(self.rows - len(most), budget)
        if not most or spare < 1 or not self.costs.known:
            return {}
        offers = {s: found for s, count in most.items() if (found := self._offers(s, min(count, spare)))}
        if not offers:
            return {}
        steps = [self.costs.seconds(len(most) + more) for more in range(spare + 1)]
        plain = len(most) / steps[0]
        best = self._pick(len(most), steps, _best(offers, 0), 0)
        # Guesses that take time are made one after the other, as many for each sequence that gets any.
        for depth in range(1, spare + 1) if any(o.paid for found in offers.values() for o in found) else ():
            pick = self._pick(len(most), steps, _best(offers, depth), depth)
            best = max(best, pick, key=lambda found: found.rate)
            if depth > 1 and pick.rate < plain:
                break  # nor will more of them pay
        return best.wants if best.rate > GAIN * plain else {}

    def draft(self, wants: Mapping["Sequence", Want]) -> dict["Sequence", tuple[int, ...]]:
        """The guesses that were made, one or more for a sequence."""
        guesses: dict[Sequence, tuple[int, ...]] = {}
        for drafter in [*self.drafters]:
            mine = {s: want.count for s, want in wants.items() if want.drafter is drafter and want.count > 0}
            if mine:
                guesses |= self._try(drafter, self._drafted, drafter, mine) or {}
                self._asked |= dict.fromkeys(mine, drafter)
        return guesses

    def learn(self, sequence: "Sequence", drafted: int, right: int) -> None:
        """What became of the guesses of a step."""
        drafter = self._asked.pop(sequence, None)
        if drafter is None or not drafted:
            return
        self.tally[drafter.name].drafted += drafted
        self.tally[drafter.name].right += right
        self._try(drafter, drafter.learn, sequence, drafted, right)

    def took(self, plan: "Plan", seconds: float) -> None:
        """What a step took. Those that prefill teach nothing: they never guess."""
        if all(piece.stop - piece.start == piece.answers for piece in plan.slices):
            self.costs.learn(sum(piece.answers for piece in plan.slices), seconds)

    def forget(self, sequence: "Sequence") -> None:
        """The sequence ended, wherever it was."""
        self._asked.pop(sequence, None)
        for drafter in [*self.drafters]:
            self._try(drafter, drafter.forget, sequence)

    def _offers(self, sequence: "Sequence", most: int) -> list[_Offer]:
        offers = []
        for drafter in [*self.drafters] if most > 0 else []:
            chances = self._try(drafter, drafter.chances, sequence, most)
            takes = self._try(drafter, drafter.seconds, [sequence], 1) if chances else None
            if chances and takes is not None:
                offers.append(_Offer(drafter, [*accumulate(chances[:most], mul)], takes > 0))
        return offers

    def _pick(self, decodes: int, steps: list[float], offers: dict["Sequence", _Offer], depth: int) -> _Pick:
        """The likeliest of the offered guesses, as many as promise most, where `steps` are the seconds of a step with so
        many of them."""
        drafting = 0.0
        for drafter in {offer.drafter for offer in offers.values() if offer.paid and offer.chances}:
            takes = self._try(drafter, drafter.seconds, [s for s, o in offers.items() if o.drafter is drafter], depth)
            drafting += inf if takes is None else takes
        ranked = sorted(((chance, s) for s, offer in offers.items() for chance in offer.chances), key=_likelier)
        tokens, best, count = float(decodes), 0.0, 0
        for rows, ((chance, _), step) in enumerate(zip(ranked, steps[1:], strict=False), start=1):
            tokens += chance
            if tokens > best * (step + drafting):
                best, count = tokens / (step + drafting), rows
        wants: dict[Sequence, Want] = {}
        for _, s in ranked[:count]:
            wants.setdefault(s, Want(offers[s].drafter, 0)).count += 1
        return _Pick(best, wants)

    def _drafted(self, drafter: Drafter, wants: Mapping["Sequence", int]) -> dict["Sequence", tuple[int, ...]]:
        """The drafter's guesses, if they are what it was asked for; ValueError otherwise."""
        guesses = {sequence: tuple(ids) for sequence, ids in drafter.draft(wants).items()}
        for sequence, ids in guesses.items():
            if len(ids) > wants.get(sequence, 0):
                raise ValueError(f"{len(ids)} guesses where {wants.get(sequence, 0)} were asked for")
            if any(type(token) is not int or not 0 <= token < self.vocab for token in ids):
                raise ValueError(f"a guess outside the vocabulary of {self.vocab} tokens: {ids}")
        return {sequence: ids for sequence, ids in guesses.items() if ids}

    def _try(self, drafter: Drafter, work: Callable[..., T], *given: object) -> T | None:
        """None where the drafter fails. Then it is dropped: guesses are a favour, and nobody's answer depends on them."""
        try:
            return work(*given)
        except Exception:
            log.exception("%s failed and is not asked for guesses any more; answers do not change", drafter.name)
            self.drafters = [d for d in self.drafters if d is not drafter]
            return None


def _likelier(guess: tuple[float, "Sequence"]) -> float:
    return -guess[0]


def _best(offers: Mapping["Sequence", list[_Offer]], depth: int) -> dict["Sequence", _Offer]:
    """For each sequence the offer that promises most, where those that take time go as deep as `depth`."""
    cut = {s: [o._replace(chances=o.chances[:depth]) if o.paid else o for o in found] for s, found in offers.items()}
    return {s: max(found, key=lambda offer: sum(offer.chances)) for s, found in cut.items()}
