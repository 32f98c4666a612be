"""Random adapters of a weight, and the programs that add them, for the tests at every level and on the emulator."""

import ctypes
from array import array

import torch
from kernel_cases import random_packed
from torch import Tensor

from myna.kernels import FORMATS, Adapters, LowRank, Program, row_bytes
from myna.kernels.adapters import AddedTo

# Ranks from 1 on, on both sides of what goes on at once, of a claim, and of a vector.
RANKS = (1, 3, 8, 17, 33, 70)


def random_parts(
    columns: int, spans: list[tuple[int, int]], ranks: list[int], dtype: torch.dtype = torch.float32
) -> list[AddedTo]:
    """One part for each span (start, stop) of outputs."""
    return [
        AddedTo(start, torch.randn(rank, columns).to(dtype), torch.randn(stop - start, rank).to(dtype), 0.3 + rank / 50)
        for (start, stop), rank in zip(spans, ranks, strict=True)
    ]


class Leads(ctypes.Structure):
    """What Step.field("adapters") is in a step."""

    _fields_ = (("numbers", ctypes.c_void_p),)


class Rows:
    """Rows of input, of which each has an adapter by its number. Keeps all that a program reads."""

    def __init__(self, x: Tensor, numbers: list[int], adapters: list[list[AddedTo]], half: int | None = None):
        self.x, self.numbers, self.parts = x, array("i", numbers), adapters
        self.count = ctypes.c_int32(len(x))
        self.leads = Leads(self.numbers.buffer_info()[0])
        packed = [LowRank(parts, half) if parts else None for parts in adapters]
        shrunk = torch.full((max(len(x), 1), max((one.rank for one in packed if one), default=1) + 3), torch.nan)
        self.adapters = Adapters(ctypes.addressof(self.leads), shrunk, packed)
        self.quantized = torch.zeros(len(x) * row_bytes(x.shape[1]), dtype=torch.uint8)

    def begin(self) -> Program:
        program, rows = Program(), ctypes.addressof(self.count)
        program.kept += [self.count, self.leads, self.numbers]
        program.quantize(rows, self.x, self.quantized, self.x.shape[1])
        program.shrink(rows, self.quantized, self.x.shape[1], self.adapters)
        return program

    def add(self, out: Tensor) -> Program:
        """out += what the adapters add."""
        program = self.begin()
        program.expand(ctypes.addressof(self.count), out, self.adapters)
        return program

    def hide(self, out: Tensor, hidden: int, activation: str, gated: bool, bias: Tensor | None) -> Program:
        """The hidden layer of an MLP."""
        program, columns = self.begin(), self.x.shape[1]
        gate, up = (
            (
                random_packed("q8" if which else "q4a", hidden, columns, which),
                (hidden, columns),
                FORMATS["q8" if which else "q4a"],
            )
            for which in (0, 1)
        )
        self.gate, self.up = gate, up if gated else None
        rows = ctypes.addressof(self.count)
        program.hidden(rows, self.quantized, out, gate, self.up, bias, activation, adapters=self.adapters)
        return program
