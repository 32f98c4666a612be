"""A tokenizer and a chat template that need no files: UTF-8 bytes as tokens, turns as ChatML. For replays and tests.

Ids 0 to 255 are the bytes; what GPT-2's byte-level alphabet calls them is not for us to know.
"""

from functools import cache

from tokenizers.pre_tokenizers import ByteLevel

from myna.chat.render import Chat
from myna.chat.template import ChatTemplate
from myna.chat.tokenizer import Tokenizer

START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + (m['content'] or '') + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@cache
def byte_chat() -> Chat:
    """256 bytes, and `<|im_start|>` (256) and `<|im_end|>` (257), which ends an answer."""
    added = [
        {"id": 256 + i, "content": text, "special": True, "normalized": False, "single_word": False}
        | {"lstrip": False, "rstrip": False}
        for i, text in enumerate((START, END))
    ]
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "vocab": _vocabulary(), "merges": []},
    }
    config = {"eos_token": END}
    return Chat(Tokenizer(spec, config, {}, TEMPLATE), ChatTemplate(TEMPLATE), config, "bytes")


def ids_of(text: str, *, ends: bool = True) -> list[int]:
    """The ids of an answer that says this, and that it is finished."""
    return [*text.encode(), *([257] if ends else [])]


def _vocabulary() -> dict[str, int]:
    """Every byte by the letter that stands for it: printable ones for themselves, the others, in order, from U+0100 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    assert {*letters.values()} == {*ByteLevel.alphabet()}
    return {letters[byte]: byte for byte in range(256)}
