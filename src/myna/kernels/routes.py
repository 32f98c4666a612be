"""Which rows go to which experts in a step; mirrors Routes in native/experts.h."""

import ctypes
from ctypes import c_int32, c_void_p

import torch


class _Routes(ctypes.Structure):
    _fields_ = (
        ("pairs", c_int32), ("reserved", c_int32), ("counts", c_void_p), ("starts", c_void_p), ("owners", c_void_p),
        ("chosen", c_void_p), ("numbers", c_void_p), ("weights", c_void_p), ("gates", c_void_p),
    )  # fmt: skip


class Routes:
    """Room for up to `rows` rows that each visit `top_k` of `experts`. A pair is a row at one of its experts; pairs are
    numbered expert by expert. The native library fills it in:

    counts, starts    int32 [experts]: how many pairs an expert has, and its first
    owners            int32 [pairs]: the row of each pair
    chosen, numbers   int32 [rows, top_k]: the experts of each row, ascending, and its pairs
    weights, gates    float32 [rows, top_k] and [rows]: of the chosen experts, and of the shared one
    """

    def __init__(self, rows: int, experts: int, top_k: int):
        self.experts, self.top_k = experts, top_k
        self.counts, self.starts = torch.zeros(2, experts, dtype=torch.int32)
        self.owners = torch.zeros(rows * top_k, dtype=torch.int32)
        self.chosen, self.numbers = torch.zeros(2, rows, top_k, dtype=torch.int32)
        self.weights, self.gates = torch.zeros(rows, top_k), torch.zeros(rows)
        self.struct = _Routes()
        for name, _ in _Routes._fields_[2:]:
            setattr(self.struct, name, getattr(self, name).data_ptr())

    @property
    def address(self) -> int:
        return ctypes.addressof(self.struct)

    @property
    def pairs(self) -> int:
        """The address of how many pairs there are."""
        return self.address + _Routes.pairs.offset

    def of(self, expert: int) -> tuple[int, int]:
        """The addresses of how many pairs an expert has, and of its first."""
        return self.counts[expert].data_ptr(), self.starts[expert].data_ptr()
