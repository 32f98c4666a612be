"""Embeddings, reranking and scores on the wire: OpenAI's embeddings, the rerank of Jina and Cohere, vLLM's score, Ollama's embed.

Writing vectors takes milliseconds each thousand, so writers may run on a thread: what they give holds JSON that is written.
"""

import base64
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from myna.provider.wire.body import read_body, shown, unsupported
from myna.provider.wire.ollama import plain_name
from myna.records import Embedding, Json, Passage, RequestError, Scores, Vectors

MAX_INPUTS = 2048  # OpenAI's limit
MAX_DOCUMENTS = 1024
# Fields of other servers that would change the answer, with the values that ask for nothing.
REFUSED: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (True,),
    "chat_template": (),
    "embedding_types": (["float"],),
    "late_chunking": (False,),
    "max_tokens_per_doc": (),
    "max_chunks_per_doc": (),
    "messages": ([],),
    "normalize": (True,),
    "normalized": (True,),
    "rank_fields": (["text"],),
    "task": (),
    "truncate_dim": (),
}


@dataclass(frozen=True, slots=True)
class EmbedAsk:
    """What a request wants embedded. `alone` is the field of a text that is not in a list."""

    texts: tuple[Passage, ...]
    how: Embedding
    model: str | None = None
    base64: bool = False
    ignored: tuple[str, ...] = ()
    alone: str = ""

    def param(self, name: str) -> str:
        """What an embedder calls "input.0" and the like, as this body has it."""
        return self.alone or name


@dataclass(frozen=True, slots=True)
class RankAsk:
    """Documents to be put in order. Of `top_n` None, all are answered."""

    query: str
    documents: tuple[str, ...]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    truncate: bool = False
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoreAsk:
    """Pairs to be scored: each of the queries with the documents beside it."""

    queries: tuple[tuple[str, tuple[str, ...]], ...]
    model: str | None = None
    truncate: bool = False
    ignored: tuple[str, ...] = ()

    def param(self, number: int, name: str) -> str:
        """What a scorer calls "query" or "documents.3" in query `number`, as this body has it."""
        if name == "query":
            return "text_1" if len(self.queries) == 1 else f"text_1.{number}"
        return f"text_2.{number}" if len(self.queries) > 1 else name.replace("documents", "text_2")


