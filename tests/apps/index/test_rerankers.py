"""The rerankers there are, over an index: a cross-encoder, a chat model asked for yes or no, and one behind a URL."""

import asyncio
import math
from pathlib import Path

import httpx
import orjson
import pytest
from test_file_index import QUERIES, TEXTS, filled

from encoder_cases import encoder_oracle, write_tokenizer
from myna.provider.http_score import HttpScorer
from myna.provider.local_embed import CrossEncoder, load_embedder
from myna.records import ProviderError, RequestError


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoder:
    at = tmp_path_factory.mktemp("cross")
    encoder_oracle("bert that scores", at)
    write_tokenizer(at)
    found = load_embedder(str(at))
    assert isinstance(found, CrossEncoder)
    return found


def test_a_cross_encoder_orders_what_the_index_finds_as_it_scores_it(tmp_path: Path, cross: CrossEncoder) -> None:
    index = filled(tmp_path / "i")
    plain = asyncio.run(index.search("old bridge cats 猫", 20))
    found = asyncio.run(index.search("old bridge cats 猫", 20, rerank=cross))
    scores = asyncio.run(cross.score("old bridge cats 猫", [hit.text for hit in plain.hits], truncate=True)).values
    expected = sorted(zip(scores, (hit.sha256 for hit in plain.hits), strict=True), reverse=True)
    assert [(hit.score, hit.sha256) for hit in found.hits] == expected
    assert cross.name in found.how


def answering(value: object, status: int = 200) -> HttpScorer:
    def answer(request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content)
        asked.append((request.url.path, request.headers.get("authorization"), body))
        given = value(body) if callable(value) else value
        return httpx.Response(status, content=given if isinstance(given, bytes) else orjson.dumps(given))

    asked: list[tuple[str, str | None, dict]] = []
    scorer = HttpScorer("http://127.0.0.1:1/v1/", "judge", "key", transport=httpx.MockTransport(answer))
    scorer.asked = asked  # type: ignore[attr-defined]
    return scorer


def by_length(body: dict) -> dict:
    ranked = sorted(enumerate(body["documents"]), key=lambda pair: len(pair[1]))
    return {
        "results": [{"index": i, "relevance_score": -len(text)} for i, text in ranked],
        "usage": {"total_tokens": 7},
    }


def test_a_reranker_behind_a_url_is_asked_once_a_query_and_orders_the_hits(tmp_path: Path) -> None:
    scorer = answering(by_length)
    hits = asyncio.run(filled(tmp_path / "i").search(QUERIES[:2], 3, rerank=scorer)).hits
    assert [len(hit.text) for hit in hits] == sorted(len(hit.text) for hit in hits)
    asked = scorer.asked  # type: ignore[attr-defined]
    assert [(path, key, body["model"], body["query"]) for path, key, body in asked] == [
        ("/v1/rerank", "Bearer key", "judge", query) for query in QUERIES[:2]
    ]
    assert all(body["truncate"] is True for *_, body in asked)


@pytest.mark.parametrize(
    "value",
    [b"<html>", {}, [], {"results": 3}, {"results": [{"index": "x", "relevance_score": 1}]}, {"results": [{"index": 0, "relevance_score": 1}]},
     {"results": [{"index": n, "relevance_score": 1} for n in range(9)]}, {"results": [{"index": 0}, {"index": 1}]}],
)  # fmt: skip
def test_an_answer_that_is_no_ranking_of_all_documents_is_an_error(value: object) -> None:
    with pytest.raises(ProviderError, match=r"no ranking|scored"):
        asyncio.run(answering(value).score("q", ["a", "b"]))


def test_refusals_and_silence_of_an_endpoint_are_said() -> None:
    refused = {
        "error": {"message": "too many documents", "type": "invalid_request_error", "param": "documents", "code": None}
    }
    with pytest.raises(RequestError, match="too many"):
        asyncio.run(answering(refused, 400).score("q", ["a"]))
    with pytest.raises(ProviderError, match="Cannot reach"):
        asyncio.run(HttpScorer("http://127.0.0.1:9/v1", "judge").score("q", ["a"]))
    assert asyncio.run(HttpScorer("http://127.0.0.1:9/v1", "judge").score("q", [])).values == ()


@pytest.mark.slow
def test_a_chat_model_asked_for_yes_or_no_puts_the_answer_first(tmp_path: Path, qwen_coder: Path) -> None:
    from myna.provider import local

    judge = local.load(str(qwen_coder))
    try:
        index = filled(tmp_path / "i")
        for query, name in (("When was the bridge built?", "bridge.txt"), ("猫白天做什么？", "猫.md")):
            found = asyncio.run(index.search([query, *QUERIES], 5, rerank=judge))
            assert all(math.isfinite(hit.score) and 0 <= hit.score <= 1 for hit in found.hits)
            assert name in {hit.names[0] for hit in found.hits}
    finally:
        judge.close()
    assert TEXTS


def test_a_password_in_the_address_is_sent_and_never_said() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Basic YW5uOnNlY3JldA=="
        return httpx.Response(500, json={"error": {"message": "broke"}})

    scorer = HttpScorer("http://ann:secret@127.0.0.1:1/v1", "judge", transport=httpx.MockTransport(answer))
    with pytest.raises(ProviderError) as caught:
        asyncio.run(scorer.score("q", ["a"]))
    assert "secret" not in f"{caught.value} {scorer.base_url}"
