"""Guessing what comes next, so that one step can verify several tokens. No torch, clock, threads or randomness.

Prompt lookup (Saxena 2023): when the last few tokens have been seen before, in the prompt or the answer, what followed them
then is the guess. A guess is right if it is the token that would have been sampled anyway: the noise of a draw depends
on the position alone, so answers, greedy or sampled, are the same token for token with and without guessing.
"""

from dataclasses import dataclass, field

NGRAM = 3  # tokens that must have been seen before; with 2, most guesses in prose are wrong
LEARN = 0.25  # weight of the newest draft in `trust`
HOPE = 0.01  # what trust regains for each token that was not guessed, so that a new passage is noticed


@dataclass(slots=True)
class Guesses:
    """What one sequence knows about its own repetitions. `trust` is the share of guesses that were right lately."""

    trust: float = 0.5
    _after: dict[tuple[int, ...], int] = field(default_factory=dict)  # n-gram -> where what followed it last stands
    _read: int = NGRAM

    def draft(self, tokens: list[int], most: int) -> tuple[int, ...]:
        """Up to `most` guesses at what follows `tokens`; fewer as trust falls, none when nothing was seen before."""
        for end in range(self._read, len(tokens)):
            self._after[tuple(tokens[end - NGRAM : end])] = end
        self._read = max(self._read, len(tokens))
        most = round(most * min(1.0, 2 * self.trust))
        start = self._after.get(tuple(tokens[-NGRAM:]), len(tokens)) if most > 0 else len(tokens)
        guess = tuple(tokens[start : start + most])
        if not guess:
            self.trust = min(1.0, self.trust + HOPE)
        return guess

    def learn(self, drafted: int, right: int) -> None:
        """`right` of `drafted` guesses were what was sampled."""
        if drafted:
            self.trust += LEARN * (right / drafted - self.trust)
