"""An index of documents: what is put in, what is found, and the four methods of everything that keeps one.

FileIndex      one SQLite file; the default                         (myna.apps.index.file)
QdrantIndex    a Qdrant server, for those who outgrow a file        (myna.apps.index.qdrant)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from myna.apps.index.dates import Dated
from myna.apps.index.parsed import Parsed, Range
from myna.provider import Scorer

if TYPE_CHECKING:  # it starts child processes, which who searches does not
    from myna.apps.index.reading import Document

DEPTH = 100  # chunks that each arm puts forward, at least
RERANKED = 20  # of them, how many a reranker reads


@dataclass(frozen=True, slots=True)
class Added:
    """What became of one document: new; replaced (the name had other contents); the same as before."""

    name: str
    sha256: str
    outcome: Literal["new", "replaced", "same"]
    chunks: int


Told = Callable[[Added], None]


@dataclass(frozen=True, slots=True)
class Listed:
    """A document of the index. Names of equal contents share everything but the name."""

    name: str
    sha256: str
    title: str
    kind: str
    size: int  # bytes of the file
    characters: int
    chunks: int
    vectors: int  # of the chunks, how many have one
    dated: Dated | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found. (`sha256`, `start`, `end`) is its citation, in characters of the document's text; `text` is what of
    that a reader sees; `parent` the range of the section around it."""

    sha256: str
    start: int
    end: int
    text: str
    names: tuple[str, ...]
    path: tuple[str, ...]  # titles of the sections around it, outermost first
    page: int | None  # where it begins, in formats with pages
    parent: Range
    score: float  # higher is better; compares within one search
    lexical: float = 0.0  # BM25 of the query that found it best; 0: no common word
    dense: float | None = None  # cosine; None: vectors were not asked
    via: tuple[str, ...] = ()  # what of a structure led here, a model's words: untrusted
    dated: Dated | None = None  # when the document is from, by its own word or by the oldest of its files


@dataclass(frozen=True, slots=True)
class Found:
    """Hits, best first; `how` says how they were ranked, `notes` what was left out."""

    hits: tuple[Hit, ...]
    how: str
    notes: tuple[str, ...] = field(default=())


class Index(Protocol):
    """Every backend. The results of a search depend on what is in the index, not on how it came there."""

    async def add(self, documents: "Iterable[Document]", told: Told = lambda one: None) -> list[Added]:
        """Each under its path as a name. What is there already stays; a name with other contents is replaced; equal contents
        under several names are kept once. A document is added whole or not at all; `told` gets each as soon as it is."""

    async def remove(self, names: Iterable[str]) -> int:
        """Take names out, and whatever has no name any more, with all that was derived from it. How many there were."""

    async def search(self, queries: str | Sequence[str], k: int = 10, *, rerank: Scorer | None = None) -> Found:
        """The k best chunks. Of several queries a chunk's score is its best: ask in several ways, or in several languages."""

    async def documents(self) -> list[Listed]:
        """In the order of their names."""

    def parsed(self, sha256: str) -> Parsed | None:
        """The document that a citation names, as it is now; None where it is not there any more."""
