"""A reranker behind a URL: the /rerank of our server, vLLM, Jina and Cohere."""

from collections.abc import Sequence
from typing import Any

import orjson

from myna.provider.http import is_loopback, without_user
from myna.provider.wire.error import read_error
from myna.records import ProviderError, Scores

MOST = 8 << 20  # bytes of an answer


class HttpScorer:
    """See Scorer. `base_url` is such as "http://127.0.0.1:8000/v1". A chat model that our server has judges by its log-probabilities
    of Yes and No; a cross-encoder scores."""

    def __init__(
        self, base_url: str, model: str, api_key: str | None = None, *, timeout: float = 600.0, transport: Any = None
    ):
        self.name = model
        self.base_url, self._user = without_user(base_url.rstrip("/"))
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout, self._transport = timeout, transport

    async def score(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> Scores:
        """See Scorer.score. Raises ProviderError where the endpoint gives no score for each document."""
        import httpx

        if not documents:
            return Scores((), 0)
        url = f"{self.base_url}/rerank"
        body = {"model": self.name, "query": query, "documents": list(documents), "truncate": truncate}
        try:
            async with httpx.AsyncClient(
                headers=self._headers, timeout=httpx.Timeout(self._timeout, connect=10.0), transport=self._transport,
                auth=self._user, trust_env=not is_loopback(self.base_url),
            ) as client:  # fmt: skip
                answer = await client.post(
                    url, content=orjson.dumps(body), headers={"content-type": "application/json"}
                )
        except httpx.ConnectError as e:
            raise ProviderError(f"Cannot reach {url}: {e}. Is the server running?") from None
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise ProviderError(f"{url}: {e or type(e).__name__}") from None
        if answer.status_code != 200:
            raise read_error(answer.status_code, answer.headers, answer.content[:MOST], url)
        return _read(answer.content, len(documents), url)


def _read(content: bytes, count: int, url: str) -> Scores:
    try:
        value = orjson.loads(content[:MOST])
        scores = {int(one["index"]): float(one["relevance_score"]) for one in value["results"]}
        tokens = int((value.get("usage") or {}).get("total_tokens") or 0)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise ProviderError(f"{url} answered with what is no ranking: {content[:200]!r}") from None
    if scores.keys() != set(range(count)):
        raise ProviderError(f"{url} scored {len(scores)} of {count} documents.")
    return Scores(tuple(scores[i] for i in range(count)), tokens)
