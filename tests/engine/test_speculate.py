"""Guessing as much as pays, by scripted costs: no clock, no model."""

from collections.abc import Collection, Mapping

import pytest
from scripted_costs import Scripted

from myna.engine.request import Request, Sequence
from myna.engine.speculate import Rate, Speculator
from myna.records import Sampling

VOCAB = 100


class Fixed:
    """A drafter of constant chances that says what it is told to."""

    def __init__(self, chance: float = 0.9, takes: float = 0.0, name: str = "fixed"):
        self.name, self.chance, self.takes = name, chance, takes
        self.learned: list[tuple[int, int]] = []

    def chances(self, sequence: Sequence, most: int) -> list[float]:
        return [self.chance] * most

    def seconds(self, sequences: Collection[Sequence], guesses: int) -> float:
        return self.takes * len(sequences) * guesses

    def draft(self, wants: Mapping[Sequence, int]) -> Mapping[Sequence, list[int]]:
        return {sequence: [7] * count for sequence, count in wants.items()}

    def learn(self, sequence: Sequence, drafted: int, right: int) -> None:
        self.learned.append((drafted, right))

    def forget(self, sequence: Sequence) -> None:
        pass


def sequence() -> Sequence:
    return Sequence(Request(0, (1,), Sampling()), 0, [1])


def counts(speculator: Speculator, most: dict[Sequence, int], budget: int = 1000) -> list[int]:
    wants = speculator.choose(most, budget)
    return [wants[s].count if s in wants else 0 for s in most]


def steps_at(rows: int) -> float:
    """1 to 6 rows cost the same, 7 to 12 twice as much, and so on: kernels that take six rows at a time."""
    return 1.0 + (rows - 1) // 6


@pytest.mark.parametrize(("chance", "cost", "count"), [
    (1.0, lambda rows: 1.0, 15), (0.5, lambda rows: 1.0, 15), (0.9, lambda rows: float(rows), 0),
    (0.0, lambda rows: 1.0, 0), (0.9, steps_at, 5), (0.5, lambda rows: 1 + 0.35 * (rows - 1), 1),
    (0.3, lambda rows: 1.0 if rows == 1 else 1.3, 15), (0.2, lambda rows: 1.0 if rows == 1 else 1.3, 0),
])  # fmt: skip
def test_as_much_is_guessed_as_raises_tokens_per_second(chance: float, cost: object, count: int) -> None:
    speculator = Speculator([Fixed(chance)], rows=16, vocab=VOCAB, costs=Scripted(cost))  # type: ignore[arg-type]
    assert counts(speculator, {sequence(): 50}) == [count]


def test_never_more_than_asked_for_than_the_budget_or_than_the_rows() -> None:
    speculator = Speculator([Fixed(1.0)], rows=8, vocab=VOCAB, costs=Scripted())
    assert counts(speculator, {sequence(): 3}) == [3]
    assert counts(speculator, {sequence(): 50}, budget=2) == [2]
    assert counts(speculator, {sequence(): 50}) == [7]
    assert sum(counts(speculator, {sequence(): 50 for _ in range(5)})) == 3
    assert sum(counts(speculator, {sequence(): 50 for _ in range(8)})) == 0
    assert counts(speculator, {sequence(): 0}) == [0]
    assert counts(speculator, {}) == []


def test_rows_go_to_the_likeliest_guesses() -> None:
    class Two(Fixed):
        def chances(self, sequence: Sequence, most: int) -> list[float]:
            return [0.95 if sequence is sure else 0.5] * most

    sure, unsure = sequence(), sequence()
    speculator = Speculator([Two()], rows=10, vocab=VOCAB, costs=Scripted())
    assert counts(speculator, {unsure: 50, sure: 50}) == [0, 8]
    assert counts(speculator, {unsure: 50, sure: 3}) == [5, 3]


def test_guesses_that_take_time_are_made_only_where_they_pay() -> None:
    def chosen(chance: float, takes: float) -> int:
        return counts(
            Speculator([Fixed(chance, takes)], rows=16, vocab=VOCAB, costs=Scripted()), {sequence(): 50}
        )[0]  # fmt: skip

    assert chosen(0.95, 0.01) == 15
    assert 1 <= chosen(0.8, 0.1) <= 6
    assert chosen(0.8, 0.79) == 0
    assert chosen(0.1, 0.2) == 0