class Shared(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = None
    truncate: bool | None = None
    truncate_prompt_tokens: int | None = None
    user: str | None = None


class EmbeddingsBody(Shared):
    input: Any
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    prompt_name: str | None = None
    input_type: str | None = None


class RerankBody(Shared):
    query: str
    documents: list[Any]
    top_n: int | None = Field(None, ge=1)
    return_documents: bool | None = None


class ScoreBody(Shared):
    text_1: str | list[str]
    text_2: str | list[str]


OllamaName = Annotated[str, AfterValidator(plain_name)]


class OllamaEmbedBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    model: OllamaName | None = None
    input: Any
    truncate: bool | None = None
    dimensions: int | None = Field(None, ge=1)


class OllamaEmbeddingsBody(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    model: OllamaName | None = None
    prompt: str


def read_embeddings(raw: bytes) -> EmbedAsk:
    """POST /v1/embeddings. Raises RequestError whose `param` is the dotted path of the field at fault."""
    _, body, ignored = read_body(raw, EmbeddingsBody, REFUSED)
    if body.prompt_name and body.input_type and body.prompt_name != body.input_type:
        raise RequestError("prompt_name and input_type disagree; send one.", param="input_type")
    how = Embedding(prompt=body.prompt_name or body.input_type, dimensions=body.dimensions, truncate=_truncate(body))
    texts, alone = _read_inputs(body.input)
    return EmbedAsk(texts, how, body.model, body.encoding_format == "base64", ignored, alone)


def write_embeddings(ask: EmbedAsk, name: str, found: Vectors) -> Json:
    rows = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(_numbers(ask, found))]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return {"object": "list", "data": rows, "model": name, "usage": usage}


def read_rerank(raw: bytes) -> RankAsk:
    """POST /v1/rerank: a query, and documents that are texts or objects with a text."""
    _, body, ignored = read_body(raw, RerankBody, REFUSED)
    documents = tuple(_read_document(value, f"documents.{i}") for i, value in enumerate(body.documents))
    _check_count(len(documents), MAX_DOCUMENTS, "documents")
    if not body.query:
        raise RequestError("query is empty.", param="query")
    return RankAsk(body.query, documents, body.model, body.top_n, bool(body.return_documents), _truncate(body), ignored)


def write_rerank(ask: RankAsk, name: str, found: Scores) -> Json:
    """The best documents first; of equal ones the earlier."""
    order = sorted(range(len(found.values)), key=lambda i: -found.values[i])[: ask.top_n]
    results: list[Json] = [{"index": i, "relevance_score": found.values[i]} for i in order]
    if ask.return_documents:
        results = [row | {"document": {"text": ask.documents[row["index"]]}} for row in results]
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return {"id": f"rerank-{uuid.uuid4().hex}", "model": name, "results": results, "usage": usage}


def read_score(raw: bytes) -> ScoreAsk:
    """POST /score: one text beside several, or as many as there are on the other side."""
    _, body, ignored = read_body(raw, ScoreBody, REFUSED)
    first, second = (_texts(body.text_1, "text_1"), _texts(body.text_2, "text_2"))
    if len(first) not in (1, len(second)):
        raise RequestError(
            f"text_1 has {len(first)} texts and text_2 {len(second)}; give text_1 one, or as many as text_2.",
            param="text_1",
        )
    alone = [(first[0], second)] if len(first) == 1 else [(a, (b,)) for a, b in zip(first, second, strict=True)]
    return ScoreAsk(tuple(alone), body.model, _truncate(body), ignored)


def write_score(name: str, created: int, found: Sequence[Scores]) -> Json:
    values = [value for scores in found for value in scores.values]
    tokens = sum(scores.tokens for scores in found)
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": created,
        "model": name,
        "data": [{"index": i, "object": "score", "score": value} for i, value in enumerate(values)],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def read_ollama_embed(raw: bytes) -> EmbedAsk:
    """POST /api/embed. Ollama cuts long texts unless told not to; we cut them only when told to."""
    _, body, ignored = read_body(raw, OllamaEmbedBody, {})
    if body.input == [] or body.input == "":  # as Ollama answers, a client's way to load a model
        return EmbedAsk((), Embedding(), body.model, ignored=ignored)
    how = Embedding(dimensions=body.dimensions, truncate=bool(body.truncate))
    texts, alone = _read_inputs(body.input, ids=False)
    return EmbedAsk(texts, how, body.model, ignored=ignored, alone=alone)


def write_ollama_embed(ask: EmbedAsk, name: str, found: Vectors, nanoseconds: int) -> Json:
    return {
        "model": name,
        "embeddings": _numbers(ask, found),
        "total_duration": nanoseconds,
        "load_duration": 0,
        "prompt_eval_count": found.tokens,
    }


def read_ollama_embeddings(raw: bytes) -> EmbedAsk:
    """POST /api/embeddings, Ollama's first: one text."""
    _, body, ignored = read_body(raw, OllamaEmbeddingsBody, {})
    texts = (body.prompt,) if body.prompt else ()
    return EmbedAsk(texts, Embedding(), body.model, ignored=ignored, alone="prompt")


def write_ollama_embeddings(ask: EmbedAsk, found: Vectors) -> Json:
    return {"embedding": next(iter(_numbers(ask, found)), [])}


def _numbers(ask: EmbedAsk, found: Vectors) -> list[Any]:
    """Each row as OpenAI writes it: its numbers, or their 32-bit little-endian bytes in base64."""
    rows = found.rows.astype("<f4", copy=False)
    if ask.base64:
        return [base64.b64encode(row.tobytes()).decode() for row in rows]
    return [orjson.Fragment(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in rows]


def _truncate(body: Shared) -> bool:
    """`truncate`, or -1 in vLLM's spelling: to what the model holds."""
    if body.truncate_prompt_tokens not in (None, -1):
        raise unsupported("truncate_prompt_tokens", body.truncate_prompt_tokens, "only -1, what the model holds, is")
    return bool(body.truncate) or body.truncate_prompt_tokens == -1


def _read_inputs(value: object, *, ids: bool = True) -> tuple[tuple[Passage, ...], str]:
    """A text, token ids, or a list of either; and the field's name where it is no list."""
    several = isinstance(value, list) and not (ids and value and all(type(item) is int for item in value))
    rows: list[Any] = value if isinstance(value, list) and several else [value]
    _check_count(len(rows), MAX_INPUTS, "input")
    texts = (_read_input(row, f"input.{i}" if several else "input", ids) for i, row in enumerate(rows))
    return tuple(texts), "" if several else "input"


def _read_input(value: object, path: str, ids: bool) -> Passage:
    if isinstance(value, str):
        if not value:
            raise RequestError(f"{path} is an empty text, which says nothing to embed.", param=path)
        return value
    if ids and isinstance(value, list) and value and all(type(id) is int for id in value):
        return tuple(value)
    wanted = "a text or a list of token ids" if ids else "a text"
    raise RequestError(f"{path}: expected {wanted}; found {shown(value)}.", param=path, code="invalid_type")


def _read_document(value: object, path: str) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise RequestError(
            f"{path}: expected a text, or an object with a text; found {shown(value)}.", param=path, code="invalid_type"
        )
    return text


def _texts(value: str | list[str], path: str) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value)
    _check_count(len(texts), MAX_DOCUMENTS, path)
    return texts


def _check_count(count: int, most: int, path: str) -> None:
    if not 1 <= count <= most:
        raise RequestError(f"{path} has {count} entries; it may have 1 to {most}.", param=path)
