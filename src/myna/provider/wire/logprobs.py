"""Tokens and their log-probabilities on the wire, in the shape of chat and in that of the older completions."""

from codecs import getincrementaldecoder
from collections.abc import Iterable
from typing import Any

from myna.records import Json, Sampled
from myna.records.fields import Fields

# OpenAI's word for a token that cannot be, where JSON has none for minus infinity; vLLM says so too.
NEVER = -9999.0


class Offsets:
    """Where each token begins in its choice's text, in characters; a character cut in two counts where it ends."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._at = 0

    def next(self, piece: bytes) -> int:
        at = self._at
        self._at += len(self._decoder.decode(piece))
        return at


def write_tokens(tokens: Iterable[Sampled]) -> list[Json]:
    return [_write_token(token) | {"top_logprobs": [_write_token(other) for other in token.top]} for token in tokens]


def write_legacy_tokens(tokens: Iterable[Sampled], offsets: Offsets) -> Json:
    """A completion's logprobs: parallel lists."""
    tokens = [*tokens]
    row: Json = {
        "tokens": [_legacy_token(token.piece) for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [{_legacy_token(other.piece): _finite(other.logprob) for other in t.top} for t in tokens],
        "text_offset": [offsets.next(token.piece) for token in tokens],
    }
    ids = [token.id for token in tokens]
    return row if None in ids else row | {"token_ids": ids}


def read_tokens(f: Fields) -> tuple[Sampled, ...]:
    """Chat gives a list of tokens, completions parallel lists."""
    if content := f.take_list("content", _read_token):
        return content
    tokens = f.take_list("tokens", lambda value, _: _read_legacy_token(str(value)))
    logprobs = [_number(x) for x in _padded(f.take("token_logprobs", list, default=[]), len(tokens))]
    ids = [x if type(x) is int else None for x in _padded(f.take("token_ids", list, default=[]), len(tokens))]
    tops = [
        top if isinstance(top, dict) else {} for top in _padded(f.take("top_logprobs", list, default=[]), len(tokens))
    ]
    return tuple(
        Sampled(id_, piece, logprob, tuple(Sampled(None, _read_legacy_token(k), _number(v)) for k, v in top.items()))
        for id_, piece, logprob, top in zip(ids, tokens, logprobs, tops, strict=True)
    )


def _write_token(token: Sampled) -> Json:
    row: Json = {} if token.id is None else {"id": token.id}
    return row | {
        "token": token.piece.decode("utf-8", "replace"),
        "logprob": _finite(token.logprob),
        "bytes": list(token.piece),
    }


def _read_token(value: object, path: str) -> Sampled:
    f = Fields(value, path)
    text, octets = f.take("token", str), f.take("bytes", list, default=None)
    is_bytes = octets is not None and all(isinstance(b, int) and 0 <= b < 256 for b in octets)
    return Sampled(
        f.take("id", int, default=None),
        bytes(octets) if is_bytes else text.encode("utf-8", "replace"),
        f.take("logprob", int, float, default=None),
        f.take_list("top_logprobs", _read_token),
    )


def _legacy_token(piece: bytes) -> str:
    """Completions give tokens as text; one that is not UTF-8 is spelled "bytes:\\xe4\\xbd", as OpenAI did."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{b:02x}" for b in piece)


def _read_legacy_token(token: str) -> bytes:
    octets = token.removeprefix("bytes:")
    if token == octets or not octets.startswith("\\x"):
        return token.encode("utf-8", "replace")
    try:
        return bytes.fromhex(octets.replace("\\x", ""))
    except ValueError:
        return token.encode("utf-8", "replace")


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, NEVER)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _padded(values: list[Any], length: int) -> list[Any]:
    return (values + [None] * length)[:length]
