"""One answer's place in a grammar. engine/constraint.py says what is asked of it."""

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray


class FormError(Exception):
    """The grammar cannot be followed any further: it took more than the limits allow, or went wrong."""


class Matcher:
    """Follows a grammar token by token. Not for two threads at once; both it and its copies free the interpreter."""

    def __init__(self, grammar: LLMatcher, vocab: int):
        self._grammar = grammar
        self._own: NDArray[np.uint32] = np.zeros(-(-vocab // 32), np.uint32)

    def fill(self, mask: NDArray[np.uint32]) -> None:
        """Write the allowed tokens into uint32 [words] of zeros. A model may have more tokens than its tokenizer, or less."""
        own, count = self._own, min(len(self._own), len(mask))
        self._grammar.unsafe_compute_mask_ptr(own.ctypes.data, own.nbytes)
        self._check()
        mask[:count] = own[:count]

    def advance(self, token: int) -> bool:
        """Take a token; False, and nothing has changed, where the grammar does not allow it."""
        taken = self._grammar.try_consume_tokens([token])
        self._check()
        return taken == 1

    def rollback(self, tokens: int) -> None:
        """Take back the last so many tokens."""
        self._grammar.rollback(tokens)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether nothing but a stop token can follow."""
        return self._grammar.is_stopped()

    @property
    def may_end(self) -> bool:
        """Whether what was taken is a whole answer."""
        return self._grammar.is_accepting()

    def _check(self) -> None:
        if self._grammar.is_error():
            raise FormError(self._grammar.get_error().splitlines()[0])
