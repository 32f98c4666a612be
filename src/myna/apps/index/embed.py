"""Vectors of passages of any length: what a model has no room for is embedded in halves, and nothing is cut off."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from myna.provider import Embedder
from myna.records import Embedding, ProviderError, RequestError

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["query", "document"]


async def embed_all(embedder: Embedder, texts: Sequence[str], kind: Kind) -> "np.ndarray":
    """float32 [len(texts), d], each of length 1. A text that is too long becomes the mean of its parts' vectors, weighted by their
    lengths. Raises what `Embedder.embed` raises."""
    import numpy as np

    how = Embedding(prompt=_prompt(embedder, kind))
    owners = list(range(len(texts)))
    pieces = list(texts)
    rows = None
    while rows is None:
        try:
            rows = _checked((await embedder.embed(pieces, how)).rows, len(pieces), embedder.name)
        except RequestError as problem:
            at = _too_long(problem, pieces)
            if at is None:
                raise
            pieces[at : at + 1] = _halves(pieces[at])
            owners.insert(at, owners[at])
    out = np.zeros((len(texts), rows.shape[1]), np.float32)
    for owner, piece, row in zip(owners, pieces, rows, strict=True):
        out[owner] += len(piece) * row
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def _checked(rows: "np.ndarray", count: int, name: str) -> "np.ndarray":
    import numpy as np

    if rows.ndim != 2 or len(rows) != count or not np.isfinite(rows).all():
        raise ProviderError(f"{name} gave no vector of finite numbers for each of {count} texts, but {rows.shape}.")
    return rows


def _prompt(embedder: Embedder, kind: Kind) -> str | None:
    """What the model calls its prompt of this kind; models that were trained without any have none."""
    from myna.provider.local_embed import DOCUMENT, QUERY

    known = getattr(getattr(embedder, "pooling", None), "prompts", ())
    return next((name for name in (QUERY if kind == "query" else DOCUMENT) if name in known), None)


def _too_long(problem: RequestError, pieces: Sequence[str]) -> int | None:
    """Which text the refusal is about, if it can be halved."""
    where, _, number = (problem.param or "").rpartition(".")
    if problem.code != "context_length_exceeded" or where != "input" or not number.isdecimal():
        return None
    at = int(number)
    return at if at < len(pieces) and len(pieces[at]) > 1 else None


def _halves(text: str) -> list[str]:
    """At the blank nearest to the middle, if there is one in the middle half."""
    middle = len(text) // 2
    for away in range(len(text) // 4):
        for at in (middle - away, middle + away):
            if text[at].isspace():
                return [text[:at], text[at:]]
    return [text[:middle], text[middle:]]
