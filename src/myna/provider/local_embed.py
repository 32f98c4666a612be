"""Encoders in this process: vectors of texts, and scores of pairs. torch is imported when a model is loaded, not before.

A decoder embeds too (`embedder_of`): the last token of a text has seen all of it.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from myna.chat import Passages, Tokenizer
from myna.chat.passages import Framed
from myna.modeldir import ModelDir, Pooling, find, read_pooling
from myna.provider.batches import Batches
from myna.provider.room import LONGEST_TOKEN, check_memory
from myna.records import (
    ChatError,
    Conversation,
    Delta,
    Document,
    Embedding,
    ModelDirError,
    Passage,
    RequestError,
    Sampling,
    Scores,
    Vectors,
)

if TYPE_CHECKING:
    from myna.model import Decoder, Encoder, Estimate

Compute = Callable[[list[Framed]], Sequence[Any]]
# What models call their prompts for what is asked and for what is searched.
QUERY, DOCUMENT = ("query", "search_query"), ("document", "passage", "search_document")

# Tokens computed at once. 512 made MiniLM a tenth slower in float32, and no slower in int8 (docs/log.md).
BUDGET = 2048
MAX_QUEUED = 1 << 20  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedLoading:
    """How to load a model that embeds or scores.

    Attributes
    ----------
    precision
        What weights become in memory: auto follows the disk; int8 is a quarter of float32's size, at a loss that docs/embeddings.md states.
    max_len
        Most tokens of a text. Unset is what the model's makers reckon with.
    pooling
        How rows become one vector: the mean of all, the first (cls) or the last. Unset is what the model's files say.
    """

    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    max_len: int | None = None
    pooling: Literal["mean", "cls", "last"] | None = None


class Reader:
    """Texts into framed ids of at most `max_len` tokens, or a RequestError that says which is too long and by how much."""

    def __init__(self, passages: Passages, *, name: str, max_len: int, vocab: int):
        self.passages, self.name, self.max_len, self.vocab = passages, name, max_len, vocab

    def one(self, text: Passage, prompt: str, truncate: bool, param: str) -> Framed:
        ids = self._ids(text, prompt, truncate, param)
        room = self.max_len - self.passages.overhead()
        if len(ids) > room and not truncate:
            raise self._too_long(f"{len(ids)} tokens", room, param)
        framed = self.passages.one(ids[:room])
        if not (text if isinstance(text, str) else ids) or not framed.ids:  # in a frame, blanks alone are a text
            raise RequestError(f"{param} is empty: there is no token to embed.", param=param)
        return framed

    def two(self, query: str, document: str, truncate: bool, params: tuple[str, str]) -> Framed:
        """A query, which is never cut, and a document, which is if asked."""
        first, second = (
            self._ids(text, "", cut, param)
            for text, cut, param in zip((query, document), (False, truncate), params, strict=True)
        )
        room = self.max_len - self.passages.overhead(pair=True) - len(first)
        if room < 1:
            raise self._too_long(
                f"{len(first)} tokens", self.max_len - self.passages.overhead(pair=True) - 1, params[0]
            )
        if len(second) > room and not truncate:
            raise self._too_long(f"{len(second)} tokens beside a query of {len(first)}", room, params[1])
        return self.passages.two(first, second[:room])

    def _ids(self, text: Passage, prompt: str, truncate: bool, param: str) -> Sequence[int]:
        """Never tokenizes what no tokenizer could make fit."""
        if not isinstance(text, str):
            return self._checked(text, prompt, param)
        most = self.max_len * LONGEST_TOKEN
        if len(text) > most and not truncate:
            raise self._too_long(f"{len(text)} characters", self.max_len, param)
        text = prompt + text[:most]
        try:
            return self.passages.encode(text)
        except ChatError as e:
            raise RequestError(f"{param}: {e}", param=param) from None

    def _checked(self, ids: tuple[int, ...], prompt: str, param: str) -> Sequence[int]:
        if (outside := next((id for id in ids if not 0 <= id < self.vocab), None)) is not None:
            raise RequestError(f"{param}: token {outside} is outside the vocabulary of {self.vocab}.", param=param)
        if prompt:
            raise RequestError(f"{param}: a prompt goes before texts, and this is token ids.", param=param)
        return self.passages.bare(ids)

    def _too_long(self, found: str, room: int, param: str) -> RequestError:
        return RequestError(
            f"{param} has {found}; {self.name} has room for {room} tokens. Shorten it, or ask to have it cut: truncate=true.",
            param=param,
            code="context_length_exceeded",
        )


class _Encoding:
    """What both kinds have: a name, limits, and no answers in words."""

    capabilities: tuple[str, ...] = ()

    def __init__(self, reader: Reader, compute: Compute, details: dict[str, Any]):
        self.name, self.max_len, self.details = reader.name, reader.max_len, details
        self._reader, self.passages = reader, reader.passages
        self._batches: Batches[Framed, Any] = Batches(compute, budget=BUDGET, most=MAX_QUEUED, name=reader.name)

    @property
    def ready(self) -> bool:
        return self._batches.is_open

    @property
    def queued_tokens(self) -> int:
        return self._batches.queued_tokens

    def close(self) -> None:
        """Stop its thread. What still waits ends with a ProviderError."""
        self._batches.close()

    async def stream(
        self, what: Conversation | Document, sampling: Sampling = Sampling()
    ) -> AsyncGenerator[Delta, None]:
        """See Provider.stream: refused, always."""
        raise RequestError(
            f"{self.name} is an encoder: it makes {' and '.join(self.capabilities)}, and answers nobody.", param="model"
        )
        yield Delta()  # a generator, as the protocol wants


class LocalEmbedder(_Encoding):
    """A model whose pooled rows are vectors. Its scores are how alike the vectors are (their cosine)."""

    capabilities: tuple[str, ...] = ("embeddings", "rerank")

    def __init__(self, reader: Reader, compute: Compute, pooling: Pooling, *, width: int, details: dict[str, Any]):
        super().__init__(reader, compute, details | {"dimensions": width, "pooling": pooling.how})
        self.pooling, self.width = pooling, width

    async def embed(self, texts: Sequence[Passage], how: Embedding = Embedding()) -> Vectors:
        """See Embedder.embed. Tokenizing runs off the event loop; computing has a thread of its own."""
        prompt, size = self._prompt(how.prompt), self._size(how.dimensions)
        framed = await asyncio.to_thread(self._read, texts, prompt, how.truncate, "input.{}")
        return await asyncio.to_thread(_unit, await self._batches.run(framed), size, framed)

    async def score(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> Scores:
        """See Scorer.score. Queries and documents get the model's prompts for them, where it has some."""
        ask, tell = (self._prompt(self._usual(kind)) for kind in (QUERY, DOCUMENT))
        framed = await asyncio.to_thread(self._read, [query], ask, False, "query")
        framed += await asyncio.to_thread(self._read, documents, tell, truncate, "documents.{}")
        vectors = await asyncio.to_thread(_unit, await self._batches.run(framed), self.width, framed)
        # Row by row: a product of matrices would round by how many documents there are.
        values = tuple(float(np.dot(vectors.rows[0], row)) for row in vectors.rows[1:])
        return Scores(values, vectors.tokens)

    def _read(self, texts: Sequence[Passage], prompt: str, truncate: bool, param: str) -> list[Framed]:
        return [self._reader.one(text, prompt, truncate, param.format(i)) for i, text in enumerate(texts)]

    def _usual(self, kind: tuple[str, ...]) -> str | None:
        """What the model calls its prompt of this kind, if it has one."""
        return next((name for name in kind if name in self.pooling.prompts), None)

    def _prompt(self, name: str | None) -> str:
        """The text of a prompt; None is the default. A kind may go by any of its names."""
        prompts = self.pooling.prompts
        name = self.pooling.default_prompt if name is None else name
        if name is not None and name not in prompts:
            found = next((self._usual(kind) for kind in (QUERY, DOCUMENT) if name in kind), None)
            if found is None:
                raise RequestError(
                    f"{self.name} has no prompt {name[:80]!r}; it has: {', '.join(prompts) or 'none'}.",
                    param="prompt_name",
                )
            name = found
        return "" if name is None else prompts[name]

    def _size(self, dimensions: int | None) -> int:
        if dimensions is None or dimensions == self.width:
            return self.width
        if (self.pooling.any_dimension and 1 <= dimensions < self.width) or dimensions in self.pooling.dimensions:
            return dimensions
        able = "1 to " if self.pooling.any_dimension else "".join(f"{size}, " for size in self.pooling.dimensions)
        raise RequestError(
            f"dimensions is {dimensions}; {self.name} makes {able}{self.width}. A vector can be cut only where the model was "
            "trained for it and its config.json says so (matryoshka_dimensions).",
            param="dimensions",
        )


