"""Depth decides everything: transformers builds the same model, tensor for tensor."""

from math import prod

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from myna.records import MynaError
from myna.train.shape import shape, shape_spec


@pytest.mark.parametrize(("depth", "experts"), [(1, 0), (3, 0), (2, 4)])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_config_and_has_as_many_parameters(depth: int, experts: int, tied: bool) -> None:
    config = shape(depth, vocab=320, context=128, experts=experts, tied=tied)
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    spec = shape_spec(depth, vocab=320, context=128, experts=experts, tied=tied)
    assert spec.parameters() == sum(p.numel() for p in theirs.parameters())
    assert spec.tied == tied
    assert spec.rope is not None
    assert theirs.config.rope_parameters["rope_theta"] == spec.rope.theta


def test_a_mixture_of_experts_works_as_hard_on_a_token_as_a_plain_mlp() -> None:
    plain, mixed = (shape_spec(4, vocab=512, context=64, experts=experts) for experts in (0, 8))
    router = sum(prod(slot.shape) for path, slot in mixed.slots() if "router" in path)
    assert mixed.active_parameters() - router == pytest.approx(plain.parameters(), rel=0.02)
    assert mixed.parameters() > 2.5 * plain.parameters()


@pytest.mark.parametrize("depth", [1, 2, 5, 6, 12, 24])
def test_sizes_are_what_the_rule_says(depth: int) -> None:
    spec = shape_spec(depth, vocab=1000, context=64)
    assert (spec.width, spec.layers, spec.heads, spec.kv_heads) == (64 * depth, depth, depth, depth)
    assert spec.hidden % 64 == 0
    assert 0 <= spec.hidden - spec.width * 8 / 3 < 64


@pytest.mark.parametrize(
    ("change", "name"),
    [({"depth": 0}, "depth"), ({"vocab": 1}, "vocab"), ({"context": 0}, "context"), ({"experts": 1}, "experts")],
)
def test_what_is_out_of_range_is_named(change: dict[str, int], name: str) -> None:
    with pytest.raises(MynaError, match=name):
        shape(**{"depth": 2, "vocab": 300, "context": 64} | change)
