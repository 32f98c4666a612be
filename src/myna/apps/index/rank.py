"""From what each query found to one list: several queries, a reranker. The same for every backend."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from myna.apps.index.index import Found
from myna.apps.index.words import words
from myna.provider import Scorer
from myna.records import RequestError

MOST_QUERIES = 32
MOST_WORDS = 400  # different ones of a query: a question has 30


def asked(queries: str | Sequence[str], k: int) -> tuple[str, ...]:
    """The queries, each once. Raises RequestError where there is none, or too many, or `k` is below 1."""
    if k < 1:
        raise RequestError(f"a search is for at least one hit, not {k}.", param="k")
    given = (queries,) if isinstance(queries, str) else tuple(queries)
    kept = tuple(dict.fromkeys(query for query in given if query.strip()))
    if not kept:
        raise RequestError("there is nothing to search for: the query is empty.", param="query", code="empty_query")
    if len(kept) > MOST_QUERIES:
        raise RequestError(f"{len(kept)} queries at once; {MOST_QUERIES} is the most.", param="query")
    return kept


def query_words(query: str) -> tuple[list[str], str]:
    """The different words of a query, and what is to be said where there are too many."""
    found = list(dict.fromkeys(words(query)))
    if len(found) <= MOST_WORDS:
        return found, ""
    return found[:MOST_WORDS], f"a query has {len(found)} different words; its first {MOST_WORDS} were searched for"


def any_of(words: Iterable[str]) -> str:
    """FTS5's query for rows with any of these words of ours, none of which holds a quote."""
    return " OR ".join(f'"{word}"' for word in words)


def combine(each: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Of what each query found, chunk -> its best score; a chunk that several find wins a tie by 1e-3 of their mean."""
    if len(each) == 1:
        return dict(each[0])
    chunks = sorted({chunk for scores in each for chunk in scores})
    return {one: _best([scores.get(one, 0.0) for scores in each]) for one in chunks}


def _best(scores: Sequence[float]) -> float:
    return round(max(scores) + 1e-3 * sum(scores) / len(scores), 6)


async def rescored(scorer: Scorer, queries: Sequence[str], found: Found, k: int) -> Found:
    """The k best of what was found, as a reranker orders them."""
    texts = {i: hit.text for i, hit in enumerate(found.hits)}
    order = (await reranked(scorer, queries, texts))[:k]
    hits = tuple(replace(found.hits[i], score=score) for i, score in order)
    return Found(hits, f"{found.how}; the best {len(texts)} ordered by {scorer.name}", found.notes)


async def reranked(scorer: Scorer, queries: Sequence[str], texts: Mapping[int, str]) -> list[tuple[int, float]]:
    """Chunks by their best score of any query, best first; of equal ones the earlier stays first. Texts that the scorer has no
    room for are scored by their beginnings."""
    chunks, best = list(texts), dict.fromkeys(texts, float("-inf"))
    for query in queries if chunks else ():
        scores = await scorer.score(query, list(texts.values()), truncate=True)
        for chunk, value in zip(chunks, scores.values, strict=True):
            best[chunk] = max(best[chunk], value)
    return sorted(best.items(), key=lambda item: -item[1])
