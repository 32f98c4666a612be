"""A program: a flat list of operations that the native library walks. Op mirrors the struct in native/kernels.cpp.

An operation holds addresses, so a program keeps the tensors it was given alive. What changes from step to step (how many
rows, which tokens, positions and pages) is read through pointers into a Step, never written into the operations.
"""

import ctypes
from array import array
from collections.abc import Iterable, Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p

import numpy as np
import torch
from torch import Tensor

from myna.kernels.adapters import Adapters
from myna.kernels.build import library
from myna.kernels.formats import GROUP, Format
from myna.kernels.pages import KEPT, PageFormat
from myna.kernels.routes import Routes

Numbers = Sequence[int] | Sequence[Sequence[int]] | np.ndarray
QUANTIZE, HIDDEN, LINEAR, NORM, EMBED, PLACE, ATTEND, ADD_PLACES, ROUTE, DEAL, COMBINE, SHRINK, EXPAND = range(13)
Part = tuple[Tensor, tuple[int, int], Format]  # a packed weight, its [rows, columns], its format
ACTIVATIONS = {
    "silu": 0, "swish": 0, "gelu_new": 1, "gelu_pytorch_tanh": 1, "gelu_fast": 1, "gelu": 2, "relu": 3,
}  # fmt: skip


def row_bytes(columns: int) -> int:
    """Bytes of a quantized row: int8 numbers, and of each group its scale and sums (Group in native/linear.h)."""
    return -(-columns // GROUP) * (GROUP + 16)


class Op(ctypes.Structure):
    _fields_ = (
        ("code", c_int32), ("kind", c_int32), ("rows", c_void_p),
        ("p", c_void_p * 8), ("n", c_int64 * 8), ("f", c_float * 4),
    )  # fmt: skip


class _Step(ctypes.Structure):
    _fields_ = (
        ("rows", c_int32), ("samples", c_int32), ("sequences", c_int32), ("reserved", c_int32),
        ("ids", c_void_p), ("positions", c_void_p), ("slots", c_void_p), ("sampled", c_void_p),
        ("list", c_void_p), ("table", c_void_p), ("adapters", c_void_p),
    )  # fmt: skip


def _array(numbers: Numbers) -> "array[int]":
    return numbers if isinstance(numbers, array) else array("i", np.asarray(numbers, np.int32).tobytes())


class Step:
    """What one step computes. `set` may be called again; programs built on it see the change.

    ids, positions, slots   of each row: its token, its position in its sequence, where its keys and values go
    sampled                 the rows whose logits are wanted
    sequences               [n, 4]: first row, rows, position of the first, where its blocks begin in `table`
    table                   the blocks of every sequence, one sequence after the other
    adapters                the number of each row's adapter, -1 for none; nothing where no row has one

    `ids` and `sampled` stay where they are, for operations that hold their address; `capacity` rows fit in them.
    """

    def __init__(self, capacity: int):
        self.struct = _Step()
        self.ids = np.zeros(capacity, np.int32)
        self.sampled = np.zeros(capacity, np.int32)
        self.struct.ids, self.struct.sampled = self.ids.ctypes.data, self.sampled.ctypes.data
        self._kept: list[array[int]] = []

    def set(
        self, ids: Numbers, positions: Numbers, slots: Numbers, sampled: Numbers, sequences: Numbers, table: Numbers,
        adapters: Numbers = (),
    ) -> None:  # fmt: skip
        """Arrays of "i" are taken as they are, and must not change before the step is run."""
        struct = self.struct
        assert max(len(ids), len(sampled)) <= len(self.ids)
        self._kept = kept = [
            _array(numbers) for numbers in (ids, sampled, positions, slots, sequences, table, adapters)
        ]
        addresses = [numbers.buffer_info()[0] for numbers in kept]
        struct.rows, struct.samples, struct.sequences = len(ids), len(sampled), len(kept[4]) // 4
        ctypes.memmove(struct.ids, addresses[0], 4 * len(ids))
        ctypes.memmove(struct.sampled, addresses[1], 4 * len(sampled))
        struct.positions, struct.slots, struct.list, struct.table, struct.adapters = addresses[2:]

    @property
    def address(self) -> int:
        return ctypes.addressof(self.struct)

    def field(self, name: str) -> int:
        """The address of a field, for operations that read it."""
        return self.address + int(getattr(_Step, name).offset)


class Program:
    """Operations in order. `rows` is the address of the number of rows an operation works on."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.kept: list[object] = []
        self._array: ctypes.Array[Op] | None = None

    def quantize(
        self,
        rows: int,
        x: Tensor,
        out: Tensor,
        columns: int,
        norm: Tensor | None = None,
        eps: float = 0.0,
        bias: Tensor | None = None,
        *,
        which: int = 0,
    ) -> None:
        """out[i] = x[i] (float32 [., >= columns]) in int8 groups; normalised first where `norm` is a weight: by layer norm
        with a bias, by rms norm without. `which`: the address of the index of each row."""
        op = self._add(QUANTIZE, rows, [x, out, norm, which, bias], [x.stride(0), columns])
        op.f[0] = eps

    def hidden(
        self, rows: int, x: Tensor, out: Tensor, gate: Part, up: Part | None, bias: Tensor | None, activation: str, *,
        first: int = 0, adapters: Adapters | None = None,
    ) -> None:  # fmt: skip
        """out = act(x G^T + b) * (x U^T + c) in int8 groups; without the product when there is no U. x is quantized rows,
        bias [N] or [2 N]. `first` as in `linear`. `adapters` add to both products; `shrink` has read x for them."""
        packed, (n, k), format = gate
        assert up is None or up[1] == (n, k)
        biases = (None, None) if bias is None else (bias, bias[n:])
        pointers = [x, out, packed, biases[0], up and up[0], up and biases[1], first]
        if adapters:
            pointers.append(adapters.address)
            self.kept.append(adapters)
        numbers = [n, k, format.span, *((up[2].code, up[2].span) if up else ())]
        self._add(HIDDEN, rows, pointers, numbers, ACTIVATIONS[activation] + 16 * format.code)

    def shrink(self, rows: int, x: Tensor, columns: int, adapters: Adapters) -> None:
        """The first half of what adapters add to a product of x, quantized rows: scale * A x of each row."""
        self._add(SHRINK, rows, [x, *[None] * 6, adapters.address], [columns])
        self.kept.append(adapters)

    def expand(self, rows: int, out: Tensor, adapters: Adapters) -> None:
        """The second half: out [., N] (float32) += B times that, in every row that has an adapter."""
        self._add(EXPAND, rows, [out, *[None] * 6, adapters.address], [out.shape[1], out.stride(0)])

    def linear(
        self, rows: int, x: Tensor, out: Tensor, packed: Tensor, shape: tuple[int, int], format: Format,
        bias: Tensor | None = None, *, start: int = 0, adds: bool = False, first: int = 0,
    ) -> None:  # fmt: skip
        """out[:, start : start + N] (float32) = x W^T + bias, or += it; x is quantized rows, W packed [N, K] = `shape`.
        `first`: the address of the number of the first row of x and out, where that is not 0."""
        assert start + shape[0] <= out.shape[1]
        assert packed.nbytes == format.nbytes(*shape)
        bias = None if bias is None else bias[start:]
        pointers = [x, out[:, start:], packed, bias, first]
        self._add(LINEAR, rows, pointers, [*shape, out.stride(0), adds, format.span], format.code)

    def norm(
        self, rows: int, x: Tensor, out: Tensor, weight: Tensor, eps: float, bias: Tensor | None = None, *,
        adds: bool = False,
    ) -> None:  # fmt: skip
        """out = the rms norm of x, with a bias its layer norm, or += that; float32."""
        op = self._add(NORM, rows, [x, out, weight, bias], [x.stride(0), len(weight), out.stride(0), adds])
        op.f[0] = eps

    def embed(self, rows: int, ids: int, out: Tensor, packed: Tensor, format: Format, factor: float = 1.0) -> None:
        """out[i] = row ids[i] of a packed weight, times the factor; `ids` is an address."""
        op = self._add(EMBED, rows, [ids, out, packed], [out.shape[1], format.span], format.code)
        op.f[0] = factor

    def add_places(self, step: Step, x: Tensor, table: Tensor) -> None:
        """x[i] += table[position of row i], both float32: learned positions."""
        self._add(ADD_PLACES, step.field("rows"), [x, table, *[None] * 5, step.address], [x.stride(0), table.shape[1]])

    def place(
        self, step: Step, qkv: Tensor, keys: Tensor, values: Tensor, format: PageFormat, heads: tuple[int, int],
        angles: tuple[Tensor, Tensor] | None, norms: tuple[Tensor, Tensor] | None = None, eps: float = 0.0,
    ) -> None:  # fmt: skip
        """Normalise and rotate q and k of float32 qkv in place; write k and v to the pages of a layer. heads: H, K."""
        cos, sin = angles or (None, None)
        half = 0 if cos is None else cos.shape[1]
        pointers = [qkv, keys, values, cos, sin, *(norms or (None, None)), step.address]
        numbers = [qkv.stride(0), *heads, format.dim, half, _between_blocks(keys, values, format)]
        op = self._add(PLACE, step.field("rows"), pointers, numbers, KEPT[format.kept])
        op.f[0] = eps

    def attend(
        self, step: Step, qkv: Tensor, keys: Tensor, values: Tensor, format: PageFormat, out: Tensor,
        heads: tuple[int, int], scale: float, window: int | None = None, softcap: float | None = None,
    ) -> None:  # fmt: skip
        """out [., H * D] float32 = attention of qkv's queries over the pages. A row's result depends on its position, its
        query and the keys and values it sees, and on nothing else: not on the rows beside it, nor on the threads."""
        pointers = [qkv, keys, values, out, None, None, None, step.address]
        numbers = [qkv.stride(0), *heads, format.dim, window or 0, _between_blocks(keys, values, format)]
        op = self._add(ATTEND, step.field("rows"), pointers, numbers, KEPT[format.kept])
        op.f[0], op.f[1] = scale, softcap or 0.0

    def route(
        self, rows: int, x: Tensor, routes: Routes, router: Tensor, gate: Tensor | None, normalised: bool
    ) -> None:
        """Choose the experts of each row of x by the softmax of x router^T, the lower one where two are alike, and number
        its pairs (row, expert). `normalised`: a row's weights sum to 1. `gate` [1, K]: of the shared expert."""
        pointers = [x, router, gate, *[None] * 4, routes.address]
        self._add(ROUTE, rows, pointers, [x.stride(0), x.shape[1], routes.experts, routes.top_k, normalised])
        self._add(DEAL, rows, [*[None] * 7, routes.address], [routes.experts, routes.top_k])
        self.kept.append(routes)

    def combine(
        self, rows: int, routes: Routes, pairs: Tensor, shared: Tensor | None, out: Tensor, *, adds: bool = False
    ) -> None:
        """out [., K] = for each row the sum of its pairs [., K], weighted, in order of expert, and of the shared expert's
        answer times its gate; or += that."""
        pointers = [pairs, shared, out, *[None] * 4, routes.address]
        self._add(COMBINE, rows, pointers, [pairs.shape[1], out.stride(0), routes.top_k, adds])

    def run(self) -> None:
        native = library()
        assert native is not None, "a program needs the native library"
        if self._array is None:
            self._array = (Op * len(self.ops))(*self.ops)
        native.myna_run(ctypes.addressof(self._array), len(self.ops))

    def _add(
        self, code: int, rows: int, pointers: Sequence[Tensor | int | None], numbers: list[int], kind: int = 0
    ) -> Op:
        op = Op(code=code, kind=kind, rows=rows)
        for i, pointer in enumerate(pointers):
            op.p[i] = pointer.data_ptr() if isinstance(pointer, Tensor) else pointer or 0
        op.n[: len(numbers)] = [int(n) for n in numbers]
        self.kept += [pointer for pointer in pointers if isinstance(pointer, Tensor)]
        self.ops.append(op)
        self._array = None
        return op


def _between_blocks(keys: Tensor, values: Tensor, format: PageFormat) -> int:
    """Bytes from one block of a layer to the next; a block's heads follow one another."""
    assert keys.stride() == values.stride() == (keys.stride(0), format.nbytes, 1)
    return keys.stride(0)


def product(x: Tensor, out: Tensor, pieces: Iterable[Part], bias: Tensor | None) -> None:
    """out [M, N] = x [M, K] times the packed pieces of a weight, one below the other."""
    count = c_int32(len(x))
    rows = ctypes.addressof(count)
    quantized = torch.empty(len(x) * row_bytes(x.shape[1]), dtype=torch.uint8)
    program, start = Program(), 0
    program.quantize(rows, x, quantized, x.shape[1])
    for packed, shape, format in pieces:
        program.linear(rows, quantized, out, packed, shape, format, bias, start=start)
        start += shape[0]
    program.run()


def gather(ids: Tensor, out: Tensor, packed: Tensor, format: Format) -> None:
    """out [n, K] = rows ids (int32 [n]) of a packed weight."""
    count = c_int32(len(ids))
    program = Program()
    program.embed(ctypes.addressof(count), ids.data_ptr(), out, packed, format)
    program.run()
