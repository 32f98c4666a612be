"""What one token is worth in running text, in bytes. One rule per decoder of the `tokenizers` library.

Byte-level BPE writes bytes as printable characters (GPT-2's table); SentencePiece writes a space as "▁" and, for bytes
outside its vocabulary, "<0x0A>"; WordPiece marks what continues a word with "##".
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from myna.records import ChatError

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Hugging Face's WordPiece clean-up: the blank before these is dropped (tokenizers, decoders/wordpiece.rs).
_TIGHT = (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're")


@dataclass(frozen=True)
class Decoding:
    """`piece` turns a token's name into the bytes it stands for in the middle of a text; at the start of a text one
    leading blank is not part of it when `strips_blank`."""

    piece: Callable[[str], bytes]
    strips_blank: bool = False


def read_decoding(spec: dict[str, Any]) -> Decoding:
    """The decoding a tokenizer.json (parsed) describes. Raises ChatError for a decoder we do not know."""
    steps = _flatten(spec.get("decoder"), "decoders") or _implied(spec)
    kinds = {step.get("type") for step in steps}
    if unknown := kinds - {"ByteLevel", "Metaspace", "WordPiece", "Replace", "ByteFallback", "Fuse", "Strip"}:
        raise ChatError(f"tokenizer.json: decoder {', '.join(sorted(map(str, unknown)))} is not supported")
    if "ByteLevel" in kinds:
        return Decoding(byte_level)
    if "WordPiece" in kinds:
        step = next(step for step in steps if step["type"] == "WordPiece")
        prefix, tidy = str(step.get("prefix", "##")), bool(step.get("cleanup", True))
        return Decoding(lambda name: word_piece(name, prefix, tidy), strips_blank=True)
    return _sentence_piece(steps)


def byte_level(name: str) -> bytes:
    """Each character stands for one byte; a name with other characters (an added token) is taken literally."""
    table = _byte_of_char()
    try:
        return bytes([table[char] for char in name])
    except KeyError:
        return name.encode()


def word_piece(name: str, prefix: str, tidy: bool) -> bytes:
    if name.startswith(prefix):
        return name.removeprefix(prefix).encode()
    text = " " + name
    return (text[1:] if tidy and text in _TIGHT else text).encode()


def _sentence_piece(steps: list[dict[str, Any]]) -> Decoding:
    swaps: list[tuple[str, str]] = []
    strips = fallback = False
    for step in steps:
        match step["type"]:
            case "Metaspace":
                swaps.append((step.get("replacement", "▁"), " "))
                strips = strips or _prepends(step)
            case "Replace":
                old = step.get("pattern", {}).get("String")
                if not old:
                    raise ChatError("tokenizer.json: a Replace decoder with a regular expression is not supported")
                swaps.append((old, step.get("content", "")))
            case "Strip":
                strips = strips or step.get("start", 0) > 0
            case "ByteFallback":
                fallback = True

    def piece(name: str) -> bytes:
        if fallback and (byte := _BYTE.fullmatch(name)):
            return bytes([int(byte[1], 16)])
        for old, new in swaps:
            name = name.replace(old, new)
        return name.encode()

    return Decoding(piece, strips)


def _prepends(metaspace: dict[str, Any]) -> bool:
    return metaspace.get("prepend_scheme", "always" if metaspace.get("add_prefix_space", True) else "never") != "never"


def _implied(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """A tokenizer.json may name no decoder; then its pre-tokenizer says how text was written."""
    before = {step.get("type"): step for step in _flatten(spec.get("pre_tokenizer"), "pretokenizers")}
    for kind in ("ByteLevel", "Metaspace"):
        if kind in before:
            return [before[kind]]
    if spec.get("model", {}).get("type") in ("WordPiece", "WordLevel"):
        return [{"type": "WordPiece", "cleanup": False}]
    return [{"type": "Fuse"}]


def _flatten(step: dict[str, Any] | None, plural: str) -> list[dict[str, Any]]:
    if not step:
        return []
    return [x for inner in step[plural] for x in _flatten(inner, plural)] if plural in step else [step]


@lru_cache(maxsize=1)
def _byte_of_char() -> dict[str, int]:
    """GPT-2's table: printable bytes stand for themselves, the others for the characters from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
