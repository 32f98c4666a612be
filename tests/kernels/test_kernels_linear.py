"""Packing loses nothing, and the packed product is float64's within float32 rounding, at every level."""

import ctypes

import pytest
import torch
from kernel_cases import LEVELS, native, needs_compiler, random_grouped, random_packed

from myna.kernels import FORMATS, Program, reference
from myna.kernels.formats import pack, unpack
from myna.kernels.program import gather, product

SHAPES = [(1, 1), (33, 31), (64, 576), (70, 100), (5, 1536), (161, 64)]  # N x K
pytestmark = needs_compiler


def weights(name: str, rows: int, columns: int) -> torch.Tensor:
    """The weight that random_grouped stands for, from its definition."""
    g = random_grouped(name, rows, columns)
    scales = g.scales.double().repeat_interleave(FORMATS[name].span, dim=1)[:, : g.q.shape[1]]
    scale, base = scales[..., :1], scales[..., 1:] if scales.shape[-1] == 2 else 0.0
    if name == "q6k":
        scale = scale * (g.whole.double() - 128).flatten(1).repeat_interleave(16, dim=1).view(g.q.shape)
    elif g.whole is not None:
        scale, base = scale * g.whole[..., :1], -base * g.whole[..., 1:]
    return ((g.q.double() - FORMATS[name].zero) * scale + base).flatten(1)[:, :columns]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
def test_unpacking_gives_back_what_was_packed(name: str, shape: tuple[int, int]) -> None:
    rows, columns = shape[0], shape[1]
    packed = pack(random_grouped(name, rows, columns), FORMATS[name])
    assert packed.nbytes == FORMATS[name].nbytes(rows, columns)
    torch.testing.assert_close(
        unpack(packed, rows, columns, FORMATS[name]).double(), weights(name, rows, columns), rtol=2**-23, atol=1e-7
    )


def bound(
    q: torch.Tensor, scale: torch.Tensor, packed: torch.Tensor, shape: tuple[int, int], name: str
) -> torch.Tensor:
    """float32 rounds each group's term a few times and adds up the groups; q * scale and base may cancel."""
    size = (q * scale.double()).abs().flatten(1)[:, : shape[1]] @ unpack(packed, *shape, FORMATS[name]).double().abs().T
    largest = (q * scale.double()).abs().flatten(1).sum(1, keepdim=True)
    return (size + largest) * 2**-22


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
def test_the_product_is_float64s(name: str, shape: tuple[int, int], level: str) -> None:
    rows, columns = shape[0], shape[1]
    packed, format = random_packed(name, rows, columns), FORMATS[name]
    bias = torch.randn(rows)
    for batch in (1, 2, 5, 6, 7, 13, 32, 300):
        x = torch.randn(batch, columns)
        out = torch.full((batch + 2, rows), 7.0)
        with native(level):
            product(x, out[1:-1], [(packed, (rows, columns), format)], bias)
        q, scale = reference.quantize(x)
        exact = reference.linear(q, scale, packed, (rows, columns), format)
        assert ((out[1:-1] - bias - exact).abs() <= bound(q, scale, packed, (rows, columns), name) + 1e-6).all()
        assert (out[[0, -1]] == 7).all(), "written outside"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_row_does_not_depend_on_its_batch_mates_or_on_threads(name: str, level: str) -> None:
    rows, columns = 200, 96
    pieces = [(random_packed(name, rows, columns), (rows, columns), FORMATS[name])]
    x, alone = torch.randn(40, columns), torch.empty(40, rows)
    with native(level, threads=1):
        for i in range(40):
            product(x[i : i + 1], alone[i : i + 1], pieces, None)
    for threads, batch in ((1, 40), (2, 40), (3, 17), (5, 3), (2, 8)):
        out = torch.empty(batch, rows)
        with native(level, threads):
            product(x[:batch], out, pieces, None)
        assert torch.equal(out, alone[:batch])


@pytest.mark.parametrize("level", LEVELS)
def test_extreme_rows_stay_in_their_row(level: str) -> None:
    """Zeros, the smallest and largest numbers, infinity and NaN: each row is what it would be alone, NaN included."""
    rows, columns = 40, 64
    packed, format = random_packed("q8", rows, columns), FORMATS["q8"]
    x = torch.randn(8, columns)
    x[1], x[2], x[3] = 0, 1e-42, 1e34
    x[4, 5], x[5, 40], x[6, 0] = torch.inf, torch.nan, -torch.inf
    out = torch.empty(8, rows)
    with native(level):
        product(x, out, [(packed, (rows, columns), format)], None)
    assert out[[4, 5, 6]].isnan().all()
    assert (out[[1, 2]] == 0).all()
    exact = reference.linear(*reference.quantize(x), packed, (rows, columns), format)
    keep = [0, 3, 7]
    torch.testing.assert_close(out[keep].double(), exact[keep], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FORMATS)
