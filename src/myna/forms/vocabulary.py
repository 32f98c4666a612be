"""A model's tokenizer as llguidance wants it: the bytes of every token, and which of them no text can spell."""

from collections.abc import Sequence
from typing import Any

from llguidance import LLTokenizer

from myna.chat.tokenizer import Tokenizer


class _Vocabulary:
    """What LLTokenizer reads. Control tokens are named in a grammar (<[id]>), never matched as text."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, stop_id: int):
        self._tokenizer = tokenizer
        self.eos_token_id = stop_id
        self.tokens: Sequence[bytes] = [tokenizer.piece(id) for id in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(set(tokenizer.special.values()))

    def __call__(self, text: bytes | str) -> list[int]:
        """The ids of text inside an answer: what can only go on in one way is spelled as the tokenizer would."""
        return self._tokenizer.encode_run(text.decode() if isinstance(text, bytes) else text).ids


def vocabulary(tokenizer: Tokenizer, stop_ids: Sequence[int]) -> LLTokenizer:
    """Half a second for 150,000 tokens, so once a model. `stop_ids` are allowed where a grammar may end."""
    words: Any = _Vocabulary(tokenizer, stop_ids[0])  # it is asked for attributes, not for its class
    return LLTokenizer(words, eos_token=list(stop_ids))
