"""Vectors and scores of encoders and decoders in this process: transformers' numbers, whatever the company."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from encoder_cases import CORPUS, write_encoder, write_tokenizer
from family_cases import oracle
from myna.kernels import library
from myna.provider.local_embed import CrossEncoder, EmbedLoading, LocalEmbedder, load_embedder
from myna.records import Embedding, ModelDirError, Passage, RequestError, Vectors

T = TypeVar("T")
TEXTS = [*CORPUS[:3], "a", "你好，世界！", "Hello [SEP] world", "the fox " * 12]
CLOSE = {"rtol": 1e-4, "atol": 3e-6}


def wait(work: Awaitable[T]) -> T:
    async def run() -> T:
        return await work

    return asyncio.run(run())


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`load(**loading)` of the model in tmp_path; closed with the test."""
    loaded: list[Any] = []

    def start(**loading: Any) -> LocalEmbedder | CrossEncoder:
        loaded.append(load_embedder(str(tmp_path) + "/", EmbedLoading(**loading)))
        return loaded[-1]

    yield start
    for model in loaded:
        model.close()


def embed(model: LocalEmbedder, texts: list[Passage], **how: Any) -> np.ndarray:
    return wait(model.embed(texts, Embedding(**how))).rows


def expected(model: torch.nn.Module, at: Path, text: str, how: str) -> np.ndarray:
    """transformers, alone and unpadded. A typed [SEP] is a control token there, and text here, so it is left out."""
    tokenizer = AutoTokenizer.from_pretrained(at)
    ids = tokenizer(text, return_tensors="pt", truncation=False, padding=False)
    with torch.inference_mode():
        rows = model(**ids).last_hidden_state[0]
    row = {"mean": rows.mean(0), "cls": rows[0], "last": rows[-1]}[how].numpy()
    return row / np.linalg.norm(row)


@pytest.mark.parametrize(("mode", "how"), [("mean_tokens", "mean"), ("cls_token", "cls"), ("lasttoken", "last")])
def test_vectors_are_those_of_transformers(tmp_path: Path, load: Callable[..., Any], mode: str, how: str) -> None:
    oracle_model = write_encoder(tmp_path, pooling=mode)
    model, texts = load(precision="float32"), [text for text in TEXTS if "SEP" not in text]
    for text, row in zip(texts, embed(model, texts), strict=True):
        np.testing.assert_allclose(row, expected(oracle_model, tmp_path, text, how), **CLOSE)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_vector_is_the_same_alone_in_company_and_in_any_order(
    tmp_path: Path, load: Callable[..., Any], precision: str
) -> None:
    write_encoder(tmp_path)
    model = load(precision=precision)
    together = embed(model, TEXTS)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    shuffled = embed(model, [TEXTS[i] for i in order])
    alone = np.concatenate([embed(model, [text]) for text in TEXTS])
    exact = precision == "int8" and library() is not None
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(together, alone, **tolerance)
    np.testing.assert_allclose(together[order], shuffled, **tolerance)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-6)


def test_many_requests_at_once_get_each_its_own(tmp_path: Path, load: Callable[..., Any]) -> None:
    write_encoder(tmp_path)
    model = load(precision="float32")
    requests = [[f"{text} {n}" for text in TEXTS[: 1 + n % 4]] for n in range(20)]

    async def ask() -> list[Vectors]:
        return await asyncio.gather(*(model.embed(texts) for texts in requests))

    for texts, found in zip(requests, wait(ask()), strict=True):
        np.testing.assert_allclose(found.rows, embed(model, texts), rtol=1e-4, atol=1e-5)


