"""A decoder's forward step as a program of the native kernels: described once (forward.py), walked in C every step.

The readable decoder (model/decoder.py) stays the truth that the program is tested against.
"""

import time
from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from myna.engine.adapters import PackedAdapter, of_weights
from myna.engine.blocks import BLOCK, blocks_for
from myna.engine.forward import Buffers, Forward
from myna.engine.pages import Pages
from myna.engine.request import Plan
from myna.kernels import UNIT, Program, Step, library
from myna.model import Decoder
from myna.model.linear import PackedLinear
from myna.model.mlp import Mlp


def why_not(model: Decoder) -> str | None:
    """What keeps this decoder from running as a program, or None."""
    if library() is None or not isinstance(model.embed, PackedLinear):
        return "its weights are not packed"
    mlps = [m for m in model.modules() if isinstance(m, Mlp) and m.gated]
    if not all(isinstance(m.gate_up, PackedLinear) and m.gate_up.halves() for m in mlps):
        return f"gate and up share a unit of {UNIT} rows"
    return None


class NativeStep:
    """The program over buffers for so many rows; both are made anew when a step needs more. Steps in which some row has an
    adapter have a program of their own, so that the others pay nothing; `adapters` are those, by number."""

    def __init__(self, model: Decoder, pages: Pages, adapters: Mapping[int, PackedAdapter] = {}):
        self.model = model
        self.pages = pages
        self.adapters = adapters
        self.seconds = 0.0  # spent in the native library so far
        self._build(rows=64, samples=8)

    def run(self, plan: Plan) -> Tensor:
        """logits [rows, V] of the answers of each of plan.sampling, good until the next run."""
        layout = lay_out(plan, [*self.adapters])
        needs = (len(layout.ids), self.buffers.rows), (len(layout.sampled), len(self.buffers.logits))
        if any(need > there for need, there in needs):
            self._build(*(2 * need if need > there else there for need, there in needs))
        self.step.set(*layout)
        started = time.perf_counter()
        (self._with_adapters() if layout.adapters else self.program).run()
        self.seconds += time.perf_counter() - started
        logits, cap = self._first(len(layout.sampled)), self.model.spec.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _first(self, samples: int) -> Tensor:
        """The logits of so many rows. Kept: after a step nothing of torch is in the caches, and a slice takes 60 us."""
        if samples not in self._views:
            self._views[samples] = self.buffers.logits[:samples]
        return self._views[samples]

    def _build(self, rows: int, samples: int) -> None:
        self._views: dict[int, Tensor] = {}
        self._adapted: tuple[list[int], Program] | None = None
        self.step, self.buffers = Step(rows), Buffers(self.model.spec, rows, samples)
        self.program = Forward(self.model, self.pages, self.step, self.buffers).program

    def forget_adapters(self) -> None:
        """Keep none in memory; the next step that has one makes its program anew."""
        self._adapted = None

    def _with_adapters(self) -> Program:
        """The program with those that are loaded now."""
        if self._adapted is None or self._adapted[0] != [*self.adapters]:
            weights = of_weights([*self.adapters.values()], self.step.field("adapters"), self.buffers.rows)
            program = Forward(self.model, self.pages, self.step, self.buffers, weights).program
            self._adapted = [*self.adapters], program
        return self._adapted[1]


class Layout(NamedTuple):
    """A plan as the native library reads it: what Step.set takes, int32. `sampled` is in the order of plan.sampling, which
    is that of plan.slices. `adapters` is empty where no row has one; else the place of each row's among those loaded, or -1."""

    ids: "array[int]"
    positions: "array[int]"
    slots: "array[int]"
    sampled: "array[int]"
    sequences: "array[int]"
    table: "array[int]"
    adapters: "array[int]"


def lay_out(plan: Plan, adapters: Sequence[int] = ()) -> Layout:
    """Write a plan down. Plain integers: most slices are one row, for which a call into numpy would take longer."""
    layout = Layout(*(array("i") for _ in Layout._fields))
    ids, positions, slots, sampled, sequences, table, chosen = layout
    adapted = any(piece.sequence.request.adapter for piece in plan.slices)
    for piece in plan.slices:
        blocks, start, stop = piece.sequence.blocks, piece.start, piece.stop
        sequences.extend((len(ids), stop - start, start, len(table)))
        table.extend(blocks[: blocks_for(stop)])
        for place in range(start, stop):
            positions.append(place)
            slots.append(blocks[place // BLOCK] * BLOCK + place % BLOCK)
        ids.extend(piece.ids)
        if adapted:
            number = piece.sequence.request.adapter
            chosen.extend([adapters.index(number) if number else -1] * (stop - start))
        if answers := piece.answers:
            sampled.extend(range(len(ids) - answers, len(ids)))
    return layout
