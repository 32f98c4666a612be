"""Rounding to a packed format: no worse than ggml's, the same at every level, and honest about what it cannot hold."""

import gguf
import numpy as np
import pytest
import torch
from kernel_cases import LEVELS, native, needs_compiler

from myna.kernels import FORMATS, reference
from myna.kernels.formats import Format, pack, unpack
from myna.kernels.quantize import fit, quantize, tries
from myna.records import ModelDirError

GGML = {
    "q8": "Q8_0",
    "q4s": "Q4_0",
    "q4a": "Q4_1",
    "q4k": "Q4_1",
    "q6k": "Q5_1",
}  # the gguf package quantizes to no K type
pytestmark = needs_compiler


def near(weight: torch.Tensor, name: str) -> torch.Tensor:
    """The weight after packing and unpacking."""
    return unpack(pack(quantize(weight, FORMATS[name]), FORMATS[name]), *weight.shape, FORMATS[name])


def heavy(rows: int, columns: int) -> torch.Tensor:
    """Normal numbers, one in a hundred of them ten times larger."""
    random = torch.Generator().manual_seed(rows)
    weight = torch.randn(rows, columns, generator=random) * 0.02
    return weight * (1 + 9 * (torch.rand(rows, columns, generator=random) < 0.01))


def groups_of(weight: torch.Tensor, format: Format) -> torch.Tensor:
    return weight.reshape(-1, format.shared)


def loss(x: torch.Tensor, ends: torch.Tensor, format: Format) -> torch.Tensor:
    """What the search minimises, of each group, float64."""
    x, (scale, base) = x.double(), ends.double().unsqueeze(2).unbind(1)
    q = ((x - base) / scale).nan_to_num(0).round().clamp(-format.zero, (1 << format.bits) - 1 - format.zero)
    return (scale * q + base - x).square().sum(1)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FORMATS)
def test_the_native_search_finds_what_the_reference_finds(name: str, level: str) -> None:
    """Where several scales lose alike (one large number, all others in one step) float32 may prefer another."""
    format = FORMATS[name]
    x = groups_of(torch.cat((heavy(40, 1024), heavy(33, 1024) + 0.1, heavy(8, 1024).abs())), format)
    x = x[: len(x) - 5]  # not a multiple of sixteen groups
    x[0], x[1], x[2], x[3] = 0, 0.25, -0.25, torch.arange(x.shape[1]) * 1e-6
    most = None if format.zero else 0.0 if format.inner else torch.inf
    exact = reference.fit(x, tries(format), -format.zero, (1 << format.bits) - 1 - format.zero, most)
    with native(level):
        found = fit(x, format)
    assert found.isfinite().all()
    ours, theirs = loss(x, found, format), loss(x, exact, format)
    assert ((ours - theirs).abs() <= 1e-3 * theirs + 1e-9).double().mean() > 0.99
    torch.testing.assert_close(ours.sum(), theirs.sum(), rtol=2e-3, atol=0)


@pytest.mark.parametrize(("name", "better"), [("q8", 0.93), ("q4s", 0.98), ("q4a", 0.91), ("q4k", 0.91), ("q6k", 0.85)])
def test_rounding_loses_less_than_ggmls(name: str, better: float) -> None:
    """Root mean square error against the gguf package's rounding to the like type."""
    weight = heavy(256, 1024)
    kind = gguf.GGMLQuantizationType[GGML[name]]
    theirs = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind))
    ours = near(weight, name)
    ratio = (ours - weight).square().mean().sqrt() / (theirs - weight).square().mean().sqrt()
    assert ratio < better, float(ratio)


@pytest.mark.parametrize(
    ("kind", "name"), [("Q8_0", "q8"), ("Q4_0", "q8"), ("Q5_0", "q8"), ("Q4_0", "q4s"), ("Q4_1", "q4a")]
)
def test_numbers_that_a_format_can_hold_are_kept(kind: str, name: str) -> None:
    """Q4_0 and Q5_0 have their largest number at -8 and -16, so 8 bits hold them exactly, if -128 is tried."""
    ggml = gguf.GGMLQuantizationType[kind]
    # Scales of few bits, so that float16 can hold what least squares makes of them.
    raw = gguf.quants.quantize((heavy(64, 1024) * 50).numpy(), ggml)
    raw.reshape(64, 32, -1)[:, :, 0] = 0
    weight = torch.from_numpy(gguf.quants.dequantize(raw, ggml))
    torch.testing.assert_close(near(weight, name), weight, rtol=2**-20, atol=1e-7)


@pytest.mark.parametrize("columns", [1, 31, 33, 64, 100, 576])
@pytest.mark.parametrize("name", FORMATS)
def test_columns_need_not_fill_a_group(name: str, columns: int) -> None:
    weight = heavy(37, columns)
    size = (weight.square().mean() + 1e-12).sqrt()
    assert (near(weight, name) - weight).square().mean().sqrt() < {"q8": 0.02, "q6k": 0.05}.get(name, 0.25) * size


@pytest.mark.parametrize("name", FORMATS)
def test_zeros_constants_and_extremes_are_held(name: str) -> None:
    weight = torch.zeros(6, 256)
    weight[1], weight[2], weight[3] = 0.5, -0.5, 60000
    weight[4, 7], weight[5] = 60000, 1e-42
    close = near(weight, name)
    assert (close[0] == 0).all()
    torch.testing.assert_close(close[1:4], weight[1:4], rtol=1e-3, atol=0)
    assert (close[5] == 0).all()
    if name in (
        "q8",
        "q4s",
        "q4s64",
        "q4s128",
    ):  # of two scales without loss the one with smaller steps, which is -8 or -128 of them
        assert torch.equal(close[1:3], weight[1:3])
    # One huge number among zeros, and zeros beside it.
    torch.testing.assert_close(close[4, 7], weight[4, 7], rtol=1e-3, atol=0)
    assert (close[4].scatter(0, torch.tensor(7), 0).abs() <= 60000 / 2**11).all()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [1e-3, 1e-5, 1e-6, 1e-7])
def test_small_numbers_do_not_vanish_or_burst_with_their_scale(size: float, name: str) -> None:
    """float16 has steps of 6e-8 at the bottom. A scale there is rounded away from 0, so no number is cut off: each is off
    by the steps of its format (q4k's whole scales too) and of float16, at most."""
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(1)) * size
    off = (near(weight, name) - weight).abs().amax()
    step = 2 * weight.abs().amax() / (1 << FORMATS[name].bits)
    assert off <= 1.25 * step + (16 if FORMATS[name].inner else 1) * 2**-24


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e30, -66000.0])
@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_no_scale_can_hold_are_refused(name: str, bad: float) -> None:
    weight = torch.zeros(3, 64)
    weight[1, 40] = bad
    with pytest.raises(ModelDirError, match="load it as float32"):
        quantize(weight, FORMATS[name])


def test_what_is_given_is_not_written_to() -> None:
    weight = heavy(32, 256)
    before = weight.clone()
    for format in FORMATS.values():
        quantize(weight, format)
    assert np.array_equal(weight.numpy(), before.numpy())
