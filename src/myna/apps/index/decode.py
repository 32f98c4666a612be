"""Bytes to text: the encoding is found, and said when it is not UTF-8.

Chinese files come in UTF-8, GB18030 (which holds GBK and GB2312), UTF-16 and Big5. The legacy encodings take almost any bytes, so a
guess is scored: the share of characters, among those that are not ASCII, that people of that encoding mostly write. The frequent
characters are where the standards put them: GB 2312 level 1 (rows 16 to 55) and Big5 level 1 (0xA4 to 0xC6).
"""

import re
from dataclasses import dataclass
from unicodedata import category

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_SAMPLE = 1 << 16  # bytes that a guess looks at
_BAD = 0.01  # share of UTF-8 that may be damaged before it is taken for something else
_ZEROS = 0.05  # share of the bytes of one half that are zero, in UTF-16
_SURE = 0.7  # share of characters that have to be usual ones


@dataclass(frozen=True, slots=True)
class Decoded:
    text: str
    encoding: str  # Python's name for it
    notes: tuple[str, ...] = ()


def decode(data: bytes, declared: str = "") -> Decoded:
    """The text of `data`, whatever it takes; `notes` says what was assumed and what is damaged. `declared`: what a header says, which
    is believed when it fits."""
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _as(data, encoding)
    if declared and (text := _try(data, declared)) is not None:
        return Decoded(text, declared.lower(), () if _is_utf8(declared) else (f"encoding: {declared}, as declared",))
    text = _try(data, "utf-8")
    if text is not None and _by_chance(text[:_SAMPLE], data[:_SAMPLE]):
        return _as(data, "gb18030")
    if text is not None and "\x00" not in text[:_SAMPLE]:
        return Decoded(text, "utf-8")
    if wide := _utf16(data):
        return _as(data, wide)
    damaged = data.decode("utf-8", "replace")
    if len(re.findall("\ufffd", damaged)) <= _BAD * max(1, sum(ch > "\x7f" for ch in damaged)):
        return _as(data, "utf-8")
    return _as(data, _guess(data[:_SAMPLE]))


def _as(data: bytes, encoding: str) -> Decoded:
    text = data.decode(encoding, "replace")
    notes: tuple[str, ...] = (
        () if encoding in ("utf-8", "utf-8-sig") else (f"encoding: {encoding} (found, not declared)",)
    )
    if lost := text.count("\ufffd"):
        notes += (f"{lost} places that are no {encoding.removesuffix('-sig')}, shown as U+FFFD",)
    return Decoded(text, encoding.removesuffix("-sig"), notes)


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError, ValueError):
        return None


def _by_chance(text: str, sample: bytes) -> bool:
    """Few Chinese characters in GB 2312 can be valid UTF-8: marks that stand on no letter, characters that do not exist."""
    if text.isascii():
        return False
    pairs = zip(" " + text, text, strict=False)
    odd = any(
        category(ch) == "Cn" or (category(ch) == "Mn" and not before.isalpha())
        for before, ch in pairs
        if "\xff" < ch < "\u0800"
    )
    return odd and _SCORES["gb18030"](sample) >= _SURE


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8", "us-ascii", "ascii")


def _utf16(data: bytes) -> str | None:
    """UTF-16 without a mark: half of the bytes of spaces, digits and Latin letters are zero, always the same half."""
    even, odd = data[:_SAMPLE:2], data[1:_SAMPLE:2]
    ends = {"utf-16-le": odd.count(0) - even.count(0), "utf-16-be": even.count(0) - odd.count(0)}
    best = max(ends, key=lambda name: ends[name])
    return best if ends[best] >= max(3, _ZEROS * len(even)) else None


def _guess(sample: bytes) -> str:
    scores = {name: score(sample) for name, score in _SCORES.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= _SURE else "cp1252"


def _pairs(sample: bytes, encoding: str, usual: range) -> float:
    """Share of two-byte characters whose first byte is a usual one; 0 where the bytes are not this encoding."""
    text = sample.decode(encoding, "replace")
    wide = [ch for ch in text if ch > "\x7f"]
    if not wide or text.count("\ufffd") > max(1, _BAD * len(wide)):  # the sample may end within a character
        return 0.0
    return sum(_first(ch, encoding) in usual for ch in wide) / len(wide)


def _first(ch: str, encoding: str) -> int:
    raw = ch.encode(encoding, "replace")
    return raw[0] if len(raw) == 2 and (encoding != "gb18030" or raw[1] >= 0xA1) else 0


def _share(sample: bytes, encoding: str, pattern: str) -> float:
    text = sample.decode(encoding, "replace")
    wide = [ch for ch in text if ch > "\x7f"]
    if not wide or text.count("\ufffd") > max(1, _BAD * len(wide)):
        return 0.0
    return sum(bool(re.match(pattern, ch)) for ch in wide) / len(wide)


def _korean(sample: bytes) -> float:
    """Share of Hangul. Short Chinese texts in GB 2312 can look like it, but Korean has spaces between words."""
    wide = sum(byte > 0x7F for byte in sample) / 2
    return 1.6 * _share(sample, "euc_kr", "[\uac00-\ud7a3]") if sample.count(b" ") >= 0.1 * wide else 0.0


def _western(sample: bytes) -> float:
    """Share of accented letters and marks that stand beside an ASCII letter or a space, as they do in European text."""
    text = sample.decode("cp1252", "replace")
    wide = sum(ch > "\x7f" for ch in text)
    lone = len(re.findall(r"(?<![^\x00-\x7f])[À-ÖØ-öø-ÿŒœŠšŽž‘’“”–—…•€£©®°§´](?![^\x00-\x7f])", text))
    return lone / wide if wide else 0.0


_SCORES = {
    "gb18030": lambda s: _pairs(s, "gb18030", range(0xB0, 0xD8)) + 0.7 * _pairs(s, "gb18030", range(0xA1, 0xAA)),
    "big5": lambda s: _pairs(s, "big5", range(0xA4, 0xC7)) + 0.7 * _pairs(s, "big5", range(0xA1, 0xA4)),
    "shift_jis": lambda s: 1.6 * _share(s, "shift_jis", "[\u3041-\u30ff\u3001\u3002]"),
    "euc_jp": lambda s: 1.6 * _share(s, "euc_jp", "[\u3041-\u30ff\u3001\u3002]"),
    "euc_kr": lambda s: _korean(s),
    "cp1252": _western,
}
