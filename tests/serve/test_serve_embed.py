"""Vectors and scores over HTTP: the official client, rerank and score in their usual shapes, Ollama's embed, every refusal."""

import base64
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from live_server import Live, eventually

from encoder_cases import write_encoder
from myna.chat import Chat
from myna.provider import Scripted
from myna.provider.local_embed import load_embedder
from myna.records import Embedding, Passage, RequestError, Scores, Unavailable, Vectors
from myna.serve.keys import Caller, Keys, hash_key


class Letters(Scripted):
    """Embeds a text as how often a, b and c are in it; scores a document by its length. Remembers what it was asked."""

    def __init__(self, name: str = "letters", error: Exception | None = None):
        super().__init__([], name=name)
        self.asked: list[Any] = []
        self.error, self.cancelled, self.hang = error, False, False

    async def embed(self, texts: Sequence[Passage], how: Embedding = Embedding()) -> Vectors:
        self.asked.append((tuple(texts), how))
        if self.hang:
            import asyncio

            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled = True
        if self.error:
            raise self.error
        rows = [[text.count(c) if isinstance(text, str) else len(text) for c in "abc"] for text in texts]
        return Vectors(np.array(rows, np.float32).reshape(-1, 3) / 7, 10 * len(texts))

    async def score(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> Scores:
        self.asked.append((query, tuple(documents), truncate))
        if self.error:
            raise self.error
        return Scores(tuple(float(len(document)) for document in documents), 5 * len(documents))


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def post(live: Callable[..., Live], letters: Letters) -> Callable[..., httpx.Response]:
    url = live(letters).url

    def send(path: str, **body: Any) -> httpx.Response:
        return httpx.post(url + path, json=body, trust_env=False)

    return send


@pytest.fixture
def client(live: Callable[..., Live], letters: Letters) -> Iterator[openai.OpenAI]:
    http = httpx.Client(trust_env=False)
    with openai.OpenAI(base_url=live(letters).url + "/v1", api_key="-", max_retries=0, http_client=http) as connection:
        yield connection


def test_the_official_client_reads_the_same_numbers_from_base64_and_from_floats(client: openai.OpenAI) -> None:
    """Without encoding_format the client asks for base64 and decodes it."""
    texts = ["aab", "世界c"]
    decoded = client.embeddings.create(model="letters", input=texts)
    floats = client.embeddings.create(model="letters", input=texts, encoding_format="float")
    raw = client.embeddings.create(model="letters", input=texts, encoding_format="base64")
    expected = (np.array([[2, 1, 0], [0, 0, 1]], np.float32) / 7).tolist()
    assert [row.embedding for row in decoded.data] == expected
    np.testing.assert_array_equal(np.float32([row.embedding for row in floats.data]), np.float32(expected))
    assert np.frombuffer(base64.b64decode(str(raw.data[1].embedding)), "<f4").tolist() == expected[1]
    assert [(row.index, row.object) for row in decoded.data] == [(0, "embedding"), (1, "embedding")]
    assert (decoded.model, decoded.object, decoded.usage.prompt_tokens, decoded.usage.total_tokens) == (
        "letters", "list", 20, 20,
    )  # fmt: skip


def test_texts_and_ids_alone_and_in_lists_arrive_as_they_are(client: openai.OpenAI, letters: Letters) -> None:
    for sent in ("a", ["a", "b"], [1, 2], [[1, 2], [3]]):
        client.embeddings.create(model="letters", input=sent)
    plain = Embedding()
    assert letters.asked == [
        (("a",), plain), (("a", "b"), plain), (((1, 2),), plain), (((1, 2), (3,)), plain),
    ]  # fmt: skip


def test_what_is_asked_reaches_the_embedder(client: openai.OpenAI, letters: Letters) -> None:
    client.embeddings.create(
        model="letters", input="a", dimensions=2, user="me", extra_body={"prompt_name": "query", "truncate": True}
    )
    client.embeddings.create(
        model="letters", input="a", extra_body={"input_type": "query", "truncate_prompt_tokens": -1}
    )
    assert letters.asked == [
        (("a",), Embedding(prompt="query", dimensions=2, truncate=True)),
        (("a",), Embedding(prompt="query", truncate=True)),
    ]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "missing_required_parameter"),
    ({"input": []}, "input", "invalid_value"),
    ({"input": ""}, "input", "invalid_value"),
    ({"input": ["a", ""]}, "input.1", "invalid_value"),
    ({"input": ["a", {"b": 1}]}, "input.1", "invalid_type"),
    ({"input": [[1, "a"]]}, "input.0", "invalid_type"),
    ({"input": [True]}, "input.0", "invalid_type"),
    ({"input": 5}, "input", "invalid_type"),
    ({"input": ["a"] * 2049}, "input", "invalid_value"),
    ({"input": "a", "dimensions": 0}, "dimensions", "invalid_type"),
    ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_type"),
    ({"input": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "unsupported_parameter"),
    ({"input": "a", "normalize": False}, "normalize", "unsupported_parameter"),
    ({"input": "a", "prompt_name": "query", "input_type": "document"}, "input_type", "invalid_value"),
]


