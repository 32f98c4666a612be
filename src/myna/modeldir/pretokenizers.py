"""How text is cut before byte-level BPE, by the name GGUF files carry in `tokenizer.ggml.pre`: data.

Sources: the splits in llama.cpp's llama-vocab.cpp and the tokenizer.json of the models that brought them.
"""

from dataclasses import dataclass
from typing import Any

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER_LOWER = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
TEKKEN = rf"{_UPPER_LOWER[0]}|{_UPPER_LOWER[1]}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
GPT4O = (
    rf"{_UPPER_LOWER[0]}{_CONTRACTIONS}?|{_UPPER_LOWER[1]}{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
)


@dataclass(frozen=True)
class Rule:
    """Cut by each regular expression in turn; matches stay whole, and so does what lies between them.

    nfc             normalise to NFC first
    ignore_merges   a whole chunk that is in the vocabulary is one token, whatever the merges say
    """

    splits: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False

    def to_json(self) -> dict[str, Any]:
        """The `pre_tokenizer` of tokenizer.json."""
        cuts = [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}
            for split in self.splits
        ]
        return {"type": "Sequence", "pretokenizers": [*cuts, byte_level()]}


def byte_level(trim: bool = True) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trim, "use_regex": False}


_GPT2 = Rule((GPT2,))
_DIGITS_GPT2 = Rule((r"\p{N}", GPT2))
_LLAMA3 = Rule((LLAMA3,), ignore_merges=True)
_QWEN2 = Rule((QWEN2,), nfc=True)
# What llama.cpp does when a file says "default".
_DEFAULT = Rule((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))

PRETOKENIZERS: dict[str, Rule] = {
    "default": _DEFAULT,
    "gpt-2": _GPT2,
    "phi-2": _GPT2,
    "mpt": _GPT2,
    "olmo": _GPT2,
    "smollm": _DIGITS_GPT2,
    "starcoder": _DIGITS_GPT2,
    "refact": _DIGITS_GPT2,
    "command-r": _DIGITS_GPT2,
    "codeshell": _DIGITS_GPT2,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "dbrx": Rule((LLAMA3,)),
    "smaug-bpe": Rule((LLAMA3,)),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": Rule((QWEN2,)),
    "tekken": Rule((TEKKEN,), ignore_merges=True),
    "gpt-4o": Rule((GPT4O,)),
    "llama4": Rule((GPT4O,)),
}