class CrossEncoder(_Encoding):
    """A model that reads query and document together. Its scores are probabilities: the sigmoid of its one output."""

    capabilities: tuple[str, ...] = ("rerank",)

    async def score(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> Scores:
        """See Scorer.score."""
        framed = await asyncio.to_thread(self._read, query, documents, truncate)
        scores = await self._batches.run(framed)
        return Scores(tuple(map(float, scores)), sum(map(len, framed)))

    def _read(self, query: str, documents: Sequence[str], truncate: bool) -> list[Framed]:
        return [
            self._reader.two(query, document, truncate, ("query", f"documents.{i}"))
            for i, document in enumerate(documents)
        ]


def _unit(rows: Sequence[np.ndarray], size: int, texts: Sequence[Framed]) -> Vectors:
    """The first `size` numbers of each row, as a vector of length 1."""
    cut = np.stack([row[:size] for row in rows]) if rows else np.empty((0, size), np.float32)
    lengths = np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return Vectors(cut / lengths, sum(map(len, texts)))


def load_embedder(
    model: str, how: EmbedLoading = EmbedLoading(), *, name: str | None = None
) -> LocalEmbedder | CrossEncoder:
    """Load an encoder, or a decoder to embed with. Raises ModelDirError when there is no such model, when it does not fit into
    memory, or when it is of a kind that we would read otherwise than its makers."""
    from myna.model import describe, load_encoder, load_model

    directory = ModelDir.open(find(model))
    spec, _ = describe(directory)
    needs = _needs(directory, how)
    check_memory(
        needs, f"{directory.name} as {needs.precision}, to embed with,", "--precision int8, or a smaller model"
    )
    name = name or directory.name
    if spec.encoder is None:
        return embedder_of(load_model(directory, how.precision, how.max_len), directory, name=name, pooling=how.pooling)
    encoder = load_encoder(directory, how.precision, how.max_len)
    return _of_encoder(encoder, directory, name, how)


def _of_encoder(encoder: "Encoder", directory: ModelDir, name: str, how: EmbedLoading) -> LocalEmbedder | CrossEncoder:
    from myna.model.pool import pooled, scored

    pooling = read_pooling(directory, causal=False, how=how.pooling)
    passages = replace(Passages.load(directory.path), lower=pooling.lower)
    spec = encoder.spec
    assert spec.encoder is not None
    if passages.kinds > spec.encoder.kinds:
        raise ModelDirError(
            f"{directory.path}: tokenizer.json uses {passages.kinds} token types, config.json has {spec.encoder.kinds}."
        )
    max_len = how.max_len or min(encoder.max_len, pooling.max_len or encoder.max_len)
    reader = Reader(passages, name=name, max_len=max_len, vocab=spec.vocab)
    details = {"family": spec.family, "precision": encoder.precision}
    if spec.encoder.labels:
        if spec.encoder.labels != 1 or passages.pair is None:
            raise ModelDirError(
                f"{directory.name} is a classifier of {spec.encoder.labels} classes; one that scores pairs of texts has one "
                "output, and a tokenizer that frames two texts."
            )
        return CrossEncoder(reader, partial(scored, encoder), details)
    return LocalEmbedder(reader, partial(pooled, encoder, pooling.how), pooling, width=spec.width, details=details)


def embedder_of(
    model: "Decoder",
    directory: ModelDir,
    *,
    name: str,
    tokenizer: Tokenizer | None = None,
    pooling: Literal["mean", "cls", "last"] | None = None,
) -> LocalEmbedder:
    """A loaded decoder as an embedder. It may answer at the same time: weights are only read."""
    from myna.model.pool import pooled

    settings = read_pooling(directory, causal=True, how=pooling)
    max_len = min(model.max_len, settings.max_len or model.max_len)
    passages = replace(Passages.load(directory.path, tokenizer), lower=settings.lower)
    reader = Reader(passages, name=name, max_len=max_len, vocab=model.spec.vocab)
    details = {"family": model.spec.family, "precision": model.precision}
    compute = partial(pooled, model, settings.how)
    return LocalEmbedder(reader, compute, settings, width=model.spec.width, details=details)


def memory_needed(model: str, how: EmbedLoading = EmbedLoading()) -> int:
    """Bytes that `load_embedder` would take. Raises ModelDirError as it does, and reads no weight."""
    return _needs(ModelDir.open(find(model)), how).total


def _needs(directory: ModelDir, how: EmbedLoading) -> "Estimate":
    from myna.model import estimate

    return estimate(directory, how.precision, max_len=how.max_len, step=BUDGET)
