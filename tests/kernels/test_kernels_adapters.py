"""What adapters add to products: each row its own adapter's share, and nothing of its neighbours', at every level."""

import itertools

import pytest
import torch
from adapter_rows import RANKS, Rows, random_parts
from kernel_cases import LEVELS, native, needs_compiler

from myna.kernels import LowRank, reference, row_bytes

pytestmark = [needs_compiler, pytest.mark.parametrize("level", LEVELS)]
DTYPES = [torch.float32, torch.bfloat16]


def qkv(columns: int, dtype: torch.dtype = torch.float32) -> list[list]:
    """Adapters of q, k and v (40, 17 and 17 outputs): of all three, of v alone, of none, of one fused matrix."""
    spans = [(0, 40), (40, 57), (57, 74)]
    return [
        random_parts(columns, spans, [4, 1, 33], dtype),
        random_parts(columns, spans[2:], [8], dtype),
        [],
        random_parts(columns, [(0, 74)], [17], dtype),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 31, 64, 577])
@pytest.mark.parametrize("rows", [0, 1, 5, 40])
def test_each_row_gets_its_adapters_share(level: str, rows: int, columns: int, dtype: torch.dtype) -> None:
    numbers = list(itertools.islice(itertools.cycle([0, -1, 3, 1, 2, 0]), rows))
    some = Rows(torch.randn(rows, columns), numbers, qkv(columns, dtype))
    start = torch.randn(rows, 80)
    out = start.clone()
    with native(level):
        some.add(out[:, 3:77]).run()
    added = reference.adapt(*reference.quantize(some.x), some.parts, numbers, 74)
    torch.testing.assert_close(out[:, 3:77].double(), start[:, 3:77] + added, rtol=1e-4, atol=1e-4 * columns**0.5)
    assert torch.equal(out[:, :3], start[:, :3])
    assert torch.equal(out[:, 77:], start[:, 77:])
    for row, number in enumerate(numbers):
        if number in (-1, 2):
            assert torch.equal(out[row], start[row])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", RANKS)
def test_ranks_from_one_on(level: str, rank: int, dtype: torch.dtype) -> None:
    some = Rows(torch.randn(3, 100), [0, 0, -1], [random_parts(100, [(5, 700)], [rank], dtype)])
    out = torch.zeros(3, 701)
    with native(level):
        some.add(out).run()
    added = reference.adapt(*reference.quantize(some.x), some.parts, some.numbers, 701)
    torch.testing.assert_close(out.double(), added, rtol=1e-4, atol=2e-4)
    assert not out[2].any()


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("hidden", [32, 64, 50])
@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_a_hidden_layer_is_adapted_before_its_activation(level: str, hidden: int, gated: bool, activation: str) -> None:
    """Gate and up each with an adapter of its own, one fused across both, one of the second half alone, none."""
    columns, width = 96, 2 * hidden if gated else hidden
    spans = [(0, hidden), (hidden, width)] if gated else [(0, hidden)]
    adapters = [
        random_parts(columns, spans, [5, 18][: len(spans)]),
        random_parts(columns, [(0, width)], [7]),
        random_parts(columns, spans[-1:], [2]),
    ]
    numbers, bias = [0, -1, 1, 2, 0, 1, -1], torch.randn(width)
    some = Rows(torch.randn(7, columns), numbers, adapters, half=hidden if gated else None)
    out = torch.zeros(7 * row_bytes(hidden), dtype=torch.uint8)
    program = some.hide(out, hidden, activation, gated, bias)
    with native(level):
        program.run()
    q, scale = reference.quantize(some.x)
    added = reference.adapt(q, scale, adapters, numbers, width)
    exact = reference.hidden(q, scale, some.gate, some.up, bias, activation, added)
    got = unquantized(out, 7, hidden)
    assert ((got - exact).abs() <= 0.02 * exact.abs().amax(1, keepdim=True) + 1e-3).all()
    plain = reference.hidden(q, scale, some.gate, some.up, bias, activation)
    assert ((plain - exact).abs().amax(1) > 0.1)[[0, 2, 3, 4, 5]].all(), "the adapters change nothing"


def unquantized(out: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    groups = out.view(rows, -1, 48)
    q, scale = groups[..., :32].contiguous().view(torch.int8), groups[..., 32:36].contiguous().view(torch.float32)
    return (q.double() * scale.double()).flatten(1)[:, :columns]


def test_a_row_does_not_depend_on_its_batch_mates_their_adapters_or_threads(level: str) -> None:
    columns, rows = 200, 23
    adapters, x = qkv(columns), torch.randn(rows, columns)
    numbers = [(7 * row) % 5 - 1 for row in range(rows)]
    gate_up = [random_parts(columns, [(0, 37), (37, 74)], [9, 20]), random_parts(columns, [(37, 74)], [3])]
    gate_up += [[], random_parts(columns, [(0, 74)], [17])]
    together, hidden = torch.zeros(rows, 74), torch.zeros(rows * row_bytes(37), dtype=torch.uint8)
    with native(level, threads=2):
        Rows(x, numbers, adapters).add(together).run()
        Rows(x, numbers, gate_up, half=37).hide(hidden, 37, "silu", True, None).run()
    with native(level, threads=1):
        for row in range(rows):
            number = numbers[row]
            numbered = [0 if number >= 0 else -1]
            alone = torch.zeros(1, 74)
            Rows(x[row : row + 1], numbered, [adapters[number]]).add(alone).run()
            assert torch.equal(alone[0], together[row])
            one = torch.zeros(row_bytes(37), dtype=torch.uint8)
            Rows(x[row : row + 1], numbered, [gate_up[number]], half=37).hide(one, 37, "silu", True, None).run()
            assert torch.equal(one, hidden.view(rows, -1)[row])


def test_a_broken_row_stays_alone(level: str) -> None:
    x, adapters = torch.randn(4, 64), qkv(64)
    whole, broken = torch.zeros(4, 74), torch.zeros(4, 74)
    bad = x.clone()
    bad[1, 5], bad[3] = torch.nan, torch.inf
    with native(level):
        Rows(x, [0, 0, 1, 3], adapters).add(whole).run()
        Rows(bad, [0, 0, 1, 3], adapters).add(broken).run()
    assert torch.equal(whole[[0, 2]], broken[[0, 2]])
    assert broken[[1, 3]].isnan().any(dim=1).all()


def test_unaligned_memory_is_read_alike(level: str) -> None:
    adapters, x = qkv(96), torch.randn(3, 96)
    aligned, memory = torch.zeros(3, 74), torch.zeros(3 * 74 + 1)
    odd = memory[1:].view(3, 74)
    with native(level):
        Rows(x, [0, 1, 3], adapters).add(aligned).run()
        Rows(x, [0, 1, 3], adapters).add(odd).run()
    assert torch.equal(aligned, odd)


def test_a_part_of_a_gate_is_no_part_of_an_mlp(level: str) -> None:
    """The kernel would read beyond its end."""
    with pytest.raises(AssertionError, match="halves"):
        LowRank(random_parts(32, [(0, 20)], [2]), half=37)


def test_an_adapter_takes_what_its_numbers_take(level: str) -> None:
    """Of whole groups and units; bfloat16 half of it."""
    wide, narrow = (LowRank(random_parts(64, [(0, 96), (96, 128)], [4, 8], dtype)) for dtype in DTYPES)
    numbers = 12 * 64 + 4 * 96 + 8 * 32
    assert (wide.nbytes, narrow.nbytes) == (4 * numbers + 4 * 12, 2 * numbers + 4 * 12)