def test_a_sequence_is_given_the_drafter_that_promises_more() -> None:
    lookup, model = Fixed(0.5, name="lookup"), Fixed(0.9, 0.1, name="model")
    speculator = Speculator([lookup, model], rows=16, vocab=VOCAB, costs=Scripted())
    s = sequence()
    assert speculator.choose({s: 50}, 50)[s].drafter is model
    lookup.chance = 0.95
    assert speculator.choose({s: 50}, 50)[s].drafter is lookup
    lookup.chance, model.takes = 0.5, 5.0
    assert speculator.choose({s: 50}, 50)[s].drafter is lookup


def test_nothing_is_guessed_before_a_step_was_timed() -> None:
    speculator = Speculator([Fixed(1.0)], rows=8, vocab=VOCAB)
    assert counts(speculator, {sequence(): 5}) == [0]
    speculator.costs.learn(1, 0.01)
    assert counts(speculator, {sequence(): 5}) == [5]


def test_who_guessed_learns_what_became_of_it() -> None:
    drafter, s = Fixed(1.0), sequence()
    speculator = Speculator([drafter], rows=8, vocab=VOCAB, costs=Scripted())
    assert speculator.draft(speculator.choose({s: 3}, 50)) == {s: (7, 7, 7)}
    speculator.learn(s, 3, 2)
    speculator.learn(s, 0, 0)  # a step without guesses
    assert drafter.learned == [(3, 2)]
    assert (speculator.tally["fixed"].drafted, speculator.tally["fixed"].right) == (3, 2)


NONSENSE = {
    "outside the vocabulary": [VOCAB], "negative": [-1], "too many": [1] * 9, "no ids": ["x"], "no list": 5,
    "not whole": [1.5], "none": None,
}  # fmt: skip


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE)
def test_a_drafter_that_talks_nonsense_is_dropped_with_a_line_in_the_log(
    said: object, caplog: pytest.LogCaptureFixture
) -> None:
    class Nonsense(Fixed):
        def draft(self, wants: Mapping[Sequence, int]) -> Mapping[Sequence, list[int]]:
            return dict.fromkeys(wants, said)  # type: ignore[arg-type]

    bad, good, s = Nonsense(1.0, name="bad"), Fixed(0.9, name="good"), sequence()
    speculator = Speculator([bad, good], rows=8, vocab=VOCAB, costs=Scripted())
    assert speculator.draft(speculator.choose({s: 3}, 50)) == {}
    assert "bad failed and is not asked" in caplog.text
    speculator.learn(s, 0, 0)
    assert speculator.draft(speculator.choose({s: 3}, 50)) == {s: (7, 7, 7)}, "the other goes on"


@pytest.mark.parametrize("method", ["chances", "seconds", "draft", "learn", "forget"])
def test_a_drafter_that_raises_anywhere_is_dropped(method: str, caplog: pytest.LogCaptureFixture) -> None:
    def fails(*_: object) -> None:
        raise MemoryError("no room")

    bad, s = Fixed(1.0, name="bad"), sequence()
    setattr(bad, method, fails)
    speculator = Speculator([bad], rows=8, vocab=VOCAB, costs=Scripted())
    speculator.draft(speculator.choose({s: 3}, 50))
    speculator.learn(s, 3, 1)
    speculator.forget(s)
    assert speculator.drafters == []
    assert "bad failed" in caplog.text
    assert speculator.choose({s: 3}, 50) == {}


def test_a_drafter_that_guesses_for_somebody_who_did_not_ask_is_dropped() -> None:
    class Stranger(Fixed):
        def draft(self, wants: Mapping[Sequence, int]) -> Mapping[Sequence, list[int]]:
            return {sequence(): [1]}

    s = sequence()
    speculator = Speculator([Stranger(1.0)], rows=8, vocab=VOCAB, costs=Scripted())
    assert speculator.draft(speculator.choose({s: 3}, 50)) == {}
    assert speculator.drafters == []


def test_a_rate_is_of_the_latest_guesses_and_fades_to_what_was_expected() -> None:
    rate = Rate(memory=20)
    assert rate.share(0.7, 4) == pytest.approx(0.7)
    rate.learn(0, 200)
    assert rate.share(0.7, 4) < 0.15
    rate.learn(100, 0)
    assert rate.share(0.7, 4) > 0.85
    rate.fade(1000)
    assert rate.share(0.7, 4) == pytest.approx(0.7)
