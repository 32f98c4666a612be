"""Walking a text through a form's masks, token by token."""

import random
from pathlib import Path

import numpy as np

from myna.chat import Chat
from myna.chat.tokenizer import Tokenizer
from myna.forms import Compiled, Compiler
from myna.forms.matcher import Matcher


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


def walk(matcher: Matcher, rng: random.Random, most: int = 80) -> str | None:
    """A text that the masks let through, drawn at random, mostly of ASCII; None where it gets too long."""
    said, mask = bytearray(), np.zeros(9, np.uint32)
    try:
        while len(said) < most and not matcher.complete:
            mask[:] = 0
            matcher.fill(mask)
            allowed = [t for t in range(256) if mask[t // 32] >> np.uint32(t % 32) & 1]
            plain = [t for t in allowed if 32 < t < 127]
            done = 34 in allowed and len(said) > 4 and rng.random() < 0.15
            said.append(34 if done else rng.choice(plain if plain and rng.random() < 0.8 else allowed))
            assert matcher.advance(said[-1])
        return said.decode() if matcher.complete else None
    finally:
        if said:
            matcher.rollback(len(said))
