"""What the model that is being trained answers: our own engine, in this process, on the very weights that are trained.

So the sampler's log-probabilities are the trainer's, up to the order of float32 sums; `grpo` reports how far they are apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from myna.engine.engine import Listener, Update, engine_for
from myna.model import Decoder
from myna.records import MynaError, Sampling
from myna.train.once import unchanged

KV_TOKENS = 1 << 16  # keys and values held at once; more prompts wait in line


@dataclass(frozen=True, slots=True)
class Rolled:
    """One answer: the ids as they were sampled, each one's log-probability at temperature 1, and why it ended."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str


def roll_out(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seed: int,
    numbers: Sequence[int] = (),
    stop_ids: frozenset[int] = frozenset(),
) -> list[list[Rolled]]:
    """sampling.n answers to each prompt. The same for the same weights, prompt, seed and number, whatever runs beside; prompts
    are numbered from 0 on unless `numbers` says otherwise.

    Raises MynaError if a prompt cannot be answered: it is too long, or the weights give no numbers.
    """
    longest = max(map(len, prompts), default=0) + (sampling.max_tokens or 0)
    n = sampling.n or 1
    room = min(max(KV_TOKENS, longest), sum(len(ids) + (sampling.max_tokens or 0) for ids in prompts) * n + 16 * n)
    # The engine's steps have ever other shapes, which torch.compile would translate again and again.
    with unchanged(decoder), torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        engine = engine_for(decoder, kv_tokens=room, max_running=min(512, len(prompts) * n) or 1)
        answers = [[_Answer() for _ in range(n)] for _ in prompts]
        for number, ids, group in zip(numbers or range(len(prompts)), prompts, answers, strict=True):
            asked = replace(sampling, seed=seed * 1_000_003 + number, logprobs=0)
            engine.submit(ids, asked, _listen(group), stop_ids=stop_ids)
        while not engine.idle:
            engine.step()
    return [[answer.rolled() for answer in group] for group in answers]


class _Answer:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason = ""
        self.error = ""

    def hear(self, update: Update) -> None:
        self.error = update.error or self.error
        if update.choice is not None:
            assert update.choice.logprob is not None
            self.ids.append(update.choice.id)
            self.logprobs.append(update.choice.logprob)
        self.finish_reason = update.finish_reason or self.finish_reason

    def rolled(self) -> Rolled:
        if self.error:
            raise MynaError(f"the model that is trained cannot answer: {self.error}")
        return Rolled(tuple(self.ids), tuple(self.logprobs), self.finish_reason)


def _listen(group: list[_Answer]) -> Listener:
    def listen(update: Update) -> bool:
        group[update.candidate].hear(update)
        return False

    return listen
