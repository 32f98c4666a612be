"""A chat model asked for yes or no: its own log-probabilities make the score, whatever it would have said."""

import asyncio
import math
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import torch

from myna.chat import Chat
from myna.model import Causal, load_model
from myna.modeldir import ModelDir
from myna.provider.judge import Judge
from myna.provider.local import Loading, load
from myna.records import Conversation, Delta, RequestError, Sampled, Sampling, Usage


class Opinion:
    """Likes documents by their first number: Yes has log-probability -n, No -1. Tells the alternatives it is said to."""

    name = "opinion"

    def __init__(self, chat: Chat, tells: bool):
        self.yes, self.no = (chat.tokenizer.encode(word)[0] for word in ("Yes", "No"))
        self.tells, self.asked = tells, []

    async def stream(self, what: Conversation, sampling: Sampling = Sampling()) -> AsyncGenerator[Delta, None]:
        text = what.messages[-1].text
        self.asked.append((text, sampling))
        yield Delta()
        await asyncio.sleep(0)
        if "boom" in text:
            raise RequestError("too long", param="messages", code="context_length_exceeded")
        logprobs = {self.yes: -float(text.split("Document: ")[1][0]), self.no: -1.0, 0: -0.1}
        drawn = sampling.logit_bias[0][0] if sampling.logit_bias else 0
        top = tuple(Sampled(id, b"", p) for id, p in logprobs.items()) if self.tells and sampling.logprobs else ()
        token = Sampled(drawn, b"", logprobs[drawn], top)
        yield Delta(tokens=(token,), finish_reason="length", usage=Usage(10, 1))


@pytest.fixture(scope="module")
def chat(smollm2: Path) -> Chat:
    return Chat.load(smollm2)


def score(judge: Any, documents: list[str], **how: Any) -> tuple[float, ...]:
    return asyncio.run(judge.score("q", documents, **how)).values


@pytest.mark.parametrize("tells", [True, False])
def test_the_score_is_how_much_likelier_yes_is(chat: Chat, tells: bool) -> None:
    """Where the two words are not among the alternatives each is asked for by itself."""
    provider = Opinion(chat, tells)
    documents = ["3", "1", "2"] * 20
    expected = [math.exp(-n) / (math.exp(-n) + math.exp(-1)) for n in (3, 1, 2)] * 20
    assert score(Judge(provider, chat, 1000), documents) == pytest.approx(expected)
    assert len(provider.asked) == len(documents) * (1 if tells else 3)
    assert asyncio.run(Judge(provider, chat, 1000).score("q", ["1", "2"])).tokens == 20


def test_the_query_stands_before_the_document_so_that_it_is_computed_once(chat: Chat) -> None:
    provider = Opinion(chat, True)
    score(Judge(provider, chat, 1000), ["1 one", "2 two"])
    one, two = (text for text, _ in provider.asked)
    assert one.split("1 one")[0] == two.split("2 two")[0]
    assert "Query: q" in one.split("1 one")[0]


def test_a_document_that_fails_is_named_and_ends_the_rest(chat: Chat) -> None:
    with pytest.raises(RequestError) as caught:
        score(Judge(Opinion(chat, True), chat, 1000), ["1", "2", "boom"])
    assert caught.value.param == "documents.2"


def test_a_document_is_cut_if_asked_so_that_its_prompt_fits(chat: Chat) -> None:
    provider = Opinion(chat, True)
    score(Judge(provider, chat, 200), ["1 " + "很长 long " * 500], truncate=True)
    text, _ = provider.asked[0]
    prompt = chat.render(Conversation.of(("system", "x" * 0), ("user", text)))
    assert "Document: 1 很长 long" in text
    assert 100 < len(prompt.ids) < 200


@pytest.mark.slow
def test_a_served_model_scores_as_a_plain_forward_pass_does(smollm2: Path) -> None:
    model = load(str(smollm2), Loading(precision="float32", kv_gb=0.1))
    decoder = load_model(ModelDir.open(smollm2), "float32")
    documents = ["Paris is the capital of France.", "Bananas are yellow.", "柏林是德国的首都。"]
    try:
        found = asyncio.run(model.score("What is the capital of France?", documents))
        from myna.provider.judge import _conversation

        for document, value in zip(documents, found.values, strict=True):
            ids = torch.tensor([model.render(_conversation("What is the capital of France?", document)).ids])
            with torch.inference_mode():
                logits = decoder.logits(decoder(ids, torch.arange(ids.shape[1])[None], Causal()))[0, -1]
            yes, no = (logits[model.chat.tokenizer.encode(word)[0]] for word in ("Yes", "No"))
            assert value == pytest.approx(float(torch.sigmoid(yes - no)), abs=1e-4)
    finally:
        model.close()
