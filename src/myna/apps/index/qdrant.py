"""An index in Qdrant, for those who outgrow a file: the same methods, the same words, the same fitted weight.

    index = QdrantIndex("http://127.0.0.1:6333#manuals", embedder)       # $QDRANT_API_KEY, if the server wants one
    index = QdrantIndex("folder#manuals")                                # qdrant-client's own in-process mode; ":memory:#manuals"

Words are sparse vectors of our own: what BM25 makes of a word in its passage, under a hash of the word; Qdrant multiplies with how rare
the word is. The length of an average passage is a constant here (AVERAGE), because a server's real one changes with every
document, and what was stored before would be worth something else. Vectors are searched exactly unless `exact` is False.

Qdrant has no transactions over several points. So a document's chunks are written unseen, then made visible by one request, then the
document is listed; what is listed nowhere is never shown, and adding again finishes what was interrupted. Removing goes the other way.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from myna.apps.index import rows
from myna.apps.index.dates import Dated
from myna.apps.index.embed import embed_all
from myna.apps.index.file import TOGETHER, Question
from myna.apps.index.fusion import DIGITS, Fitted, Pool, fit, fuse, how
from myna.apps.index.index import DEPTH, RERANKED, Added, Found, Hit, Listed, Told
from myna.apps.index.parsed import Parsed
from myna.apps.index.points import Called, hit, number, of, passages, sparse, word
from myna.apps.index.rank import asked, combine, query_words, rescored
from myna.apps.index.reading import Document
from myna.apps.index.worker import from_json, to_json
from myna.provider import Embedder, Scorer
from myna.records import MynaError

if TYPE_CHECKING:
    import numpy as np
    from qdrant_client import QdrantClient

BATCH = 256  # points in one request
TIMEOUT = 60  # seconds that a request may take


class QdrantError(MynaError):
    """Qdrant cannot be reached, refuses, or holds what is none of ours."""


class QdrantIndex:
    """See Index. `where` is URL#COLLECTION, FOLDER#COLLECTION or :memory:#COLLECTION. Raises QdrantError."""

    def __init__(self, where: str, embedder: Embedder | None = None, *, exact: bool = True):
        self.where, self.embedder, self._exact = where, embedder, exact
        self._client, self._name = _connect(where)
        self._documents, self._vectors = f"{self._name}-documents", f"{self._name}-vectors"

    def close(self) -> None:
        self._client.close()

    async def add(self, documents: Iterable[Document], told: Told = lambda one: None) -> list[Added]:
        """See Index.add."""
        await self._run(self._begin)
        added: list[Added] = []
        for document in documents:
            added.append(await self._run(self._add, document))
            told(added[-1])
        if self.embedder:
            await self._embed_missing(self.embedder)
        return added

    async def remove(self, names: Iterable[str]) -> int:
        """See Index.remove."""
        return await self._run(self._remove, list(names))

    async def search(self, queries: str | Sequence[str], k: int = 10, *, rerank: Scorer | None = None) -> Found:
        """See Index.search."""
        given = asked(queries, k)
        await self._run(self._check_model)
        meant = await embed_all(self.embedder, given, "query") if self.embedder else None
        found = await self._run(self._search, given, meant, max(k, RERANKED) if rerank else k)
        return await rescored(rerank, given, found, k) if rerank else found

    async def documents(self) -> list[Listed]:
        """See Index.documents."""
        return await self._run(self._list)

    def parsed(self, sha256: str) -> Parsed | None:
        """The document that a citation names."""
        with self._said():
            record = self._record("document", sha256)
        return from_json(record["parsed"]) if record else None

    def fitted(self) -> Fitted | None:
        """How much vectors count, and how that was found; None before `tune`."""
        with self._said():
            known = self._record("fact", "fitted")
        return Fitted(**known["value"] | {"arms": tuple(known["value"]["arms"])}) if known else None

    async def tune(self, questions: Sequence[Question], asked: str = "given") -> Fitted:
        """Fit the weight of the vectors on questions, and keep it."""
        if not self.embedder:
            raise QdrantError(f"{self.where}: there is nothing to weigh without an embedder.")
        fitted = fit(await self.pools(questions), asked)
        await self._run(self._keep, "fact", "fitted", {"value": asdict(fitted)})
        return fitted

    async def pools(self, questions: Sequence[Question]) -> list[Pool]:
        """What words and vectors find for each question, and which chunks are right: for fitting and measuring."""
        await self._run(self._check_model)
        texts = [question for question, _ in questions]
        meant = await embed_all(self.embedder, texts, "query") if self.embedder and texts else None
        return await self._run(self._pools, questions, meant)

    # What runs in a thread.

    async def _run(self, work: Callable[..., Any], *given: Any) -> Any:
        with self._said():
            return await asyncio.to_thread(work, *given)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What the client raises, in words."""
        from qdrant_client.http.exceptions import ApiException

        try:
            yield
        except (ApiException, ValueError, RuntimeError, OSError) as problem:
            unreached = getattr(problem, "source", None)  # what the network said, where it is that
            said = " ".join(str(unreached or problem).split())[:500]
            if unreached:
                said = f"there is no answer: {said}. Start Qdrant there, or keep the index in a file: --index FILE."
            raise QdrantError(f"{self.where}: {said if unreached else f'Qdrant says: {said}'}") from None

    def _begin(self) -> None:
        """The collections, where there are none."""
        from qdrant_client import models

        self._check_model()
        have = {one.name for one in self._client.get_collections().collections}
        if self._name not in have:
            terms = {"words": models.SparseVectorParams(modifier=models.Modifier.IDF)}
            self._client.create_collection(self._name, vectors_config={}, sparse_vectors_config=terms)
            self._index_fields(self._name, "sha", "live")
        if self._documents not in have:
            self._client.create_collection(self._documents, vectors_config={})
            self._index_fields(self._documents, "kind", "sha")

    def _index_fields(self, collection: str, *fields: str) -> None:
        """So that a filter does not read every point. In-process Qdrant needs none."""
        from qdrant_client import models

        for field in fields if "://" in self.where else ():
            schema = models.PayloadSchemaType.BOOL if field == "live" else models.PayloadSchemaType.KEYWORD
            self._client.create_payload_index(collection, field, schema)

    def _add(self, document: Document) -> Added:
        name, sha = document.name, document.sha256
        before = self._record("name", name)
        known = self._record("document", sha)
        same = known is not None and known["digest"] == rows.digest(document.parsed)
        if not same:
            self._drop(sha)
            known = self._put(document)
        assert known
        if _date(known) != document.parsed.date:
            self._keep("document", sha, known | {"parsed": to_json(document.parsed)})
        self._keep("name", name, {"name": name, "sha": sha, "modified": document.modified})
        if before and before["sha"] != sha:
            self._drop_nameless(before["sha"])
        outcome = "new" if not before else "same" if same and before["sha"] == sha else "replaced"
        return Added(name, sha, outcome, known["chunks"])  # type: ignore[arg-type]

    def _put(self, document: Document) -> dict[str, Any]:
        from qdrant_client import models

        sha, parsed = document.sha256, document.parsed
        points = [
            models.PointStruct(id=number(sha, p["start"]), vector={"words": sparse(p)}, payload=p | {"live": False})
            for p in passages(document)
        ]
        for at in range(0, len(points), BATCH):
            self._client.upsert(self._name, points[at : at + BATCH], wait=True)
        self._client.set_payload(self._name, {"live": True}, points=of(sha=sha), wait=True)
        record = {
            "sha": sha, "digest": rows.digest(parsed), "title": parsed.title, "type": parsed.kind, "size": document.size,
            "characters": len(parsed.text), "chunks": len(points), "vectors": 0, "parsed": to_json(parsed),
        }  # fmt: skip
        self._keep("document", sha, record)
        return record

    def _remove(self, names: list[str]) -> int:
        removed = 0
        for name in names if self._client.collection_exists(self._documents) else ():
            if record := self._record("name", name):
                others = self._records("name", 2, sha=record["sha"])
                if len(others) == 1:
                    self._drop(record["sha"])
                self._client.delete(self._documents, [number("name", name)], wait=True)
                removed += 1
        if removed and not self._records("document", 1):
            self._client.delete(self._documents, of(kind="fact"), wait=True)  # may take another model
            if self._client.collection_exists(self._vectors):
                self._client.delete_collection(self._vectors)
        return removed

    def _drop_nameless(self, sha: str) -> None:
        if not self._records("name", 1, sha=sha):
            self._drop(sha)

    def _drop(self, sha: str) -> None:
        """The document and all that was derived from it but its names."""
        if self._client.collection_exists(self._vectors):
            self._client.delete(self._vectors, of(sha=sha), wait=True)
        self._client.delete(self._name, of(sha=sha), wait=True)
        self._client.delete(self._documents, [number("document", sha)], wait=True)

    async def _embed_missing(self, embedder: Embedder) -> None:
        for record in await self._run(lambda: self._records("document")):
            while record["vectors"] < record["chunks"]:
                todo = await self._run(self._without_vector, record["sha"])
                if not todo:
                    break
                made = await embed_all(embedder, [text for _, text in todo], "document")
                await self._run(self._keep_vectors, embedder.name, record["sha"], todo, made)
            await self._run(self._count_vectors, record["sha"])

    def _without_vector(self, sha: str) -> list[tuple[int, str]]:
        found = {point.id: point.payload["text"] for point in self._scroll(self._name, of(sha=sha))}
        if self._client.collection_exists(self._vectors):
            for point in self._scroll(self._vectors, of(sha=sha)):
                found.pop(point.id, None)
        return sorted(found.items())[:TOGETHER]

    def _keep_vectors(self, model: str, sha: str, todo: list[tuple[int, str]], made: "np.ndarray") -> None:
        from qdrant_client import models

        self._check_model()
        if not self._client.collection_exists(self._vectors):
            size = models.VectorParams(size=made.shape[1], distance=models.Distance.COSINE)
            self._client.create_collection(self._vectors, vectors_config=size)
            self._index_fields(self._vectors, "sha")
        self._keep("fact", "embedder", {"value": model})
        points = [models.PointStruct(id=point, vector=vector.tolist(), payload={"sha": sha}) for (point, _), vector in zip(todo, made, strict=True)]  # fmt: skip
        self._client.upsert(self._vectors, points, wait=True)

    def _count_vectors(self, sha: str) -> None:
        count = (
            self._client.count(self._vectors, count_filter=of(sha=sha)).count
            if self._client.collection_exists(self._vectors)
            else 0
        )
        self._client.set_payload(self._documents, {"vectors": count}, points=[number("document", sha)], wait=True)

    def _check_model(self) -> None:
        known = self._record("fact", "embedder") if self._client.collection_exists(self._documents) else None
        if self.embedder and known and known["value"] != self.embedder.name:
            raise QdrantError(
                f"{self.where} holds vectors of {known['value']}, which do not compare with those of {self.embedder.name}. "
                f"Use {known['value']}, or make another index."
            )

    def _search(self, given: Sequence[str], meant: "np.ndarray | None", k: int) -> Found:
        if not self._client.collection_exists(self._documents):
            return Found((), how(False, None))
        fitted = self.fitted()
        weight = fitted.weight if fitted else 0.0
        pools, notes = [], []
        for i, query in enumerate(given):
            pool, note = self._pool(query, None if meant is None else meant[i], max(k, DEPTH))
            pools.append(pool)
            notes += [note] if note else []
        scores = combine([fuse(pool, weight) for pool in pools])
        known = {point.id: point.payload for point in self._points(list(scores))}
        order = sorted(known, key=lambda one: (-scores[one], known[one]["sha"], known[one]["start"]))
        called: dict[str, Called] = {}
        hits: list[Hit] = []
        for one in order:
            sha = known[one]["sha"]
            if sha not in called:
                called[sha] = self._called(sha)
            if called[sha].names:  # else its document was never finished, or is going
                hits.append(hit(known[one], one, called[sha], scores[one], pools))
            if len(hits) == k:
                break
        return Found(tuple(hits), how(self.embedder is not None, fitted), tuple(dict.fromkeys(notes)))

    def _pool(self, query: str, meant: "np.ndarray | None", depth: int) -> tuple[Pool, str]:
        from qdrant_client import models

        asked_for, note = query_words(query)
        terms = models.SparseVector(indices=[word(one) for one in asked_for], values=[1.0] * len(asked_for))
        lexical = self._nearest(self._name, terms, depth, of(live=True), "words") if asked_for else {}
        if meant is None or not self._client.collection_exists(self._vectors):
            return Pool(lexical, {}), note
        dense = self._nearest(self._vectors, meant.tolist(), depth)
        if rest := [one for one in lexical if one not in dense]:
            dense |= self._nearest(
                self._vectors, meant.tolist(), len(rest), models.Filter(must=[models.HasIdCondition(has_id=list(rest))])
            )
        return Pool(lexical, dense), note

    def _nearest(
        self, collection: str, query: Any, depth: int, only: Any = None, using: str | None = None
    ) -> dict[int, float]:
        from qdrant_client import models

        params = models.SearchParams(exact=self._exact) if "://" in self.where else None  # in process it is exact
        answer = self._client.query_points(
            collection, query, using=using, query_filter=only, limit=depth, search_params=params, with_payload=False
        )
        return {int(point.id): round(point.score, DIGITS) for point in answer.points}

    def _pools(self, questions: Sequence[Question], meant: "np.ndarray | None") -> list[Pool]:
        pools = []
        for i, (question, name) in enumerate(questions):
            pool, _ = self._pool(question, None if meant is None else meant[i], DEPTH)
            record = self._record("name", name)
            right = self._scroll(self._name, of(sha=record["sha"])) if record else ()
            pools.append(replace(pool, right=frozenset(int(point.id) for point in right)))
        return pools

    def _list(self) -> list[Listed]:
        if not self._client.collection_exists(self._documents):
            return []
        about = {one["sha"]: one for one in self._records("document")}
        keys = ("title", "type", "size", "characters", "chunks", "vectors")
        listed = ((one["name"], one["sha"], _modified(one)) for one in self._records("name") if one["sha"] in about)
        return [
            replace(
                Listed(name, sha, *(about[sha][key] for key in keys)), dated=Dated.of(_date(about[sha]), (modified,))
            )
            for name, sha, modified in sorted(listed)
        ]

    def _called(self, sha: str) -> Called:
        """Without a name where the document is not there."""
        if not (document := self._record("document", sha)):
            return Called((), None)
        names = self._records("name", sha=sha)
        return Called(tuple(sorted(one["name"] for one in names)), Dated.of(_date(document), map(_modified, names)))

    # Points.

    def _keep(self, kind: str, name: str, payload: dict[str, Any]) -> None:
        from qdrant_client import models

        point = models.PointStruct(id=number(kind, name), vector={}, payload=payload | {"kind": kind})
        self._client.upsert(self._documents, [point], wait=True)

    def _record(self, kind: str, name: str) -> dict[str, Any] | None:
        found = self._client.retrieve(self._documents, [number(kind, name)])
        return found[0].payload if found else None

    def _records(self, kind: str, limit: int | None = None, **fields: str) -> list[dict[str, Any]]:
        return [point.payload for point in self._scroll(self._documents, of(kind=kind, **fields), limit)]

    def _points(self, ids: Sequence[int]) -> list[Any]:
        return self._client.retrieve(self._name, list(ids)) if ids else []

    def _scroll(self, collection: str, only: Any, limit: int | None = None) -> list[Any]:
        found: list[Any] = []
        after = None
        while True:
            some, after = self._client.scroll(collection, only, limit=limit or BATCH, offset=after)
            found += some
            if after is None or (limit and len(found) >= limit):
                return found


def _date(document: dict[str, Any]) -> str:
    """A document's own; "" in a record from before there were dates."""
    return str(document["parsed"].get("date", ""))


def _modified(name: dict[str, Any]) -> str:
    return str(name.get("modified", ""))


def _connect(where: str) -> "tuple[QdrantClient, str]":
    place, _, collection = where.rpartition("#")
    if not place or not collection:
        raise QdrantError(
            f"{where!r} names no collection: write URL#COLLECTION, such as http://127.0.0.1:6333#documents."
        )
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise QdrantError('An index in Qdrant needs its client: pip install "myna[qdrant]"') from None
    if "://" in place:
        key = os.environ.get("QDRANT_API_KEY")
        return QdrantClient(url=place, api_key=key, timeout=TIMEOUT, check_compatibility=False), collection
    if place == ":memory:":
        return QdrantClient(":memory:"), collection
    return QdrantClient(path=place, force_disable_check_same_thread=True), collection
