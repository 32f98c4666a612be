"""Our logits are transformers' logits, for every family, on random tiny weights that transformers saved."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from encoder_cases import ENCODERS
from family_cases import CASES, EXPERTS, GEMMA, LENGTH, LLAMA3, LONG, oracle
from myna.model import Cache, Causal, Decoder, hf_state, load_model
from myna.modeldir import ModelDir

TOLERANCE = {"rtol": 3e-5, "atol": 3e-5}


def ours(at: Path, max_len: int | None = LENGTH) -> Decoder:
    return load_model(ModelDir.open(at), "float32", max_len)


def run(decoder: Decoder, ids: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    """Logits of ids [B, T], fed to a cache in pieces of these lengths."""
    memory, at, found = Cache(decoder.spec, len(ids), ids.shape[1]), 0, []
    for cut in cuts:
        positions = torch.arange(at, at + cut).expand(len(ids), -1)
        found.append(decoder.logits(decoder(ids[:, at : at + cut], positions, memory)))
        at += cut
    assert at == ids.shape[1]
    return torch.cat(found, dim=1)


@pytest.fixture(params=CASES, ids=str)
def both(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Decoder, torch.Tensor, torch.Tensor, Path]:
    model = oracle(request.param, tmp_path)
    ids = torch.randint(0, 97, (2, LENGTH))
    with torch.inference_mode():
        return ours(tmp_path), ids, model(ids, use_cache=False).logits, tmp_path


@torch.inference_mode()
def test_logits_are_those_of_transformers(both: tuple[Decoder, torch.Tensor, torch.Tensor, Path]) -> None:
    """Whole, as one prefill into a cache, token by token, and in left-over lengths."""
    decoder, ids, expected, _at = both
    whole = decoder.logits(decoder(ids, torch.arange(LENGTH).expand(2, -1), Causal()))
    torch.testing.assert_close(whole, expected, **TOLERANCE)
    for cuts in ([LENGTH], [1] * LENGTH, [9, 6, 5, 1, 1, 1]):
        torch.testing.assert_close(run(decoder, ids, cuts), expected, **TOLERANCE, msg=lambda m, c=cuts: f"{c}: {m}")


@torch.inference_mode()
def test_transformers_loads_what_we_publish(both: tuple[Decoder, torch.Tensor, torch.Tensor, Path]) -> None:
    from safetensors.torch import save_file

    decoder, ids, expected, at = both
    state = {name: tensor.contiguous() for name, tensor in hf_state(decoder).items()}
    save_file(state, at / "model.safetensors", metadata={"format": "pt"})
    again, info = AutoModelForCausalLM.from_pretrained(at, attn_implementation="eager", output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == set()
    torch.testing.assert_close(again(ids, use_cache=False).logits, expected, rtol=1e-6, atol=1e-6)


def test_every_family_has_a_case() -> None:
    from myna.model.families import supported

    decoders = {model_type for model_type, _ in CASES.values()}
    encoders = {model_type.replace("-", "_") for model_type, _, _ in ENCODERS.values()}
    # gemma3 is gemma3_text with a wrapper, tested below.
    assert decoders | encoders | {"gemma3"} == set(supported())


@pytest.mark.parametrize("case", ["llama", "qwen2_moe", "gemma3_text", "gpt2"])
def test_gradients_reach_every_parameter_in_the_dense_path(case: str, tmp_path: Path) -> None:
    oracle(case, tmp_path)
    decoder = ours(tmp_path).requires_grad_(True)
    ids = torch.randint(0, 97, (4, LENGTH))
    decoder.logits(decoder(ids, torch.arange(LENGTH).expand(4, -1), Causal())).logsumexp(-1).sum().backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()] == []


V4 = {
    "qwen2 windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen2_moe windows": (
        "qwen2_moe",
        EXPERTS
        | {
            "shared_expert_intermediate_size": 40,
            "use_sliding_window": True,
            "sliding_window": 7,
            "max_window_layers": 2,
        },
    ),
    "gemma2 windows": ("gemma2", GEMMA),
    "llama3": ("llama", {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}}),
    "linear": ("llama", {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}}),
    "yarn": ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}}),
    "su": (
        "phi3",
        {"rope_scaling": {"type": "su", "original_max_position_embeddings": 16, **LONG}},
    ),
    "gemma3": (
        "gemma3_text",
        GEMMA
        | {
            "rope_theta": 2e6,
            "rope_local_base_freq": 2e4,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window_pattern": 2,
        },
    ),
}


@torch.inference_mode()
@pytest.mark.parametrize("case", V4)
def test_config_of_transformers_4_means_what_it_means_to_transformers(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old spelling, rope_theta and rope_scaling, read by both from the same file."""
    model_type, fields = V4[case]
    layers = {"layer_types": None} if model_type == "gemma3_text" else {}
    monkeypatch.setitem(CASES, case, (model_type, {k: v for k, v in fields.items() if "rope" not in k} | layers))
    oracle(case, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("rope_parameters", "layer_types", "_sliding_window_pattern"):
        config.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    ids = torch.randint(0, 97, (2, LENGTH))
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")(ids, use_cache=False).logits
    torch.testing.assert_close(run(ours(tmp_path), ids, [LENGTH]), expected, **TOLERANCE)
