"""What lies between two products, norms, activations and 8-bit rows, against float64 at every level."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
import torch
from kernel_cases import LEVELS, native, needs_compiler, random_packed
from torch import Tensor

from myna.kernels import FORMATS, Program, Step, reference, row_bytes
from myna.kernels.program import ACTIVATIONS, Part

pytestmark = [needs_compiler, pytest.mark.parametrize("level", LEVELS)]
SIZES = [1, 15, 16, 33, 64, 576]


def run(level: str, rows: int, describe: Callable[[Program, int], None]) -> None:
    """Describe one operation on so many rows, and run it."""
    count, program = ctypes.c_int32(rows), Program()
    describe(program, ctypes.addressof(count))
    with native(level):
        program.run()


def quantized(out: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """The bytes of quantized rows as int8 [M, G, 32], float32 [M, G, 1], int16 [M, G, 2] of the halves."""
    groups = out.view(-1, -(-columns // 32), row_bytes(32))
    q, scale, _, _, halves = (part.contiguous() for part in groups.split((32, 4, 4, 4, 4), dim=2))
    return q.view(torch.int8), scale.view(torch.float32), halves.view(torch.int16)


@pytest.mark.parametrize("columns", SIZES)
def test_quantized_rows_are_the_references_bit_for_bit(level: str, columns: int) -> None:
    x = torch.randn(9, columns) * torch.logspace(-8, 8, 9)[:, None]
    x[3, :1], x[4, -1:], x[5], x[6, 0] = torch.nan, -torch.inf, 0, 1e-38
    out = torch.empty(9 * row_bytes(columns), dtype=torch.uint8)
    run(level, 9, lambda p, rows: p.quantize(rows, x, out, columns))
    q, scale, sums = quantized(out, columns)
    exact_q, exact_scale = reference.quantize(x)
    assert torch.equal(q, exact_q)
    assert torch.equal(scale.nan_to_num(7), exact_scale.nan_to_num(7))
    assert torch.equal(sums, q.unflatten(2, (2, 16)).sum(-1, dtype=torch.int16))
    assert torch.equal(out, reference.rows(exact_q, exact_scale).flatten()) or x.isnan().any()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("columns", SIZES)
def test_norm_and_quantize_picks_rows_and_is_within_half_a_step(level: str, columns: int, biased: bool) -> None:
    x, weight, which = torch.randn(9, columns) * 3 + 1, torch.rand(columns) + 0.5, np.array([8, 0, 3, 3], np.int32)
    bias = torch.randn(columns) if biased else None
    out = torch.empty(4 * row_bytes(columns), dtype=torch.uint8)
    run(level, 4, lambda p, rows: p.quantize(rows, x, out, columns, weight, 1e-5, bias, which=which.ctypes.data))
    q, scale, _ = quantized(out, columns)
    exact = reference.normalise(x.double()[which], weight.double(), 1e-5, None if bias is None else bias.double())
    got = (q * scale.double()).flatten(1)[:, :columns]
    step = scale.double().expand(-1, -1, 32).flatten(1)[:, :columns]
    assert ((got - exact).abs() <= step * 0.5001 + 1e-6).all()


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("columns", SIZES)
def test_a_norm_may_add_to_what_is_there(level: str, columns: int, biased: bool) -> None:
    x, weight, start = torch.randn(5, columns) - 2, torch.rand(columns) + 0.5, torch.randn(5, columns)
    bias = torch.randn(columns) if biased else None
    exact = reference.normalise(x.double(), weight.double(), 0.3, None if bias is None else bias.double())
    for adds in (False, True):
        out = start.clone()
        run(level, 5, lambda p, rows, out=out, adds=adds: p.norm(rows, x, out, weight, 0.3, bias, adds=adds))
        torch.testing.assert_close(out.double(), exact + start * adds, rtol=1e-5, atol=2e-6)


def test_a_layer_norm_of_numbers_far_from_zero_keeps_its_precision(level: str) -> None:
    """The variance from squares less the squared mean would be noise here; and a broken row stays alone."""
    x, weight, bias = torch.randn(4, 100) + 1000, torch.rand(100) + 0.5, torch.randn(100)
    x[1, 7], x[2, 99] = torch.nan, torch.inf
    out = torch.empty(4, 100)
    run(level, 4, lambda p, rows: p.norm(rows, x, out, weight, 1e-5, bias))
    assert out[1:3].isnan().all()
    exact = reference.normalise(x.double(), weight.double(), 1e-5, bias.double())
    torch.testing.assert_close(out[[0, 3]].double(), exact[[0, 3]], rtol=1e-3, atol=1e-3)


def test_a_program_may_grow_after_it_ran(level: str) -> None:
    x, weight, out = torch.randn(2, 16), torch.ones(16), torch.zeros(2, 16)
    count, program = ctypes.c_int32(2), Program()
    with native(level):
        program.norm(ctypes.addressof(count), x, out, weight, 1e-5)
        program.run()
        once = out.clone()
        program.norm(ctypes.addressof(count), x, out, weight, 1e-5, adds=True)
        program.run()
    assert torch.equal(out, 2 * once)


@pytest.mark.parametrize("columns", SIZES)
def test_learned_positions_are_added_to_their_rows(level: str, columns: int) -> None:
    x, table, positions = torch.randn(3, columns), torch.randn(9, columns), [8, 0, 3]
    exact, step, program = x + table[positions], Step(3), Program()
    step.set([0] * 3, positions, [0] * 3, [], [], [])
    program.add_places(step, x, table)
    with native(level):
        program.run()
    assert torch.equal(x, exact)


def hidden_layer(level: str, rows: int, gate: Part, up: Part | None, bias: Tensor | None, activation: str) -> None:
    """The first row holds a NaN; the others are within half a step of float64's."""
    n, columns = gate[1]
    x = torch.randn(rows, columns) * torch.logspace(-3, 1, rows)[:, None]
    x[0, 0] = torch.nan
    q, scale = reference.quantize(x)
    exact = reference.hidden(q, scale, gate, up, bias, activation)[1:]
    quantized_x, out = reference.rows(q, scale), torch.empty(rows * row_bytes(n), dtype=torch.uint8)
    run(level, rows, lambda p, count: p.hidden(count, quantized_x, out, gate, up, bias, activation))
    q, scale, sums = quantized(out, n)
    assert scale.isnan().flatten(1).any(1).tolist() == [True] + [False] * (rows - 1)
    assert torch.equal(sums, q.unflatten(2, (2, 16)).sum(-1, dtype=torch.int16))
    step = scale[1:].double().expand(-1, -1, 32).flatten(1)[:, :n]
    assert (((q * scale.double()).flatten(1)[1:, :n] - exact).abs() <= step * 0.502 + 1e-5).all()


def part(name: str, rows: int, columns: int, seed: int) -> Part:
    return random_packed(name, rows, columns, seed), (rows, columns), FORMATS[name]


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_float64s_within_half_a_step(level: str, name: str, gated: bool) -> None:
    up = part("q8", 45, 70, 2) if gated else None
    hidden_layer(level, 7, part("q8", 45, 70, 1), up, torch.randn(45 * (1 + gated)), name)


@pytest.mark.parametrize("rows", [2, 5, 6, 13, 300])
@pytest.mark.parametrize("formats", [("q8", "q8"), ("q4k", "q8"), ("q4s", "q4a"), ("q4a", None)])
def test_gate_and_up_may_be_of_different_formats(level: str, formats: tuple[str, str | None], rows: int) -> None:
    gate, up = formats
    columns = 1536 if rows == 300 else 256  # then the rows are done in two stretches
    hidden_layer(level, rows, part(gate, 96, columns, 1), part(up, 96, columns, 2) if up else None, None, "silu")
