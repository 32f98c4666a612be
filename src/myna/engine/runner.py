"""Running a plan: the paged runner that serves, and the reference it must agree with."""

import logging
from typing import Protocol

import torch
from torch import Tensor

from myna.engine.native import NativeStep, why_not
from myna.engine.pages import Pages, StepMemory, order
from myna.engine.request import Plan
from myna.model import Causal, Decoder

log = logging.getLogger(__name__)


class Runner(Protocol):
    """Computes a plan's slices and returns logits [len(plan.sampling), V] float32, in that order."""

    def run(self, plan: Plan) -> Tensor: ...

    def clear(self, blocks: list[int]) -> None:
        """Forget what these blocks hold: their owner computed NaN."""


class PagedRunner:
    """One forward pass over all rows of the plan, keys and values in preallocated pages: as a program of the native
    kernels where that can be, else through the decoder. Logits are good until the next run."""

    def __init__(self, model: Decoder, blocks: int):
        self.model = model
        self.pages = Pages(model.spec, blocks, model.kv_dtype)
        self.clear = self.pages.clear
        self.native = NativeStep(model, self.pages) if why_not(model) is None else None
        if self.native is None and "int" in model.precision:
            log.warning("%s runs through the decoder, slower: %s", model.spec.family, why_not(model))

    @torch.inference_mode()
    def run(self, plan: Plan) -> Tensor:
        return self.native.run(plan) if self.native else self._run_decoder(plan)

    def _run_decoder(self, plan: Plan) -> Tensor:
        slices = order(plan)
        ids = [token for piece in slices for token in piece.sequence.tokens[piece.start : piece.stop]]
        positions = [i for piece in slices for i in range(piece.start, piece.stop)]
        hidden = self.model(torch.tensor(ids), torch.tensor(positions), StepMemory(self.pages, slices))
        row, last = -1, {}
        for piece in slices:
            row += piece.stop - piece.start
            last[piece] = row
        return self.model.logits(hidden[[last[piece] for piece in plan.sampling]])


class ReferenceRunner:
    """The slow truth: every token from a plain forward pass over the whole sequence. No pages, no batch, no cache."""

    def __init__(self, model: Decoder):
        self.model = model

    @torch.inference_mode()
    def run(self, plan: Plan) -> Tensor:
        rows = [torch.empty(0, self.model.spec.vocab)]
        for piece in plan.sampling:
            ids = torch.tensor([piece.sequence.tokens])
            hidden = self.model(ids, torch.arange(ids.shape[1])[None], Causal())
            rows.append(self.model.logits(hidden[0, -1:]))
        return torch.cat(rows)

    def clear(self, blocks: list[int]) -> None:
        """There is nothing to forget."""
