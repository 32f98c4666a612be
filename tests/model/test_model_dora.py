"""DoRA on our decoder is PEFT's: what it says, its gradients, its file, merged; over any base."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapter_cases import EVERY, peft_adapter
from family_cases import LENGTH, oracle
from myna.kernels import library
from myna.model import Adapter, Causal, Decoder, Lora, load_model, read_adapter
from myna.model.linear import AnyLinear, Int8Linear, Linear, NF4Linear, PackedLinear
from myna.model.lora import Adapted, attach, detach, kept_copy, linear_at, merge, places, unmerge, written
from myna.modeldir import AdapterDir, ModelDir, publish_adapter
from myna.records import ModelDirError

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "llama": ("llama", EVERY, {}),
    "with biases, rslora": ("llama tied, biased, wide heads", EVERY, {"use_rslora": True}),
    "qwen2, some": ("qwen2", ("k_proj", "up_proj"), {"rank_pattern": {"up_proj": 2}}),
    "gpt2, stored transposed": ("gpt2", ("c_attn", "c_proj", "c_fc"), {"fan_in_fan_out": True}),
}


def logits(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    return decoder.logits(decoder(ids, torch.arange(ids.shape[1]).expand(len(ids), -1), Causal()))


def opened(at: Path, adapter: Path) -> tuple[Decoder, Adapter]:
    decoder = load_model(ModelDir.open(at), "float32")
    return decoder, read_adapter(decoder.spec, AdapterDir.open(adapter))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_dora_says_what_peft_says_and_merges_as_peft_merges(case: str, tmp_path: Path) -> None:
    family, targets, fields = CASES[case]
    theirs = peft_adapter(oracle(family, tmp_path / "base"), tmp_path / "adapter", targets, use_dora=True, **fields)
    decoder, adapter = opened(tmp_path / "base", tmp_path / "adapter")
    ids = torch.randint(0, 97, (2, LENGTH))
    expected, plain = theirs(ids).logits, logits(decoder, ids)
    assert (expected - plain).abs().max() > 0.05, "the adapter changes nothing"
    attach(decoder, adapter)
    torch.testing.assert_close(logits(decoder, ids), expected, **CLOSE)
    detach(decoder)
    assert torch.equal(logits(decoder, ids), plain)
    kept = kept_copy(decoder, adapter)
    merge(decoder, adapter)
    torch.testing.assert_close(logits(decoder, ids), theirs.merge_and_unload()(ids).logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(decoder, ids), expected, rtol=1e-4, atol=1e-4)
    unmerge(decoder, kept)
    assert torch.equal(logits(decoder, ids), plain)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_gradients_are_those_of_peft(kind: str, tmp_path: Path) -> None:
    fields = {"use_dora": kind == "dora", "use_rslora": kind == "rslora"}
    theirs = peft_adapter(oracle("qwen2", tmp_path / "base"), tmp_path / "adapter", EVERY, **fields)
    decoder, adapter = opened(tmp_path / "base", tmp_path / "adapter")
    for lora in adapter:
        lora.requires_grad_(True)
    attach(decoder, adapter)
    ids = torch.randint(0, 97, (2, LENGTH))
    logits(decoder, ids).logsumexp(-1).mean().backward()
    theirs(ids).logits.logsumexp(-1).mean().backward()
    names = {"A": "a", "B": "b", "magnitude_vector": "magnitude"}
    loras = {lora.name: lora for lora in adapter}
    compared = 0
    for name, p in theirs.named_parameters():
        if ".lora_" in name:
            module, _, side = name.removeprefix("base_model.model.").partition(".lora_")
            mine = getattr(loras[module], names[side.partition(".")[0]])
            assert p.grad is not None
            assert p.grad.any()
            torch.testing.assert_close(mine.grad, p.grad, **CLOSE)
            compared += 1
    assert compared == len(loras) * (3 if kind == "dora" else 2) == 3 * 7 * (3 if kind == "dora" else 2)


@torch.no_grad()
@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_peft_reads_the_dora_that_we_wrote(family: str, tmp_path: Path) -> None:
    oracle(family, tmp_path / "base")
    decoder = load_model(ModelDir.open(tmp_path / "base"), "float32")
    torch.manual_seed(3)
    loras: dict[str, tuple[Lora, ...]] = {}
    for part in places(decoder.spec).values():
        path, lora = part.path.removesuffix(".weight"), Lora.fresh(part, rank=3, scale=0.7)
        lora.magnitude = torch.nn.Parameter(lora.norms(linear_at(decoder, path).decoded()) * 1.3)
        loras[path] = (*loras.get(path, ()), lora)
        lora.b.normal_(std=0.3)
    adapter = Adapter(loras)
    publish_adapter(tmp_path / "ours", written(adapter), {}, turned=family == "gpt2")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "ours")
    ids = torch.randint(0, 97, (2, LENGTH))
    attach(decoder, adapter)
    torch.testing.assert_close(logits(decoder, ids), theirs.eval()(ids).logits, rtol=1e-5, atol=2e-5)


def _kept(kind: str, weight: torch.Tensor) -> AnyLinear:
    made = {"nf4": NF4Linear, "packed": PackedLinear, "int8": Int8Linear}[kind](weight.shape[1], weight.shape[0], True)
    made.fill(0, weight.clone())
    torch.nn.init.normal_(made.bias)
    return made.requires_grad_(False)


@pytest.mark.parametrize("kind", ["nf4", "packed", "int8"])
def test_over_few_bits_it_is_that_of_the_decoded_weight(kind: str) -> None:
    if kind == "packed" and library() is None:
        pytest.skip("there are no native kernels here")
    torch.manual_seed(4)
    base = _kept(kind, torch.randn(96, 128))
    dense = Linear(128, 96, bias=True).requires_grad_(False)
    dense.weight, dense.bias = torch.nn.Parameter(base.decoded(), requires_grad=False), base.bias
    made = []
    for linear in (base, dense):
        torch.manual_seed(5)
        lora = Lora("x", 32, torch.randn(4, 128), torch.randn(48, 4), 0.5, magnitude=torch.rand(48) + 1)
        x = torch.linspace(-1, 1, 5 * 128).view(5, 128).requires_grad_()
        y = Adapted(linear, (lora,))(x)
        y.square().mean().backward()
        made.append((y.detach(), x.grad, lora.a.grad, lora.b.grad, lora.magnitude.grad))
    tolerance = {"rtol": 2e-2, "atol": 5e-2} if kind == "int8" else CLOSE  # its products are of bfloat16
    for mine, exact in zip(*made, strict=True):
        torch.testing.assert_close(mine, exact, **tolerance)


def test_magnitudes_of_another_model_and_broken_ones_are_refused(tmp_path: Path) -> None:
    peft_adapter(oracle("llama", tmp_path / "base"), tmp_path / "adapter", ("q_proj",), use_dora=True)
    spec = load_model(ModelDir.open(tmp_path / "base"), "float32").spec
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector"
    for wrong, said in ((torch.ones(47), "47 magnitudes"), (torch.full((48,), torch.nan), "infinite or none at all")):
        save_file(tensors | {name: wrong}, file)
        with pytest.raises(ModelDirError, match=said):
            read_adapter(spec, AdapterDir.open(tmp_path / "adapter"))
    save_file({n: t for n, t in tensors.items() if n != name}, file)
    with pytest.raises(ModelDirError, match=r"layers\.1\.self_attn\.q_proj has no lora_magnitude_vector"):
        AdapterDir.open(tmp_path / "adapter")
