"""NEON says bit for bit what portable C++ says on the same processor, and both what the reference says."""

import ctypes

import pytest
import torch
from adapter_rows import Rows, random_parts
from kernel_cases import random_grouped, random_packed

import emulated
from myna.kernels import FORMATS, Program, reference, row_bytes
from myna.kernels.formats import pack

pytestmark = [pytest.mark.slow, emulated.needs_emulator]


@pytest.mark.parametrize("name", FORMATS)
def test_products_of_every_format(name: str) -> None:
    """Tiles whole and cut, columns in groups whole and cut, large and broken numbers."""
    rows, columns, format = 70, 200, FORMATS[name]
    packed, x, bias = random_packed(name, rows, columns), torch.randn(13, columns), torch.randn(rows)
    x[3], x[4], x[5, 7] = 0, 1e30, torch.nan
    outs = []
    for level in emulated.LEVELS:
        count, program = ctypes.c_int32(len(x)), Program()
        out, quantized = torch.zeros(13, rows), torch.zeros(13 * row_bytes(columns), dtype=torch.uint8)
        program.quantize(ctypes.addressof(count), x, quantized, columns)
        program.linear(ctypes.addressof(count), quantized, out, packed, (rows, columns), format, bias)
        emulated.run(level, program, count)
        outs.append((out, quantized))
    (neon, neon_rows), (portable, portable_rows) = outs
    assert torch.equal(neon_rows, portable_rows)
    assert torch.equal(neon.nan_to_num(7), portable.nan_to_num(7))
    exact = reference.linear(*reference.quantize(x), packed, (rows, columns), format) + bias
    keep = [row for row in range(13) if row != 5]
    assert neon[5].isnan().all()
    torch.testing.assert_close(neon[keep].double(), exact[keep], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["q8", "q4s", "q6k"])
def test_full_scale_numbers_do_not_saturate(name: str) -> None:
    grouped = random_grouped(name, 32, 64)
    grouped.q[:16], grouped.q[16:] = 0, (1 << FORMATS[name].bits) - 1
    packed, x = pack(grouped, FORMATS[name]).flatten(), torch.cat((torch.ones(1, 64), -torch.ones(1, 64)))
    count, program, out = ctypes.c_int32(2), Program(), torch.empty(2, 32)
    quantized = torch.empty(2 * row_bytes(64), dtype=torch.uint8)
    program.quantize(ctypes.addressof(count), x, quantized, 64)
    program.linear(ctypes.addressof(count), quantized, out, packed, (32, 64), FORMATS[name])
    emulated.run("neon", program, count)
    exact = reference.linear(*reference.quantize(x), packed, (32, 64), FORMATS[name])
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_adapters_add(dtype: torch.dtype) -> None:
    """Ranks and columns in vectors whole and cut; into a product and before an activation."""
    x = torch.randn(6, 200)
    adapters = [random_parts(200, [(0, 37), (37, 74)], [9, 20], dtype), random_parts(200, [(37, 74)], [3], dtype)]
    found = []
    for level in emulated.LEVELS:
        out, hidden = torch.zeros(6, 74), torch.zeros(6 * row_bytes(37), dtype=torch.uint8)
        some = Rows(x, [0, 1, -1, 1, 0, 0], adapters, half=37)
        some.adapters.shrunk.zero_()
        emulated.run(level, some.add(out))
        emulated.run(level, some.hide(hidden, 37, "silu", True, None))
        found.append((out, hidden))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    added = reference.adapt(*reference.quantize(x), adapters, [0, 1, -1, 1, 0, 0], 74)
    torch.testing.assert_close(found[0][0].double(), added, rtol=1e-4, atol=1e-3)
