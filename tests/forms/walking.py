"""Walking a text through a form's masks, token by token."""

from pathlib import Path

import numpy as np

from myna.chat import Chat
from myna.chat.tokenizer import Tokenizer
from myna.forms import Compiled, Compiler


def allowed(matcher: object, vocab: int) -> set[int]:
    """The tokens that may come next."""
    mask = np.zeros(-(-vocab // 32), np.uint32)
    matcher.fill(mask)  # type: ignore[attr-defined]
    return set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())


def generates(form: Compiled, tokenizer: Tokenizer, text: str, stop_ids: frozenset[int]) -> bool:
    """Whether the answer can be this text, with every token allowed by the mask before it and a stop token after it."""
    matcher = form.matcher()
    for id in tokenizer.encode_markup(text):
        if matcher.complete or id not in allowed(matcher, tokenizer.vocab_size) or not matcher.advance(id):
            return False
    return matcher.complete or bool(stop_ids & allowed(matcher, tokenizer.vocab_size))


def chat_of(path: Path) -> tuple[Chat, Compiler]:
    chat = Chat.load(path)
    return chat, Compiler(chat.tokenizer, chat.stop_ids)