@pytest.mark.parametrize(("body", "param", "code"), BAD, ids=lambda v: str(v)[:40])
def test_bad_requests_are_named(
    post: Callable[..., httpx.Response], body: dict[str, Any], param: str, code: str
) -> None:
    response = post("/v1/embeddings", model="letters", **body)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize(
    ("path", "body", "raised", "param"),
    [
        ("/v1/embeddings", {"input": "a"}, "input.0", "input"),
        ("/v1/embeddings", {"input": ["a", "b"]}, "input.1", "input.1"),
        ("/v1/rerank", {"query": "q", "documents": ["a", "b"]}, "documents.1", "documents.1"),
        ("/score", {"text_1": "q", "text_2": ["a", "b"]}, "query", "text_1"),
        ("/score", {"text_1": "q", "text_2": ["a", "b"]}, "documents.1", "text_2.1"),
        ("/score", {"text_1": ["p", "q"], "text_2": ["a", "b"]}, "documents.0", "text_2.0"),
        ("/v1/embeddings", {"input": "a", "dimensions": 5}, "dimensions", "dimensions"),
    ],
)
def test_what_the_model_complains_of_is_where_the_body_has_it(
    post: Callable[..., httpx.Response], letters: Letters, path: str, body: dict[str, Any], raised: str, param: str
) -> None:
    letters.error = RequestError(f"{raised} is too long", param=raised, code="context_length_exceeded")
    error = post(path, **body).json()["error"]
    assert error == {
        "message": f"{param} is too long", "type": "invalid_request_error", "param": param, "code": "context_length_exceeded",
    }  # fmt: skip


