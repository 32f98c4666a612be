"""What Qdrant keeps of a passage: a point with its words as a sparse vector, and a number that is the same whoever writes it."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from myna.apps.index.chunks import chunks
from myna.apps.index.dates import Dated
from myna.apps.index.fusion import Pool
from myna.apps.index.index import Hit
from myna.apps.index.parsed import Parsed
from myna.apps.index.reading import Document
from myna.apps.index.store import HEADING
from myna.apps.index.words import words

if TYPE_CHECKING:
    from qdrant_client.models import Filter, SparseVector

K1, B = 1.2, 0.75  # FTS5's own, so that both indexes rank alike
AVERAGE = 300  # words of a passage: docs/log.md has what other values find


def of(**fields: Any) -> "Filter":
    """The points with these values."""
    from qdrant_client import models

    return models.Filter(
        must=[models.FieldCondition(key=key, match=models.MatchValue(value=value)) for key, value in fields.items()]
    )


def number(*parts: object) -> int:
    """A point's number: the same for the same thing, whoever writes it (63 bits of a hash)."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, parts)).encode("utf-8", "replace")).digest()[:8]) >> 1


def word(text: str) -> int:
    """A word's dimension: 32 bits of a hash. Of 100,000 words one pair or two share theirs."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def passages(document: Document) -> Iterator[dict[str, Any]]:
    """What is kept of each chunk."""
    parsed = document.parsed
    for one in chunks(parsed):
        page = parsed.page_at(one.start)
        yield {
            "sha": document.sha256, "start": one.start, "end": one.end, "text": parsed.visible(one.start, one.end),
            "title": parsed.title, "path": _path(parsed, one.section), "page": page.number if page else None, "parent": one.parent,
        }  # fmt: skip


def _path(parsed: Parsed, section: int | None) -> list[str]:
    titles: list[str] = []
    while section is not None:
        titles.insert(0, parsed.sections[section].title)
        section = parsed.sections[section].parent
    return titles


def sparse(passage: dict[str, Any]) -> "SparseVector":
    """BM25 without the rarity of words, which Qdrant adds: tf (k1 + 1) / (tf + k1 (1 - b + b length / AVERAGE))."""
    from qdrant_client import models

    body, heading = words(passage["text"]), words(" ".join((passage["title"], *passage["path"])))
    counts: dict[str, float] = dict(Counter(body))
    for one in heading:
        counts[one] = counts.get(one, 0.0) + HEADING
    norm = K1 * (1 - B + B * (len(body) + len(heading)) / AVERAGE)
    weights: dict[int, float] = {}
    for one, count in counts.items():
        weights[word(one)] = count * (K1 + 1) / (count + norm)
    return models.SparseVector(indices=list(weights), values=list(weights.values()))


@dataclass(frozen=True, slots=True)
class Called:
    """The names of a document, and when it is from."""

    names: tuple[str, ...]
    dated: Dated | None


def hit(passage: dict[str, Any], number: int, called: Called, score: float, pools: Sequence[Pool]) -> Hit:
    cosines = [pool.dense[number] for pool in pools if number in pool.dense]
    return Hit(
        passage["sha"], passage["start"], passage["end"], passage["text"], called.names, tuple(passage["path"]), passage["page"],
        tuple(passage["parent"]), score, max(pool.lexical.get(number, 0.0) for pool in pools), max(cosines, default=None),
        dated=called.dated,
    )  # fmt: skip
