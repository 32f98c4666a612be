"""An answer that must have a form: which tokens may come next. No torch.

The engine knows no grammar. It is handed something that makes a Matcher for each candidate, asks it for the allowed tokens
of every row it samples from, and tells it what was sampled. A matcher that fails ends its own candidate and nothing else.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Mask = NDArray[np.uint32]
"""[rows, words]: bit t % 32 of word t // 32 says whether token t is allowed."""


class Matcher(Protocol):
    """One candidate's place in a form. Used by one thread at a time. Raises when it cannot go on."""

    def fill(self, mask: Mask) -> None:
        """Write the tokens that may come next into uint32 [words] of zeros: stop tokens only where the form may end."""

    def advance(self, token: int) -> bool:
        """Take a token; False, and nothing has changed, where the form does not allow it."""

    def rollback(self, tokens: int) -> None:
        """Take back the last so many tokens."""

    @property
    def complete(self) -> bool:
        """Whether nothing but a stop token can follow."""


class Constraint:
    """A candidate's matcher, made when it is first needed, and what went wrong with it, if anything did."""

    __slots__ = ("_make", "_matcher", "fault")

    def __init__(self, make: Callable[[], Matcher]):
        self._make = make
        self._matcher: Matcher | None = None
        self.fault: str | None = None

    def masks(self, draft: Sequence[int], words: int) -> Mask | None:
        """The masks [1 to 1 + len(draft), words] of the token that comes next, and of those after each guess for as long as
        the form allows the guesses. None where it failed."""
        try:
            return self._masks(draft, words)
        except Exception as e:
            self._fail(e)
            return None

    def mask_after(self, guesses: Sequence[int], words: int) -> Mask | None:
        """The mask [1, words] of the token after these guesses. None where no token can follow them, or it failed."""
        try:
            matcher, taken = self._ready(), 0
            row: Mask = np.zeros((1, words), np.uint32)
            try:
                while taken < len(guesses) and matcher.advance(guesses[taken]):
                    taken += 1
                if taken == len(guesses) and not matcher.complete:
                    matcher.fill(row[0])
            finally:
                if taken:
                    matcher.rollback(taken)
            return row if row.any() else None
        except Exception as e:
            self._fail(e)
            return None

    def take(self, token: int) -> bool:
        """Go on by what was sampled. Whether the form is complete: nothing can follow."""
        try:
            matcher = self._ready()
            if not matcher.advance(token):
                raise ValueError(f"token {token} was sampled, which the form does not allow")
            return matcher.complete
        except Exception as e:
            self._fail(e)
            return False

    def _ready(self) -> Matcher:
        if self._matcher is None:
            self._matcher = self._make()
        return self._matcher

    def _masks(self, draft: Sequence[int], words: int) -> Mask:
        matcher = self._ready()
        rows: Mask = np.zeros((1 + len(draft), words), np.uint32)
        taken = 0
        try:
            matcher.fill(rows[0])
            for guess in draft:
                if matcher.complete or not _allows(rows[taken], guess) or not matcher.advance(guess):
                    break
                taken += 1
                if matcher.complete:
                    break  # the answer ends with this guess: what would follow is not looked at
                matcher.fill(rows[taken])
        finally:
            if taken:
                matcher.rollback(taken)
        if not rows[0].any():
            raise ValueError("no token of the vocabulary can go on with the form")
        return rows[: taken + 1] if rows[taken].any() else rows[:taken]

    def _fail(self, error: Exception) -> None:
        log.warning("a form failed: %s", error)
        self.fault = f"the answer's form could not be followed: {error}"


def _allows(mask: Mask, token: int) -> bool:
    return bool(mask[token // 32] >> np.uint32(token % 32) & np.uint32(1))
