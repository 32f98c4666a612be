"""Something that completes a conversation: our engine, a remote endpoint, a script. One protocol, one function. No torch.

    Scripted   says what it is told to: the test double, ours and yours
    Http       any OpenAI-compatible endpoint                               (myna.provider.http)
    Local      our own engine, in this process                              (myna.provider.local)

A provider may also have these attributes; the server reads each with a default:

    max_len: int | None     tokens that prompt and answer may have together
    ready: bool             False while it cannot answer yet
    chat: Chat              its tokenizer and template, where they are in this process
    defaults: Sampling      what it does when a request says nothing (shown on the page)
    details: dict           anything else worth showing in /v1/models
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from myna.provider.scripted import Scripted
from myna.records import Conversation, Delta, Document, Reply, Sampling, fold

__all__ = ["Provider", "Scripted", "complete"]


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


async def complete(provider: Provider, what: Conversation | Document, sampling: Sampling = Sampling()) -> Reply:
    """The whole answer: what the stream folds into. Raises what `Provider.stream` raises."""
    async with aclosing(provider.stream(what, sampling)) as deltas:
        return fold([delta async for delta in deltas])
