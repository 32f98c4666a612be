"""NF4 beside bitsandbytes, and what a frozen weight is to gradients."""

import pytest
import torch
import torch.nn.functional as F

from myna.kernels import library
from myna.model.linear import Linear, PackedLinear
from myna.model.nf4 import BLOCK, LEVELS, NF4Linear
from myna.records import ModelDirError


def filled(weight: torch.Tensor, bias: bool = False) -> NF4Linear:
    linear = NF4Linear(weight.shape[1], weight.shape[0], bias)
    linear.fill(0, weight.clone())
    return linear


@pytest.mark.parametrize("shape", [(5, 64), (3, 192), (40, 576), (2, 64 * 300)])
def test_codes_are_those_of_bitsandbytes(shape: tuple[int, int]) -> None:
    from bitsandbytes import functional

    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.rand(shape[0], 1) * 0.1
    theirs, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
    mine = filled(weight)
    assert (mine.codes.flatten() == theirs.flatten()).float().mean() > 0.9999  # but for ties
    torch.testing.assert_close(
        mine.decoded(), functional.dequantize_4bit(theirs, state), rtol=0, atol=2e-3 * weight.abs().max()
    )


def test_scales_in_8_bits_are_within_a_hundredth() -> None:
    torch.manual_seed(1)
    weight = torch.randn(7, 64 * 300)
    exact = weight.unflatten(1, (-1, BLOCK)).abs().amax(2)
    kept = filled(weight).decoded().unflatten(1, (-1, BLOCK)).abs().amax(2)
    assert float(((kept - exact) / exact).abs().max()) < 1e-2


@pytest.mark.parametrize("columns", [64, 100, 1, 63, 65])
def test_what_was_decoded_is_its_own_quantization(columns: int) -> None:
    torch.manual_seed(2)
    once = filled(torch.randn(4, columns)).decoded()
    assert once.shape == (4, columns)
    torch.testing.assert_close(filled(once).decoded(), once, rtol=1e-5, atol=1e-6)


def test_the_error_of_a_normal_weight_is_what_16_levels_leave() -> None:
    torch.manual_seed(3)
    weight = torch.randn(64, 1024)
    error = (filled(weight).decoded() - weight).pow(2).mean().sqrt()
    assert 0.07 < error < 0.10
    assert len(LEVELS.unique()) == 16


def test_rows_zeros_and_what_cannot_be_quantized() -> None:
    weight = torch.randn(6, 128)
    weight[2] = 0
    linear = filled(weight)
    assert torch.equal(linear.rows(torch.tensor([[2, 5]])), linear.decoded()[[2, 5]][None])
    assert not linear.decoded()[2].any()
    with pytest.raises(ModelDirError, match="infinite or not a number"):
        linear.fill(0, torch.tensor([[float("nan")] * 128]))


@pytest.mark.parametrize("kind", ["nf4", "packed"])
def test_the_gradient_is_that_of_the_decoded_weight_which_is_not_kept(kind: str) -> None:
    if kind == "packed" and library() is None:
        pytest.skip("there are no native kernels here")
    torch.manual_seed(4)
    weight = torch.randn(96, 128)
    frozen = NF4Linear(128, 96, bias=True) if kind == "nf4" else PackedLinear(128, 96, bias=True)
    frozen.fill(0, weight.clone())
    assert frozen.bias is not None
    torch.nn.init.normal_(frozen.bias)
    dense = Linear(128, 96, bias=True)
    dense.weight.data, dense.bias = frozen.decoded(), frozen.bias
    made = []
    for linear in (frozen, dense):
        x = torch.linspace(-1, 1, 5 * 128).view(5, 128).requires_grad_()
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            y = linear(x)
        F.silu(y).sum().backward()
        made.append((y.detach(), x.grad, kept))
    torch.testing.assert_close(made[0][0], made[1][0])
    torch.testing.assert_close(made[0][1], made[1][1])
    assert 96 * 128 in made[1][2]
    assert 96 * 128 not in made[0][2]


def test_in_bfloat16_the_gradient_is_the_one_of_the_dense_weight() -> None:
    torch.manual_seed(5)
    frozen = filled(torch.randn(96, 128))
    dense = Linear(128, 96)
    dense.weight.data = frozen.decoded()
    made = []
    for linear in (frozen, dense):
        x = torch.linspace(-1, 1, 5 * 128).view(5, 128).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = linear(x)
        F.silu(y).sum().backward()
        assert x.grad is not None
        assert y.dtype == torch.bfloat16
        made.append((y.detach(), x.grad))
    assert torch.equal(made[0][0], made[1][0])
    assert made[0][1].dtype == torch.float32
    torch.testing.assert_close(made[0][1], made[1][1], atol=1e-2, rtol=1e-2)
