"""Low-rank adapters on our decoder say what PEFT says on transformers', for every family's names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adapter_cases import EVERY, peft_adapter, random_modules, write_folder
from family_cases import LENGTH, oracle
from myna.kernels import library
from myna.model import Adapter, Causal, Decoder, Lora, load_model, read_adapter
from myna.model.lora import Adapted, attach, detach, kept_copy, merge, places, unmerge, written
from myna.modeldir import AdapterDir, ModelDir, publish_adapter
from myna.records import ModelDirError

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "llama": ("llama", EVERY, {}),
    "llama, ranks and alphas of their own": (
        "llama tied, biased, wide heads",
        ("q_proj", "v_proj", "up_proj"),
        {"rank_pattern": {"layers.1.self_attn.q_proj": 9, "up_proj": 1}, "alpha_pattern": {"v_proj": 3, "layers.0.mlp.up_proj": 5}},
    ),
    "qwen2, rslora, some layers": ("qwen2", EVERY, {"use_rslora": True, "layers_to_transform": [0, 2], "r": 16}),
    "gemma2": ("gemma2", EVERY, {}),
    "gemma3": ("gemma3_text", EVERY, {}),
    "qwen3": ("qwen3", ("k_proj", "gate_proj"), {}),
    "phi3, fused on disk": ("phi3", ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), {}),
    "gpt2, stored transposed": ("gpt2", ("c_attn", "c_proj", "c_fc"), {"fan_in_fan_out": True}),
    "mixtral's attention": ("mixtral", ATTENTION, {}),
    "qwen2_moe's attention and dense layers": ("qwen2_moe some dense", r".*(self_attn|layers\.0\.mlp)\.\w+_proj", {}),
}  # fmt: skip


@torch.no_grad()
def logits(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    return decoder.logits(decoder(ids, torch.arange(ids.shape[1]).expand(len(ids), -1), Causal()))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_an_adapter_of_peft_says_what_peft_says(case: str, tmp_path: Path) -> None:
    family, targets, fields = CASES[case]
    base = oracle(family, tmp_path / "base")
    peft_model = peft_adapter(base, tmp_path / "adapter", targets, **fields)
    decoder = load_model(ModelDir.open(tmp_path / "base"), "float32")
    adapter = read_adapter(decoder.spec, AdapterDir.open(tmp_path / "adapter"))
    ids = torch.randint(0, 97, (2, LENGTH))
    expected, plain = peft_model(ids).logits, logits(decoder, ids)
    assert (expected - plain).abs().max() > 0.05, "the adapter changes nothing"
    attach(decoder, adapter)
    torch.testing.assert_close(logits(decoder, ids), expected, rtol=1e-4, atol=1e-4)
    detach(decoder)
    assert torch.equal(logits(decoder, ids), plain)
    kept = kept_copy(decoder, adapter)
    merge(decoder, adapter)
    torch.testing.assert_close(logits(decoder, ids), expected, rtol=1e-4, atol=1e-4)
    unmerge(decoder, kept)
    assert torch.equal(logits(decoder, ids), plain)


@torch.no_grad()
@pytest.mark.parametrize(("family", "rslora"), [("llama", False), ("qwen2", True), ("gpt2", False)])
def test_an_adapter_that_we_wrote_says_the_same_in_peft(family: str, rslora: bool, tmp_path: Path) -> None:
    oracle(family, tmp_path / "base")
    decoder = load_model(ModelDir.open(tmp_path / "base"), "float32")
    torch.manual_seed(3)
    loras: dict[str, tuple[Lora, ...]] = {}
    for number, part in enumerate(places(decoder.spec).values()):
        lora = Lora.fresh(part, rank=2 + number % 3, scale=0.5 + number % 2)
        lora.b.normal_(std=0.3)
        path = part.path.removesuffix(".weight")
        loras[path] = (*loras.get(path, ()), lora)
    adapter = Adapter(loras)
    publish_adapter(tmp_path / "ours", written(adapter, rslora=rslora), {}, rslora=rslora, turned=family == "gpt2")
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "ours"
    ).eval()
    ids = torch.randint(0, 97, (2, LENGTH))
    attach(decoder, adapter)
    torch.testing.assert_close(logits(decoder, ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def write_one(at: Path, decoder: Decoder, rank: int = 3, **changes: Any) -> Path:
    name, part = next(iter(places(decoder.spec).items()))
    shape = part.shape[::-1] if part.turned else part.shape
    return write_folder(at, random_modules({name: shape}, rank, 0), **changes)


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
@torch.no_grad()
def test_a_quantized_base_is_adapted_as_a_dense_one(precision: str, tmp_path: Path) -> None:
    if precision == "int4" and library() is None:
        pytest.skip("no native kernels here")
    peft_adapter(oracle("llama", tmp_path / "base"), tmp_path / "adapter")
    decoder, ids = load_model(ModelDir.open(tmp_path / "base"), precision), torch.randint(0, 97, (1, LENGTH))
    adapter = read_adapter(decoder.spec, AdapterDir.open(tmp_path / "adapter"))
    x = torch.randn(5, 48)
    base = decoder.get_submodule("layers.1.attention.qkv")
    plain = base(x).clone()
    attach(decoder, adapter)
    expected = plain.clone()
    for lora in adapter.loras["layers.1.attention.qkv"]:
        expected[:, lora.start : lora.stop] += x @ lora.product().T
    torch.testing.assert_close(decoder.get_submodule("layers.1.attention.qkv")(x), expected, rtol=1e-4, atol=1e-5)
    assert torch.isfinite(logits(decoder, ids)).all()
    detach(decoder)
    if precision != "bfloat16":
        with pytest.raises(ModelDirError, match="merge into"):
            merge(decoder, adapter)


def test_gradients_reach_every_a_and_b_and_nothing_else(tmp_path: Path) -> None:
    oracle("llama", tmp_path / "base")
    decoder = load_model(ModelDir.open(tmp_path / "base"), "float32")
    adapter = read_adapter(decoder.spec, AdapterDir.open(write_one(tmp_path / "a", decoder)))
    for lora in adapter:
        lora.requires_grad_(True)
    attach(decoder, adapter)
    ids = torch.randint(0, 97, (2, LENGTH))
    decoder.logits(decoder(ids, torch.arange(LENGTH).expand(2, -1), Causal())).logsumexp(-1).sum().backward()
    trained = {name for name, p in decoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {"layers.0.attention.qkv.loras.0.a", "layers.0.attention.qkv.loras.0.b"}
    assert isinstance(decoder.get_submodule("layers.0.attention.qkv"), Adapted)


def test_a_fresh_adapter_changes_nothing_and_drops_only_in_training(tmp_path: Path) -> None:
    oracle("llama", tmp_path / "base")
    decoder = load_model(ModelDir.open(tmp_path / "base"), "float32")
    lora = Lora.fresh(places(decoder.spec)["model.layers.0.mlp.up_proj"], rank=4, scale=2.0, dropout=0.5)
    x = torch.randn(3, 48)
    assert not lora(x).any()
    with torch.no_grad():
        lora.b.fill_(1.0)
    assert torch.equal(lora.eval()(x), lora.eval()(x))
    assert not torch.equal(lora.train()(x), lora.train()(x))
    assert (lora.start, lora.stop) == (80, 160)  # above it lies the gate


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"model.layers.9.self_attn.q_proj": (48, 48)}, r"model.layers.9.self_attn.q_proj.*3 layers.*q_proj"),
        ({"lm_head": (97, 48)}, "adapts lm_head, which is nothing that can be adapted"),
        ({"model.layers.0.mlp.experts.0.up_proj": (80, 48)}, "of mixtures of experts attention alone"),
        ({"model.layers.0.self_attn.q_proj": (48, 49)}, "A reads 49 numbers .* it reads 48 and makes 48"),
        ({"model.layers.0.self_attn.k_proj": (48, 48)}, "B makes 48; .* makes 16"),
    ],
)
def test_an_adapter_of_another_model_is_refused(modules: dict[str, tuple[int, int]], said: str, tmp_path: Path) -> None:
    oracle("llama", tmp_path / "base")
    spec = load_model(ModelDir.open(tmp_path / "base"), "float32").spec
    with pytest.raises(ModelDirError, match=said):
        read_adapter(spec, AdapterDir.open(write_folder(tmp_path / "a", random_modules(modules, 2, 0))))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(broken: float, tmp_path: Path) -> None:
    oracle("llama", tmp_path / "base")
    spec = load_model(ModelDir.open(tmp_path / "base"), "float32").spec
    modules = random_modules({"model.layers.0.self_attn.q_proj": (48, 48)}, 2, 0)
    modules["model.layers.0.self_attn.q_proj"][1][7, 1] = broken
    with pytest.raises(ModelDirError, match="infinite or none at all"):
        read_adapter(spec, AdapterDir.open(write_folder(tmp_path / "a", modules)))
