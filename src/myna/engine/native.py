"""A decoder's forward step as a program of the native kernels: described once (forward.py), walked in C every step.

The readable decoder (model/decoder.py) stays the truth that the program is tested against.
"""

import time
from array import array

import torch
from torch import Tensor

from myna.engine.blocks import BLOCK, blocks_for
from myna.engine.forward import Buffers, Forward
from myna.engine.pages import Pages
from myna.engine.request import Plan
from myna.kernels import UNIT, Step, library
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
    """The program over buffers for so many rows; both are made anew when a step needs more."""

    def __init__(self, model: Decoder, pages: Pages):
        self.model = model
        self.pages = pages
        self.seconds = 0.0  # spent in the native library so far
        self._build(rows=64, samples=8)

    def run(self, plan: Plan) -> Tensor:
        """logits [rows, V] of the answers of each of plan.sampling, good until the next run."""
        had = self.buffers
        rows = sum(piece.stop - piece.start for piece in plan.slices)
        samples = sum(piece.answers for piece in plan.sampling)
        needs = (rows, had.rows), (samples, len(had.logits))
        if any(need > there for need, there in needs):
            self._build(*(2 * need if need > there else there for need, there in needs))
        describe(self.step, plan)
        started = time.perf_counter()
        self.program.run()
        self.seconds += time.perf_counter() - started
        logits, cap = self.buffers.logits[:samples], self.model.spec.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _build(self, rows: int, samples: int) -> None:
        self.step, self.buffers = Step(max(rows, samples)), Buffers(self.model.spec, rows, samples)
        self.program = Forward(self.model, self.pages, self.step, self.buffers).program


def describe(step: Step, plan: Plan) -> None:
    """Write a plan down as the native library reads it. Plain integers: most slices are one row, for which a call into
    numpy would take longer than the row."""
    ids, positions, slots, table = array("i"), array("i"), array("i"), array("i")
    sequences: list[tuple[int, int, int, int]] = []
    sampled: list[int] = []  # in the order of plan.sampling, which is that of plan.slices
    for piece in plan.slices:
        blocks = piece.sequence.blocks
        sequences.append((len(ids), piece.stop - piece.start, piece.start, len(table)))
        table.extend(blocks[: blocks_for(piece.stop)])
        for place in range(piece.start, piece.stop):
            positions.append(place)
            slots.append(blocks[place // BLOCK] * BLOCK + place % BLOCK)
        ids.extend(piece.ids)
        sampled += range(len(ids) - piece.answers, len(ids))
    step.set(ids, positions, slots, sampled, sequences, table)
