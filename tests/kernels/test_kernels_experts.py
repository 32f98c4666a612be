"""Mixtures of experts: who goes where, whose rows a product covers, and what comes back, at every level."""

import ctypes

import pytest
import torch
from kernel_cases import LEVELS, native, needs_compiler, random_packed
from torch import Tensor

from myna.kernels import FORMATS, Program, Routes, reference, row_bytes

pytestmark = [needs_compiler, pytest.mark.parametrize("level", LEVELS)]


def route(
    level: str, x: Tensor, router: Tensor, top_k: int, gate: Tensor | None = None, normalised: bool = False
) -> Routes:
    """What is not written to stays -1."""
    routes, program, count = Routes(len(x) + 1, len(router), top_k), Program(), ctypes.c_int32(len(x))
    for numbers in (routes.counts, routes.starts, routes.owners, routes.chosen, routes.numbers):
        numbers.fill_(-1)
    program.route(ctypes.addressof(count), x, routes, router, gate, normalised)
    with native(level):
        program.run()
    return routes


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(
    ("experts", "top_k", "columns"), [(1, 1, 16), (4, 2, 33), (5, 5, 7), (60, 4, 64), (128, 8, 576)]
)
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 70])
def test_rows_go_where_the_reference_sends_them(
    level: str, rows: int, experts: int, top_k: int, columns: int, normalised: bool
) -> None:
    x, router, gate = torch.randn(rows, columns), torch.randn(experts, columns), torch.randn(1, columns)
    routes = route(level, x, router, top_k, gate, normalised)
    chosen, weights = reference.route(x.double(), router.double(), top_k, normalised)
    counts, numbers = reference.deal(chosen, experts)
    assert torch.equal(routes.chosen[:rows].long(), chosen)
    assert torch.equal(routes.counts.long(), counts)
    assert torch.equal(routes.starts.long(), counts.cumsum(0) - counts)
    assert torch.equal(routes.numbers[:rows].long(), numbers)
    assert torch.equal(routes.owners[numbers.flatten()].long(), torch.arange(rows).repeat_interleave(top_k))
    assert routes.struct.pairs == rows * top_k
    assert (routes.chosen[rows:] == -1).all(), "beyond the last row"
    torch.testing.assert_close(routes.weights[:rows].double(), weights, rtol=1e-4, atol=1e-6)
    gates = (x.double() @ gate.double().T).sigmoid().flatten()
    torch.testing.assert_close(routes.gates[:rows].double(), gates, rtol=1e-4, atol=1e-6)


def test_of_experts_alike_the_lowest_are_chosen(level: str) -> None:
    """As in the reference, which the decoder follows; torch.topk leaves it open."""
    x, router = torch.ones(2, 32), torch.zeros(9, 32)
    router[[2, 5, 7]] = 0.5
    assert route(level, x, router, 2).chosen[:2].tolist() == [[2, 5]] * 2
    assert route(level, x, router, 5).chosen[:2].tolist() == [[0, 1, 2, 5, 7]] * 2
    assert torch.equal(reference.route(x, router, 5, True)[0], torch.tensor([[0, 1, 2, 5, 7]] * 2))


@pytest.mark.parametrize("columns", [16, 70])
def test_a_rows_route_does_not_depend_on_its_batch_mates(level: str, columns: int) -> None:
    x, router, gate = torch.randn(11, columns), torch.randn(10, columns), torch.randn(1, columns)
    together = route(level, x, router, 3, gate)
    for row in range(11):
        alone = route(level, x[row : row + 1], router, 3, gate)
        for name in ("chosen", "weights", "gates"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row])


def test_a_row_that_is_not_finite_is_routed_to_experts_that_exist_and_alone(level: str) -> None:
    x, router = torch.randn(5, 40), torch.randn(6, 40)
    whole = route(level, x, router, 2)
    bad = x.clone()
    bad[1, 3], bad[2, 39], bad[4] = torch.nan, torch.inf, 1e38
    routes = route(level, bad, router, 2)
    assert routes.weights[[1]].isnan().all()
    assert ((routes.chosen[:5] >= 0) & (routes.chosen[:5] < 6)).all()
    assert (routes.chosen[:5].diff(dim=1) > 0).all()
    for row in (0, 3):
        assert torch.equal(routes.chosen[row], whole.chosen[row])
        assert torch.equal(routes.weights[row], whole.weights[row])


@pytest.mark.parametrize("rows", [0, 1, 5, 40])
@pytest.mark.parametrize("adds", [True, False])
def test_a_mixture_is_the_weighted_sum_of_its_experts(level: str, rows: int, adds: bool) -> None:
    """Of 12 experts some have no rows; each has its weight, in one of two formats, and a bias."""
    experts, top_k, columns, hidden = 12, 3, 64, 48
    x, router = torch.randn(rows, columns), torch.randn(experts, columns)
    shared, start = torch.randn(rows, hidden), torch.randn(rows, hidden)
    gate, biases = torch.randn(1, columns), torch.randn(experts, hidden)
    formats = [FORMATS["q8" if e % 2 else "q4a"] for e in range(experts)]
    weights = [random_packed(f.name, hidden, columns, seed=e) for e, f in enumerate(formats)]
    routes, program, count = Routes(rows, experts, top_k), Program(), ctypes.c_int32(rows)
    address, out = ctypes.addressof(count), start.clone()
    packed = torch.empty(rows * top_k * row_bytes(columns), dtype=torch.uint8)
    pairs = torch.full((rows * top_k, hidden), torch.nan)
    program.route(address, x, routes, router, gate, False)
    program.quantize(routes.pairs, x, packed, columns, which=routes.owners.data_ptr())
    for e in range(experts):
        of, first = routes.of(e)
        program.linear(of, packed, pairs, weights[e], (hidden, columns), formats[e], biases[e], first=first)
    program.combine(address, routes, pairs, shared, out, adds=adds)
    with native(level):
        program.run()
    chosen, shares = reference.route(x, router, top_k, False)
    q, scale = reference.quantize(x)
    answers = [reference.linear(q, scale, w, (hidden, columns), f) for w, f in zip(weights, formats, strict=True)]
    every = torch.stack(answers, 1) + biases  # [rows, experts, hidden]
    exact = (every.gather(1, chosen[..., None].expand(-1, -1, hidden)) * shares[..., None]).sum(1)
    exact = exact + shared * (x @ gate.T).sigmoid() + start * adds
    torch.testing.assert_close(out.double(), exact, rtol=1e-4, atol=1e-4)
