"""A chat model as a reranker: asked for yes or no about each document, it scores by how much likelier yes is.

Score = P(Yes) / (P(Yes) + P(No)) of the answer's first token, from the model's own log-probabilities (Nogueira et al. 2020
do so with T5). The query comes before the document, so all documents share the computation of what stands before them.
"""

import asyncio
import math
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

from myna.chat import Chat
from myna.provider import Provider
from myna.records import Conversation, ProviderError, RequestError, Sampled, Sampling, Scores, Usage

RULE = (
    "You judge search results. You are given a query and a document. Decide whether the document answers the query or is "
    "about what it asks for. Reply with one word: Yes or No."
)
ASK = "Query: {query}\n\nDocument: {document}\n\nDoes the document fit the query? Yes or No?"
TOP = 20  # alternatives a provider reports; whichever of the two words is not among them is asked for by itself
TOGETHER = 16  # documents asked about at once
FORCED = 100.0  # the largest bias there is: the word is drawn, and its log-probability is the model's own

GREEDY = Sampling(
    temperature=0, repetition_penalty=1, presence_penalty=0, frequency_penalty=0, max_tokens=1, logprobs=0
)


class Judge:
    """`provider` answers in the tokens of `chat`; `max_len` bounds a prompt."""

    def __init__(self, provider: Provider, chat: Chat, max_len: int):
        self._provider, self._chat, self._max_len = provider, chat, max_len
        self._words = tuple(chat.tokenizer.encode(word)[0] for word in ("Yes", "No"))

    @property
    def name(self) -> str:
        return self._provider.name

    async def score(self, query: str, documents: Sequence[str], *, truncate: bool = False) -> Scores:
        """See Scorer.score."""
        gate = asyncio.Semaphore(TOGETHER)

        async def one(i: int, document: str) -> tuple[float, int]:
            async with gate:
                return await self._judge(query, document, truncate, f"documents.{i}")

        # The first computes what all share; the others find it.
        first = [await one(i, document) for i, document in enumerate(documents[:1])]
        tasks = [asyncio.create_task(one(i, document)) for i, document in enumerate(documents[1:], start=1)]
        try:
            found = first + await asyncio.gather(*tasks)
        finally:  # one failed, or nobody waits any more
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return Scores(tuple(score for score, _ in found), sum(tokens for _, tokens in found))

    async def _judge(self, query: str, document: str, truncate: bool, param: str) -> tuple[float, int]:
        """One document's score and its prompt's tokens."""
        if truncate:
            document = await asyncio.to_thread(self._cut, query, document)
        asked = _conversation(query, document)
        sampled, usage = await self._answer(asked, replace(GREEDY, logprobs=TOP), param)
        known = {token.id: token.logprob for token in (sampled, *sampled.top)}
        for word in self._words:
            if known.get(word) is None:
                forced = replace(GREEDY, logit_bias=((word, FORCED),))
                known[word] = (await self._answer(asked, forced, param))[0].logprob
        yes, no = (known[word] for word in self._words)
        if yes is None or no is None:
            raise ProviderError(f"{self.name} does not tell log-probabilities, so it cannot judge.", status=500)
        return 1 / (1 + math.exp(min(no - yes, 700.0))), usage.prompt_tokens

    async def _answer(self, asked: Conversation, sampling: Sampling, param: str) -> tuple[Sampled, Usage]:
        """The first token of the answer."""
        try:
            async with aclosing(self._provider.stream(asked, sampling)) as deltas:
                found = [delta async for delta in deltas]
        except RequestError as e:
            if e.code == "context_length_exceeded":
                e.param = param
            raise
        tokens: Iterable[Sampled] = (token for delta in found for token in delta.tokens)
        if (first := next(iter(tokens), None)) is None:
            raise ProviderError(f"{self.name} said nothing about {param}.", status=500)
        return first, next((delta.usage for delta in found if delta.usage), Usage())

    def _cut(self, query: str, document: str) -> str:
        """The document's beginning, as much of it as fits."""
        room = self._max_len - 1 - len(self._chat.render(_conversation(query, "")).ids)
        ids = self._chat.tokenizer.encode(document[: self._max_len * 256])
        # Tokens of a text that was cut may join otherwise when it is read again; four are room enough.
        return document if len(ids) <= room - 4 else self._chat.tokenizer.decode(ids[: max(room - 4, 0)])


def _conversation(query: str, document: str) -> Conversation:
    return Conversation.of(("system", RULE), ("user", ASK.format(query=query, document=document)))