def test_token_ids_are_the_text_they_are(tmp_path: Path, load: Callable[..., Any]) -> None:
    write_encoder(tmp_path)
    model = load()
    ids = model._reader.passages.tokenizer.encode(TEXTS[0])
    np.testing.assert_array_equal(embed(model, [tuple(ids)]), embed(model, [TEXTS[0]]))
    framed = (*model.passages.one(ids).ids,)
    assert len(framed) == len(ids) + 2
    np.testing.assert_array_equal(embed(model, [framed]), embed(model, [TEXTS[0]]))
    assert not np.array_equal(embed(model, [framed[:-1]]), embed(model, [TEXTS[0]]))  # half a frame is text
    with pytest.raises(RequestError, match=r"input\.1: token 300 is outside the vocabulary of 300"):
        embed(model, ["a", (5, 300)])


@pytest.mark.parametrize("nothing", ["", (), "frame"])
def test_nothing_has_no_vector(tmp_path: Path, load: Callable[..., Any], nothing: Passage) -> None:
    write_encoder(tmp_path)
    model = load()
    with pytest.raises(RequestError, match=r"input\.1 is empty"):
        embed(model, ["a", model.passages.one(()).ids if nothing == "frame" else nothing])


def test_what_is_too_long_is_an_error_with_the_numbers_or_cut_if_asked(
    tmp_path: Path, load: Callable[..., Any]
) -> None:
    write_encoder(tmp_path, pooling="mean_tokens", sentence_bert_config={"max_seq_length": 10})
    model = load()
    assert model.max_len == 10
    long = "the quick brown fox jumps over the lazy dog and the fox"
    count = len(model._reader.passages.tokenizer.encode(long))
    with pytest.raises(RequestError, match=rf"input\.1 has {count} tokens; .* has room for 8 tokens") as caught:
        embed(model, ["a", long])
    assert (caught.value.param, caught.value.code) == ("input.1", "context_length_exceeded")
    ids = tuple(model._reader.passages.tokenizer.encode(long))
    np.testing.assert_array_equal(embed(model, [long], truncate=True), embed(model, [ids[:8]]))
    with pytest.raises(RequestError, match=r"input\.0 has 1000000 characters"):
        embed(model, ["x" * 1_000_000])
    assert embed(model, ["x " * 1_000_000], truncate=True).shape == (1, 48)
    assert load(max_len=30).max_len == 30
    with pytest.raises(ModelDirError, match="max_len is 61"):
        load(max_len=61)


