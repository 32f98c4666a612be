"""Our logits are transformers' logits, for every family, on random tiny weights that transformers saved."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from myna.model import Cache, Causal, Decoder, hf_state, load_model
from myna.modeldir import ModelDir

TOLERANCE = {"rtol": 3e-5, "atol": 3e-5}
LENGTH = 23
SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
GEMMA = {"head_dim": 16, "sliding_window": 7, "query_pre_attn_scalar": 20}
LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
LONG = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.5]}


def rope(kind: str, **fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **fields}}


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama tied, biased, wide heads": (
        "llama",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 20},
    ),
    "llama, one head each": ("llama", {"num_key_value_heads": 6, "hidden_act": "gelu"}),
    "llama linear rope": ("llama", rope("linear", factor=4.0)),
    "llama dynamic rope": ("llama", {"max_position_embeddings": 16} | rope("dynamic", factor=4.0)),
    "llama llama3 rope": ("llama", rope("llama3", **LLAMA3)),
    "llama yarn rope": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama yarn rope, mscale": (
        "llama",
        rope("yarn", factor=4.0, original_max_position_embeddings=16, mscale=1.2, mscale_all_dim=0.8, truncate=False),
    ),
    "llama yarn rope, attention factor": (
        "llama",
        rope("yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=1.3, beta_fast=16, beta_slow=2),
    ),
    "mistral": ("mistral", {"sliding_window": 7}),
    "mistral without window": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2 windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3 biased, windows": (
        "qwen3",
        {
            "head_dim": 16,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 2,
        },
    ),
    "qwen2_moe": ("qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 40, "norm_topk_prob": True}),
    "qwen2_moe some dense": (
        "qwen2_moe",
        EXPERTS
        | {
            "shared_expert_intermediate_size": 40,
            "mlp_only_layers": [0],
            "use_sliding_window": True,
            "sliding_window": 7,
        },
    ),
    "qwen3_moe": ("qwen3_moe", EXPERTS | {"head_dim": 16, "norm_topk_prob": True}),
    "qwen3_moe every second": (
        "qwen3_moe",
        EXPERTS | {"head_dim": 16, "decoder_sparse_step": 2, "attention_bias": True},
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 7}),
    "gemma2": ("gemma2", GEMMA | {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0}),
    "gemma2 untied, uncapped": (
        "gemma2",
        GEMMA | {"attn_logit_softcapping": None, "final_logit_softcapping": None, "tie_word_embeddings": False},
    ),
    "gemma3_text": ("gemma3_text", GEMMA | {"sliding_window_pattern": 2}),
    "gemma3_text stretched": (
        "gemma3_text",
        GEMMA
        | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ),
    "phi3": ("phi3", {"sliding_window": 7}),
    "phi3 short": ("phi3", {"original_max_position_embeddings": 32} | rope("longrope", **LONG)),
    "phi3 long, partial": (
        "phi3",
        {"original_max_position_embeddings": 16}
        | rope("longrope", short_factor=[1.0, 1.2], long_factor=[1.5, 4.0], partial_rotary_factor=0.5),
    ),
    "gpt2": ("gpt2", {}),
    "gpt2 by depth": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False, "n_inner": 60}),
}


def oracle(case: str, at: Path) -> torch.nn.Module:
    """A transformers model with random weights, norms and biases included, saved as a model directory."""
    model_type, fields = CASES[case]
    small = (
        {"vocab_size": 97, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 64}
        if model_type == "gpt2"
        else SMALL
    )
    config = AutoConfig.for_model(model_type, **(small | fields))
    torch.manual_seed(len(case))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(at)
    return model


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

    # gemma3 is gemma3_text with a wrapper, tested below.
    assert {model_type for model_type, _ in CASES.values()} | {"gemma3"} == set(supported())


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
def test_config_of_transformers_4_means_what_it_means_to_transformers(case: str, tmp_path: Path) -> None:
    """The old spelling, rope_theta and rope_scaling, read by both from the same file."""
    model_type, fields = V4[case]
    CASES[case] = (model_type, {k: v for k, v in fields.items() if "rope" not in k} | {"layer_types": None})
    if model_type != "gemma3_text":
        CASES[case][1].pop("layer_types")
    oracle(case, tmp_path)
    del CASES[case]
    config = json.loads((tmp_path / "config.json").read_text())
    for key in ("rope_parameters", "layer_types", "_sliding_window_pattern"):
        config.pop(key, None)
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    ids = torch.randint(0, 97, (2, LENGTH))
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")(ids, use_cache=False).logits
    torch.testing.assert_close(run(ours(tmp_path), ids, [LENGTH]), expected, **TOLERANCE)