def test_full_scale_numbers_do_not_saturate(name: str, level: str) -> None:
    """The largest product of each sign in every place: where 16-bit sums would overflow."""
    rows, columns = 32, 64
    grouped = random_grouped(name, rows, columns)
    grouped.q[:16], grouped.q[16:] = 0, (1 << FORMATS[name].bits) - 1
    packed = pack(grouped, FORMATS[name]).flatten()
    x = torch.cat((torch.ones(1, columns), -torch.ones(1, columns)))
    out = torch.empty(2, rows)
    with native(level):
        product(x, out, [(packed, (rows, columns), FORMATS[name])], None)
    exact = reference.linear(*reference.quantize(x), packed, (rows, columns), FORMATS[name])
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("level", LEVELS)
def test_an_empty_batch_is_an_empty_answer(level: str) -> None:
    out = torch.full((1, 40), 7.0)
    with native(level):
        product(torch.empty(0, 64), out[:0], [(random_packed("q8", 40, 64), (40, 64), FORMATS["q8"])], None)
    assert (out == 7).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FORMATS)
def test_unaligned_memory_is_read_alike(name: str, level: str) -> None:
    rows, columns = 40, 96
    packed = random_packed(name, rows, columns)
    shifted = torch.empty(packed.numel() + 2, dtype=torch.uint8)[2:].copy_(packed)
    x = torch.randn(3, columns)
    loose = torch.empty(3 * columns + 1)[1:].view(3, columns).copy_(x)
    outs = [torch.empty(3, rows), torch.empty(3 * rows + 1)[1:].view(3, rows)]
    with native(level):
        for out, weight, given in zip(outs, (packed, shifted), (x, loose), strict=True):
            product(given, out, [(weight, (rows, columns), FORMATS[name])], None)
    assert torch.equal(*outs)


@pytest.mark.parametrize("level", LEVELS)
def test_pieces_of_several_formats_lie_side_by_side(level: str) -> None:
    columns, sizes = 256, {"q8": 33, "q4k": 64, "q6k": 20, "q4a": 7}
    pieces = [(random_packed(n, rows, columns), (rows, columns), FORMATS[n]) for n, rows in sizes.items()]
    x, out, bias = torch.randn(9, columns), torch.empty(9, sum(sizes.values())), torch.randn(sum(sizes.values()))
    with native(level):
        product(x, out, pieces, bias)
    parts = [reference.linear(*reference.quantize(x), *piece) for piece in pieces]
    torch.testing.assert_close(out.double(), torch.cat(parts, 1) + bias, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FORMATS)
def test_gathered_rows_are_the_unpacked_ones(name: str, level: str) -> None:
    rows, columns = 70, 40
    packed, ids = random_packed(name, rows, columns), torch.tensor([69, 0, 31, 32, 0], dtype=torch.int32)
    out = torch.empty(5, columns)
    with native(level):
        gather(ids, out, packed, FORMATS[name])
    torch.testing.assert_close(out, unpack(packed, rows, columns, FORMATS[name])[ids.long()], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("first", [0, 3])
def test_a_product_may_add_to_what_is_there_beside_others_and_from_a_row_on(level: str, first: int) -> None:
    rows, columns, count = 40, 96, ctypes.c_int32(7)
    packed, x, start = random_packed("q8", rows, columns), torch.randn(10, columns), torch.randn(11, 60)
    q, scale = reference.quantize(x)
    exact, offset, out = start.double(), ctypes.c_int32(first), start.clone()
    exact[first : first + 7, 15:55] += reference.linear(q, scale, packed, (rows, columns), FORMATS["q8"])[first:][:7]
    program = Program()
    program.linear(
        ctypes.addressof(count), reference.rows(q, scale), out, packed, (rows, columns), FORMATS["q8"],
        start=15, adds=True, first=ctypes.addressof(offset),
    )  # fmt: skip
    with native(level):
        program.run()
    torch.testing.assert_close(out.double(), exact, rtol=1e-4, atol=1e-4)
