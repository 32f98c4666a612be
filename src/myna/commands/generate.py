"""myna generate: one prompt in, one answer out; made for pipes."""

import asyncio
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import orjson

from myna.commands.options import LoadingFlags, SamplingFlags, spoken
from myna.modeldir import DEFAULT
from myna.provider.local import Loading, load
from myna.records import Conversation, DataError, Document, Sampling, fold


def run(
    prompt: str | None = None,
    /,
    *,
    model: str = DEFAULT,
    system: str | None = None,
    raw: bool = False,
    json: bool = False,
    adapter: Path | None = None,
    sampling: SamplingFlags = Sampling(),
    loading: LoadingFlags = Loading(),
) -> None:
    """Answer one prompt, or continue a text.

    Parameters
    ----------
    prompt
        What to answer. Left out, it is read from standard input.
    model
        A pulled model's name, or the path of a model directory.
    system
        Instructions that come before the prompt.
    raw
        Continue the prompt as plain text, without the chat template.
    adapter
        The folder of an adapter (LoRA) of the model, in PEFT's layout.
    json
        Print the conversation as one JSON line: candidates with token ids and, with --logprobs, log-probabilities.
    """
    text = sys.stdin.read() if prompt is None else prompt
    if not text.strip():
        raise DataError("The prompt is empty. Give it as an argument or on standard input.")
    turns = Conversation.of(("system", system), ("user", text)) if system else Conversation.ask(text)
    provider = load(model, loading)
    if adapter is not None:
        provider = provider.load_adapter(adapter)

    async def answer() -> None:
        deltas = []
        async with aclosing(provider.stream(Document(text) if raw else turns, sampling)) as stream:
            async for delta in stream:
                deltas.append(delta)
                if not json and delta.candidate == 0:
                    print(spoken(delta.text) if sys.stdout.isatty() else delta.text, end="", flush=True)
        reply = fold(deltas)
        if json:
            print(orjson.dumps(replace(turns, candidates=reply.candidates).to_json()).decode())
            return
        print()
        for number, candidate in enumerate(reply.candidates[1:], start=2):
            print(f"--- candidate {number}\n{candidate.text}")

    asyncio.run(answer())
