"""A runner that computes nothing: each answer's token ids are given. All else, blocks and steps and cancels, is real."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from myna.engine.constraint import Mask
from myna.engine.request import Plan, Request, Slice
from myna.engine.request import Sequence as Candidate
from myna.engine.sample import NO_MASKS, BrokenLogits, Choice
from myna.model import Adapter

Answers = Callable[[Request, int], Sequence[int]]
"""(request, candidate) -> its token ids; called once a token, so it must say the same each time."""


class ReplayRunner:
    """Says the answers' tokens, one a step, and after the last of them `end`. A form does not change what it says, but ends
    an answer that breaks it, as it would end a model's.

    Each token is certain: its log-probability is 0. `seconds` is how long a step takes.
    """

    def __init__(self, answers: Answers, end: int, seconds: float = 0.0):
        self._answers, self._end, self._seconds = answers, end, seconds
        self.adapters: dict[int, Any] = {}

    def prepare(self, adapter: Adapter) -> Adapter:
        return adapter

    def drop(self, adapter: int) -> None:
        self.adapters.pop(adapter, None)

    def run(self, plan: Plan) -> Tensor:
        if self._seconds:
            time.sleep(self._seconds)
        return torch.empty(sum(piece.answers for piece in plan.sampling), 0)

    def choose(
        self, logits: Tensor, slices: Iterable[Slice], masks: Mapping[Candidate, Mask] = NO_MASKS
    ) -> list[list[Choice] | BrokenLogits]:
        return [[self._say(piece.sequence)] for piece in slices]

    def clear(self, blocks: list[int]) -> None:
        """There is nothing to forget."""

    def _say(self, sequence: Candidate) -> Choice:
        ids, place = self._answers(sequence.request, sequence.candidate), sequence.generated
        token, tops = ids[place] if place < len(ids) else self._end, sequence.request.sampling.logprobs
        return Choice(token) if tops is None else Choice(token, 0.0, ((token, 0.0),) if tops else ())