def test_too_much_waiting_is_a_429_and_an_unknown_field_is_named(
    post: Callable[..., httpx.Response], letters: Letters
) -> None:
    assert post("/v1/embeddings", input="a", colour="red").headers["x-ignored-params"] == "colour"
    letters.error = Unavailable("full", retry_after=7, code="queue_full")
    response = post("/v1/embeddings", input="a")
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_rerank_puts_the_best_first(post: Callable[..., httpx.Response], letters: Letters, path: str) -> None:
    documents = ["ab", {"text": "longest"}, "cd", "世界和平"]
    whole = post(path, model="letters", query="q", documents=documents).json()
    assert [(row["index"], row["relevance_score"]) for row in whole["results"]] == [(1, 7), (3, 4), (0, 2), (2, 2)]
    assert (whole["model"], whole["usage"]["total_tokens"]) == ("letters", 20)
    assert all("document" not in row for row in whole["results"])
    best = post(path, query="q", documents=documents, top_n=2, return_documents=True).json()["results"]
    assert best == [
        {"index": 1, "relevance_score": 7, "document": {"text": "longest"}},
        {"index": 3, "relevance_score": 4, "document": {"text": "世界和平"}},
    ]
    assert letters.asked[0] == ("q", ("ab", "longest", "cd", "世界和平"), False)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": "", "documents": ["a"]}, "query"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": ["a"] * 1025}, "documents"),
        ({"query": "q", "documents": ["a", 5]}, "documents.1"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "q", "documents": ["a"], "max_tokens_per_doc": 5}, "max_tokens_per_doc"),
    ],
)
def test_bad_reranks_are_named(post: Callable[..., httpx.Response], body: dict[str, Any], param: str) -> None:
    response = post("/v1/rerank", **body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_score_pairs_one_with_many_or_each_with_its_own(post: Callable[..., httpx.Response], letters: Letters) -> None:
    many = post("/score", model="letters", text_1="q", text_2=["a", "bb"], truncate=True).json()
    each = post("/v1/score", text_1=["p", "q"], text_2=["a", "bb"]).json()
    for reply in (many, each):
        assert [(row["index"], row["object"], row["score"]) for row in reply["data"]] == [
            (0, "score", 1),
            (1, "score", 2),
        ]
        assert (reply["object"], reply["usage"]["total_tokens"]) == ("list", 10)
    assert post("/score", text_1="q", text_2="abc").json()["data"][0]["score"] == 3
    assert letters.asked[:1] == [("q", ("a", "bb"), True)]
    assert sorted(letters.asked[1:3]) == [("p", ("a",), False), ("q", ("bb",), False)]
    assert post("/score", text_1=["p", "q"], text_2=["a"]).json()["error"]["param"] == "text_1"


def test_ollamas_endpoints_answer_in_their_shape(post: Callable[..., httpx.Response], letters: Letters) -> None:
    reply = post("/api/embed", model="letters", input=["a", "b"]).json()
    assert np.float32(reply["embeddings"]).tolist() == (np.float32([[1, 0, 0], [0, 1, 0]]) / 7).tolist()
    assert (reply["model"], reply["prompt_eval_count"], reply["load_duration"]) == ("letters", 20, 0)
    assert reply["total_duration"] > 0
    assert len(post("/api/embed", model="letters:latest", input="a").json()["embeddings"]) == 1
    assert post("/api/embed", model="letters", input=[]).json()["embeddings"] == []
    assert np.float32(post("/api/embeddings", model="letters:latest", prompt="c").json()["embedding"]) @ [
        0,
        0,
        7,
    ] == pytest.approx(1)
    assert post("/api/embeddings", model="letters", prompt="").json()["embedding"] == []
    assert [how.truncate for _, how in letters.asked] == [False] * 5
    post("/api/embed", model="letters", input="a", truncate=True, dimensions=2)
    assert letters.asked[-1][1] == Embedding(truncate=True, dimensions=2)
    refused = post("/api/embed", model="letters", input=[1])
    assert (refused.status_code, refused.json()["param"]) == (400, "input.0")


def test_a_model_that_cannot_is_refused_and_unnamed_it_is_the_one_that_can(live: Callable[..., Live]) -> None:
    url = live({"chat": Scripted([], name="chat"), "letters": Letters()}).url  # type: ignore[arg-type]
    assert httpx.post(url + "/v1/embeddings", json={"input": "a"}, trust_env=False).json()["model"] == "letters"
    for path, body, does in (
        ("/v1/embeddings", {"input": "a"}, "make embeddings"),
        ("/v1/rerank", {"query": "q", "documents": ["a"]}, "score documents"),
    ):
        response = httpx.post(url + path, json=body | {"model": "chat"}, trust_env=False)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_model")
        assert response.json()["error"]["message"] == f"chat does not {does}. Here that do: letters."
        gone = httpx.post(url + path, json=body | {"model": "none"}, trust_env=False)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")


class Encoder(Letters):
    capabilities = ("embeddings", "rerank")


def test_unnamed_the_model_is_the_only_one_that_can_do_what_is_asked(live: Callable[..., Live], smollm2: Path) -> None:
    chat = Scripted(cycle(["ok"]), name="chat", chat=Chat.load(smollm2))
    server = live({"chat": chat, "letters": Encoder()})  # type: ignore[arg-type]
    hi = {"messages": [{"role": "user", "content": "Hi"}]}
    for path, body in (
        ("/v1/chat/completions", hi), ("/v1/completions", {"prompt": "Hi"}), ("/v1/responses", {"input": "Hi"}),
        ("/v1/messages", hi | {"max_tokens": 5}),
    ):  # fmt: skip
        answer = httpx.post(server.url + path, json=body, trust_env=False)
        assert (answer.status_code, answer.json().get("model")) == (200, "chat"), (path, answer.text)
    for path, body in (("/v1/messages/count_tokens", hi), ("/apply-template", hi), ("/tokenize", hi)):
        assert httpx.post(server.url + path, json=body, trust_env=False).status_code == 200, path
    assert httpx.post(f"{server.url}/v1/embeddings", json={"input": "a"}, trust_env=False).json()["model"] == "letters"
    either = httpx.post(f"{server.url}/tokenize", json={"prompt": "a"}, trust_env=False)
    assert (either.status_code, either.json()["error"]["code"]) == (404, "model_not_found")


def test_embeddings_and_scores_are_in_the_books_and_charged_to_the_key(live: Callable[..., Live]) -> None:
    letters = Letters()
    keys = Keys([Caller("ann", hash_key("secret"), tokens_per_minute=25)])
    url = live(letters, keys=keys).url
    send = partial(httpx.post, trust_env=False, headers={"authorization": "Bearer secret"})
    assert send(url + "/v1/embeddings", json={"input": ["a", "b"]}).status_code == 200
    assert send(url + "/score", json={"text_1": "q", "text_2": ["a"]}).status_code == 200
    assert send(url + "/v1/embeddings", json={"input": ["a"]}).status_code == 200  # 10 + 10 + 5 + 10 tokens
    assert send(url + "/v1/embeddings", json={"input": "a"}).status_code == 429
    books = httpx.get(url + "/metrics", trust_env=False, headers={"authorization": "Bearer secret"}).text
    assert 'myna:prompt_tokens_total{model_name="letters"} 35.0' in books
    assert 'myna:request_success_total{finished_reason="stop",model_name="letters"} 3.0' in books


def test_a_client_that_hangs_up_cancels_the_work(live: Callable[..., Live], letters: Letters) -> None:
    letters.hang = True
    url = live(letters).url
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url + "/v1/embeddings", json={"input": "a"}, timeout=0.3, trust_env=False)
    eventually(lambda: letters.cancelled)