def test_dimensions_are_cut_only_where_the_model_says_so(tmp_path: Path, load: Callable[..., Any]) -> None:
    write_encoder(tmp_path, config={"matryoshka_dimensions": [8, 16]})
    model = load()
    whole, cut = embed(model, TEXTS), embed(model, TEXTS, dimensions=16)
    np.testing.assert_allclose(cut, whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(embed(model, TEXTS, dimensions=48), whole)
    for size in (7, 49):
        with pytest.raises(RequestError, match=rf"dimensions is {size}; .* makes 8, 16, 48") as caught:
            embed(model, ["a"], dimensions=size)
        assert caught.value.param == "dimensions"


def test_prompts_go_before_texts(tmp_path: Path, load: Callable[..., Any]) -> None:
    texts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    write_encoder(tmp_path, pooling="mean_tokens", config_sentence_transformers=texts)
    model = load(precision="float32")
    for name, prefix in (("query", "query: "), ("passage", "passage: "), ("document", "passage: ")):
        np.testing.assert_array_equal(embed(model, ["fox"], prompt=name), embed(model, [prefix + "fox"]))
    with pytest.raises(RequestError, match="no prompt 'nonsense'; it has: query, passage"):
        embed(model, ["fox"], prompt="nonsense")
    scores = wait(model.score("fox", ["dog", "世界"]))
    query, *documents = embed(model, ["query: fox", "passage: dog", "passage: 世界"])
    np.testing.assert_allclose(scores.values, [query @ row for row in documents], rtol=1e-5)
    np.testing.assert_array_equal(scores.values, wait(model.score("fox", ["世界", "dog"])).values[::-1])


@pytest.mark.parametrize("case", ["bert that scores", "roberta that scores"])
def test_a_cross_encoder_scores_as_transformers_does(tmp_path: Path, load: Callable[..., Any], case: str) -> None:
    """RoBERTa here reads with one token type, so its tokenizer's second one is refused."""
    oracle_model = write_encoder(tmp_path, case)
    if case.startswith("roberta"):
        with pytest.raises(ModelDirError, match=r"uses 2 token types, config\.json has 1"):
            load()
        return
    model, tokenizer = load(precision="float32"), AutoTokenizer.from_pretrained(tmp_path)
    documents = ["Paris", "the lazy dog 世界", "a"]
    found = wait(model.score("capital of France?", documents))
    for document, value in zip(documents, found.values, strict=True):
        ids = tokenizer("capital of France?", document, return_tensors="pt", truncation=False, padding=False)
        with torch.inference_mode():
            assert value == pytest.approx(float(oracle_model(**ids).logits.sigmoid()[0, 0]), rel=1e-5)
    assert found.values == pytest.approx(
        wait(model.score("capital of France?", documents[::-1])).values[::-1], rel=1e-6
    )
    for query, document, param in (("fox " * 70, "a", "query"), ("fox", "dog " * 70, "documents.0")):
        with pytest.raises(RequestError, match="has room for") as caught:
            wait(model.score(query, [document]))
        assert caught.value.param == param
    assert wait(model.score("fox", ["dog " * 70], truncate=True)).tokens == model.max_len
    with pytest.raises(RequestError, match="query has"):
        wait(model.score("fox " * 70, ["a"], truncate=True))


def test_a_classifier_of_several_classes_is_no_cross_encoder(tmp_path: Path, load: Callable[..., Any]) -> None:
    write_encoder(tmp_path, "bert that classifies")
    with pytest.raises(ModelDirError, match="classifier of 3 classes"):
        load()


def test_an_encoder_answers_nobody(tmp_path: Path, load: Callable[..., Any]) -> None:
    from myna.provider import complete
    from myna.records import Conversation

    write_encoder(tmp_path)
    with pytest.raises(RequestError, match="is an encoder: it makes embeddings and rerank, and answers nobody"):
        wait(complete(load(), Conversation.ask("Hi")))


@pytest.mark.parametrize("case", ["qwen2", "gemma2", "gpt2"])
def test_a_decoder_embeds_by_its_last_token(
    tmp_path: Path, load: Callable[..., Any], case: str, monkeypatch: Any
) -> None:
    """Short texts go together, long ones in chunks; windows, caps and learned positions included."""
    oracle(case, tmp_path)
    write_tokenizer(tmp_path)
    model, base = load(precision="float32"), AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    monkeypatch.setattr("myna.model.pool.CHUNK", 13)
    torch.manual_seed(0)
    rows = [tuple(torch.randint(5, 97, (n,)).tolist()) for n in (3, 30, 9, 11, 2, 62)]
    framed = [(2, *ids, 3) for ids in rows[:-1]]
    for ids, row in zip(framed, embed(model, [*rows[:-1]]), strict=True):
        with torch.inference_mode():
            last = base(torch.tensor([ids])).last_hidden_state[0, -1].numpy()
        np.testing.assert_allclose(row, last / np.linalg.norm(last), rtol=1e-4, atol=2e-5)


def test_minilm_is_transformers_and_finds_what_is_alike(minilm: Path) -> None:
    model, base = load_embedder(str(minilm)), AutoModel.from_pretrained(minilm).eval()
    texts = ["How do I bake bread?", "Baking a loaf at home", "The stock market fell today", "今天天气很好"]
    try:
        rows = embed(model, texts)
        for text, row in zip(texts, rows, strict=True):
            np.testing.assert_allclose(row, expected(base, minilm, text, "mean"), rtol=1e-3, atol=2e-6)
        assert rows[0] @ rows[1] > 0.5 > 0.2 > rows[0] @ rows[2]
        assert (model.max_len, model.pooling.how) == (256, "mean")
    finally:
        model.close()
