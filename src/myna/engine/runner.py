"""Running a plan: the paged runner that serves, and the reference it must agree with."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from myna.engine.adapters import ByRow, PackedAdapter
from myna.engine.constraint import Mask
from myna.engine.native import NativeStep, why_not
from myna.engine.pages import Pages, StepMemory, order
from myna.engine.request import Plan, Sequence, Slice
from myna.engine.sample import NO_MASKS, BrokenLogits, Choice, choose, choose_by_torch
from myna.model import REFERENCE, Adapter, Causal, Decoder

log = logging.getLogger(__name__)


class Runner(Protocol):
    """Computes a plan's slices and returns logits [rows, V] float32: the answers of each of plan.sampling, in that order.
    `adapters`, by the number that requests name them by, are what `prepare` made of them."""

    adapters: dict[int, Any]

    def prepare(self, adapter: Adapter) -> Adapter | PackedAdapter:
        """The adapter as it is computed with here. Any thread may."""

    def drop(self, adapter: int) -> None:
        """Forget one and free it."""

    def run(self, plan: Plan) -> Tensor: ...

    def choose(
        self, logits: Tensor, slices: Iterable[Slice], masks: Mapping[Sequence, Mask] = NO_MASKS
    ) -> list[list[Choice] | BrokenLogits]:
        """The next tokens of each slice; see sample.choose."""


class PagedRunner:
    """One forward pass over all rows of the plan, keys and values in preallocated pages: as a program of the native
    kernels where that can be, else through the decoder. Logits are good until the next run."""

    choose = staticmethod(choose)

    def __init__(self, model: Decoder, blocks: int):
        self.model = model
        self.pages = Pages(model.spec, blocks, model.kv_format)
        self.adapters: dict[int, Any] = {}
        self.native = NativeStep(model, self.pages, self.adapters) if why_not(model) is None else None
        self.hear: Callable[[Iterable[Slice], Tensor], None] | None = None  # hears hidden states, where torch computes
        self._by_row = ByRow(model, self.adapters)
        if self.native is None and "int" in model.precision:
            log.warning("%s runs through the decoder, slower: %s", model.spec.family, why_not(model))

    def prepare(self, adapter: Adapter) -> Adapter | PackedAdapter:
        return PackedAdapter(self.model, adapter) if self.native else adapter

    def drop(self, adapter: int) -> None:
        self.adapters.pop(adapter, None)
        if self.native:
            self.native.forget_adapters()

    def run(self, plan: Plan) -> Tensor:
        return self.native.run(plan) if self.native else self._run_decoder(plan)

    @torch.inference_mode()
    def _run_decoder(self, plan: Plan) -> Tensor:
        slices = order(plan)
        ids = [token for piece in slices for token in piece.ids]
        positions = [i for piece in slices for i in range(piece.start, piece.stop)]
        model = self._by_row.over([p.sequence.request.adapter for p in slices for _ in range(p.start, p.stop)])
        hidden = model(torch.tensor(ids), torch.tensor(positions), StepMemory(self.pages, slices))
        row, rows = 0, {}
        for piece in slices:
            row += piece.stop - piece.start
            rows[piece] = range(row - piece.answers, row)
        hidden = hidden[[row for piece in plan.sampling for row in rows[piece]]]
        if self.hear is not None:
            self.hear(plan.sampling, hidden)
        return self.model.logits(hidden)


class ReferenceRunner:
    """The slow truth: every token from a plain forward pass over the whole sequence. No pages, no batch, no cache, no
    native code. `blocks` mean nothing to it."""

    choose = staticmethod(choose_by_torch)

    def __init__(self, model: Decoder, blocks: int = 0):
        self.model = model
        self.adapters: dict[int, Any] = {}
        self._by_row = ByRow(model, self.adapters)

    def prepare(self, adapter: Adapter) -> Adapter:
        return adapter

    def drop(self, adapter: int) -> None:
        self.adapters.pop(adapter, None)

    @torch.inference_mode()
    def run(self, plan: Plan) -> Tensor:
        rows = [torch.empty(0, self.model.spec.vocab)]
        for piece in plan.sampling:
            ids = torch.tensor([[*piece.sequence.tokens, *piece.draft]])
            model = self._by_row.over([piece.sequence.request.adapter] * ids.shape[1])
            hidden = model(ids, torch.arange(ids.shape[1])[None], Causal())
            rows.append(self.model.logits(hidden[0, -piece.answers :]))
        return torch.cat(rows)


def runner_for(precision: str) -> Callable[[Decoder, int], Runner]:
    """What runs a model that was asked for in this precision: "reference" is float32 weights and the slow truth."""
    return ReferenceRunner if precision == REFERENCE else PagedRunner