def test_a_real_encoder_behind_the_server(live: Callable[..., Live], tmp_path: Path) -> None:
    write_encoder(tmp_path, pooling="mean_tokens")
    model = load_embedder(str(tmp_path) + "/", name="tiny")
    try:
        url = live(model).url
        http = httpx.Client(trust_env=False)
        with openai.OpenAI(base_url=url + "/v1", api_key="-", max_retries=0, http_client=http) as client:
            texts = ["Hello world", "你好，世界！", "the fox"]
            rows = np.float32([row.embedding for row in client.embeddings.create(model="tiny", input=texts).data])
            alone = np.float32([client.embeddings.create(model="tiny", input=text).data[0].embedding for text in texts])
            np.testing.assert_allclose(rows, alone, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
            with pytest.raises(openai.BadRequestError, match="input has 200 tokens") as caught:
                client.embeddings.create(model="tiny", input="fox " * 200)
            assert (caught.value.param, caught.value.code) == ("input", "context_length_exceeded")
            with pytest.raises(openai.BadRequestError, match="answers nobody"):
                client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])
            spoken = httpx.post(url + "/tokenize", json={"prompt": texts[1]}, trust_env=False).json()
            assert spoken["tokens"] == [*model.passages.one(model.passages.encode(texts[1])).ids]
            bare = httpx.post(url + "/tokenize", json={"content": texts[1]}, trust_env=False).json()["tokens"]
            assert bare == spoken["tokens"][1:-1]
            for ids in (spoken["tokens"], bare):
                again = client.embeddings.create(model="tiny", input=ids)
                np.testing.assert_array_equal(np.float32(again.data[0].embedding), alone[1])
                assert again.usage.prompt_tokens == spoken["count"]
            said = httpx.post(url + "/detokenize", json={"tokens": bare}, trust_env=False).json()["prompt"]
            assert httpx.post(url + "/tokenize", json={"content": said}, trust_env=False).json()["tokens"] == bare
            for path in ("/tokenize", "/apply-template", "/v1/messages/count_tokens"):
                hi = {"messages": [{"role": "user", "content": "Hi"}]}
                answer = httpx.post(url + path, json=hi, trust_env=False)
                assert (answer.status_code, "encoder" in answer.text) == (400, True), path
            (listed,) = client.models.list().data
            assert listed.model_dump()["capabilities"] == ["embeddings", "rerank"]
        shown = httpx.post(url + "/api/show", json={"model": "tiny"}, trust_env=False).json()
        assert shown["capabilities"] == ["embedding"]
    finally:
        model.close()
