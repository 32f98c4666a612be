"""int8 weights: how far from the exact product, and how little a row knows of its batch mates."""

import pytest
import torch

from myna.model import linear as module
from myna.model.linear import PACKED_ROWS, Int8Linear, Linear
from myna.records import ModelDirError

SHAPES = [(64, 40), (576, 1536), (1536, 300), (40, 7), (24, 64), (8, 2), (16, 1)]


def filled(columns: int, rows: int, scale: float = 0.05) -> tuple[Int8Linear, torch.Tensor]:
    torch.manual_seed(columns + rows)
    weight = torch.randn(rows, columns) * scale
    layer = Int8Linear(columns, rows)
    layer.fill(0, weight.clone())
    return layer, weight


@pytest.mark.parametrize("shape", SHAPES)
def test_no_weight_is_off_by_more_than_half_a_step(shape: tuple[int, int]) -> None:
    layer, weight = filled(*shape)
    error = (layer.weight.double() * layer.scale.double()[:, None] - weight.double()).abs()
    # The largest of a row may fall outside 127 steps by what rounding the scale to bfloat16 (1/256) took away.
    assert (error <= layer.scale.double()[:, None] * (0.5 + 127 / 256)).all()
    assert (error <= layer.scale.double()[:, None] * 0.5000001).double().mean() > 0.99


@torch.inference_mode()
@pytest.mark.parametrize("batch", [1, 5, PACKED_ROWS, PACKED_ROWS + 1, 70])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_product_is_within_a_stated_bound_of_float64(shape: tuple[int, int], batch: int) -> None:
    """With x rounded to bfloat16, the sums in float32 and the result rounded to bfloat16, the error of an element is at
    most 2^-8 of itself for each of two roundings, plus float32's in the sum."""
    layer, _ = filled(*shape)
    x = torch.randn(batch, shape[0]).bfloat16()
    exact = x.double() @ (layer.weight.double() * layer.scale.double()[:, None]).T
    size = x.double().abs() @ (layer.weight.double().abs() * layer.scale.double()[:, None]).T
    bound = 2 * 2**-8 * exact.abs() + shape[0] * 2**-24 * size
    assert ((layer(x.float()) - exact).abs() <= bound).all()


@torch.inference_mode()
def test_packed_and_converted_products_agree_within_bfloat16_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _ = filled(576, 1536)
    x = torch.randn(PACKED_ROWS, 576)
    packed = layer(x)
    monkeypatch.setattr(module, "PACKED_ROWS", 0)
    torch.testing.assert_close(layer(x), packed, rtol=2**-7, atol=1e-4)


@torch.inference_mode()
def test_a_row_of_a_packed_product_does_not_depend_on_its_batch_mates() -> None:
    layer, _ = filled(576, 1536)
    x = torch.randn(PACKED_ROWS, 576)
    alone = torch.cat([layer(row[None]) for row in x])
    assert all(torch.equal(layer(x[:n]), alone[:n]) for n in range(1, PACKED_ROWS + 1))


@torch.inference_mode()
def test_converting_in_blocks_is_converting_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, and rows larger than a block."""
    layer, _ = filled(64, 40)
    x = torch.randn(PACKED_ROWS + 9, 64)
    whole = layer(x)
    for block in (16, 64 * 7):
        monkeypatch.setattr(module, "BLOCK_ELEMENTS", block)
        monkeypatch.setattr(module, "_local", type("Fresh", (), {})())
        torch.testing.assert_close(layer(x), whole, rtol=2**-7, atol=1e-5)


def test_gradients_pass_through_an_int8_layer_to_its_input() -> None:
    """What QLoRA needs."""
    layer, _ = filled(64, 40)
    x = torch.randn(3, 64, requires_grad=True)
    layer(x).sum().backward()
    exact = (layer.weight.double() * layer.scale.double()[:, None]).sum(0)
    torch.testing.assert_close(x.grad[0].double(), exact, rtol=0.02, atol=0.02)


@torch.inference_mode()
def test_leading_shapes_do_not_matter() -> None:
    for layer in (filled(64, 40)[0], Linear(64, 40, bias=True)):
        x = torch.randn(2, 3, 64)
        assert torch.equal(layer(x).flatten(0, 1), layer(x.flatten(0, 1)))


def test_embedding_rows_are_the_weights_rows() -> None:
    layer, weight = filled(64, 40)
    ids = torch.tensor([[3, 0], [39, 3]])
    torch.testing.assert_close(layer.rows(ids), weight[ids], rtol=0, atol=float(layer.scale.max()))


def test_a_row_of_zeros_stays_zero() -> None:
    layer = Int8Linear(8, 2)
    layer.fill(0, torch.zeros(2, 8))
    assert torch.equal(layer(torch.ones(1, 8)), torch.zeros(1, 2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ModelDirError, match="not a number"):
        Int8Linear(8, 2).fill(0, torch.full((1, 8), bad))


def test_a_layer_used_in_inference_mode_can_be_trained_through_later() -> None:
    """The scratch of converted weights outlives the mode it was first needed in."""
    layer, x = filled(64, 40)[0], torch.randn(PACKED_ROWS + 1, 64)
    module._local.__dict__.clear()
    with torch.inference_mode():
        first = layer(x)
    assert torch.equal(layer(x), first)
