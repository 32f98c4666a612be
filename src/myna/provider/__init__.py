"""Something that completes a conversation: our engine, a remote endpoint, a script. One protocol, one function. No torch.

    Scripted   says what it is told to: the test double, ours and yours
    Http       any OpenAI-compatible endpoint                               (myna.provider.http)
    Local      our own engine, in this process                              (myna.provider.local)

What makes embeddings, and what scores how well documents fit a query, are protocols beside it (Embedder, Scorer):

    LocalEmbedder   an encoder in this process; Local, too, embeds with its decoder   (myna.provider.local_embed)
    CrossEncoder    an encoder that reads query and document together                 (myna.provider.local_embed)
    Judge           a provider asked for yes or no about every document               (myna.provider.judge)

A provider may also have these attributes; the server reads each with a default:

    max_len: int | None     tokens that prompt and answer may have together
    ready: bool             False while it cannot answer yet
    chat: Chat              its tokenizer and template, where they are in this process
    defaults: Sampling      what it does when a request says nothing (shown on the page)
    details: dict           anything else worth showing in /v1/models
    powers: Powers          what it does of what may be asked, as it was tried                   (myna.provider.powers)
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from myna.provider.scripted import Scripted
from myna.records import Conversation, Delta, Document, Embedding, Passage, Reply, Sampling, Scores, Vectors, fold

__all__ = ["Embedder", "Provider", "Scorer", "Scripted", "complete"]


class Provider(Protocol):
    """Completes a conversation or continues a document, candidate by candidate, delta by delta."""

    @property
    def name(self) -> str:
        """The model's name, as a request would ask for it."""

    def stream(self, what: Conversation | Document, sampling: Sampling = Sampling()) -> AsyncGenerator[Delta, None]:
        """The answer as it is made.

        The first item is an empty Delta, the moment the request is admitted; refusals (RequestError, Unavailable) are
        raised before it. Every candidate gets exactly one finish_reason; the usage comes on the last delta of all.
        Closing the generator, or cancelling the task that reads it, cancels the request and frees what it held.

        Raises RequestError (the request's fault), Unavailable (not now), ProviderError (the endpoint failed).
        """


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def name(self) -> str:
        """The model's name, as a request would ask for it."""

    async def embed(self, texts: Sequence[Passage], how: Embedding = Embedding()) -> Vectors:
        """One vector a text. What a text becomes does not depend on the texts beside it.

        Cancelling the task that waits drops what was not computed yet. Raises RequestError whose `param` is "input.3" and
        the like, Unavailable (too much waits already), ProviderError.
        """


class Scorer(Protocol):
    """Says how well documents fit queries."""

    @property
    def name(self) -> str:
        """The model's name, as a request would ask for it."""

    async def score(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> Scores:
        """One score a document, higher is better; only scores of one model compare. `truncate` cuts documents that are too
        long; else they are an error, as is a query that is. Raises what `Embedder.embed` raises; `param` is "query" or
        "documents.3"."""


async def complete(provider: Provider, what: Conversation | Document, sampling: Sampling = Sampling()) -> Reply:
    """The whole answer: what the stream folds into. Raises what `Provider.stream` raises."""
    async with aclosing(provider.stream(what, sampling)) as deltas:
        return fold([delta async for delta in deltas])
