"""A tiny random model of every family as transformers makes and saves it, for the tests of several rooms."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

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
