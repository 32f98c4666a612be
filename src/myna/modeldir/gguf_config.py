"""GGUF metadata -> config.json, one function per architecture.

Key names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's convert_hf_to_gguf.py, whose
choices are undone here. What llama.cpp hard-codes for a family (activations, scales, expert normalisation) is written
out, because Hugging Face's config says it.
"""

import difflib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from myna.modeldir.gguf import GGUF
from myna.records import ModelDirError

Config = dict[str, Any]

MOST, MOST_LAYERS = 1 << 24, 1024  # of anything counted: a vocabulary, a width, positions


def config_from_gguf(gguf: GGUF) -> Config:
    """The config.json a Hugging Face directory of this model would hold. ModelDirError if we do not know the family."""
    arch = gguf.get("general.architecture", str)
    if arch not in ARCHITECTURES:
        close = difflib.get_close_matches(arch, ARCHITECTURES, n=1, cutoff=0)[0]
        raise ModelDirError(
            f"{gguf.path}: architecture {arch!r} is not supported. These are: {', '.join(ARCHITECTURES)}. "
            f"The closest is {close}."
        )
    if (parts := gguf.get("split.count", int, 1)) > 1:
        raise ModelDirError(f"{gguf.path} is one of {parts} parts. Join them first: llama-gguf-split --merge FIRST OUT")
    config = ARCHITECTURES[arch](Keys(gguf, arch))
    for key in ("bos", "eos", "padding"):
        if (token := gguf.metadata.get(f"tokenizer.ggml.{key}_token_id")) is not None:
            config[f"{key.removesuffix('ding')}_token_id"] = token
    return config


class Keys:
    """The metadata of one architecture: `keys.whole("block_count")` reads "llama.block_count"."""

    def __init__(self, gguf: GGUF, arch: str):
        self.gguf, self.arch = gguf, arch

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number from 0, small enough to compute with."""
        value = self.gguf.get(f"{self.arch}.{key}", int, default)
        if not 0 <= value <= MOST:
            raise ModelDirError(f"{self.gguf.path}: {self.arch}.{key} is {value}; it should be from 0 to {MOST}.")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A number above 0: every setting we read is a size, a scale or a bound."""
        value = self.gguf.get(f"{self.arch}.{key}", float, default)
        if value <= 0:
            raise ModelDirError(f"{self.gguf.path}: {self.arch}.{key} is {value}; it should be above 0.")
        return value

    def has(self, key: str) -> bool:
        return f"{self.arch}.{key}" in self.gguf.metadata

    @property
    def layers(self) -> int:
        """Bounded more narrowly, because gemma's config lists something for every layer."""
        layers = self.whole("block_count")
        if layers > MOST_LAYERS:
            raise ModelDirError(f"{self.gguf.path}: {layers} layers; at most {MOST_LAYERS} are allowed.")
        return layers

    @property
    def vocab(self) -> int:
        """Rows of the embedding: the one count that cannot be wrong."""
        if "token_embd.weight" not in self.gguf.tensors:
            raise ModelDirError(f"{self.gguf.path}: has no token_embd.weight; it holds no whole language model.")
        return self.gguf.tensors["token_embd.weight"].shape[0]

    @property
    def tied(self) -> bool:
        """llama.cpp writes an output matrix only where it differs from the embedding."""
        return "output.weight" not in self.gguf.tensors


def _decoder(keys: Keys, model_type: str, architecture: str, **more: Any) -> Config:
    """What all families since Llama share."""
    heads = keys.whole("attention.head_count")
    width = keys.whole("embedding_length")
    if not heads:
        raise ModelDirError(f"{keys.gguf.path}: {keys.arch}.attention.head_count is 0; it should be at least 1.")
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": keys.vocab,
        "hidden_size": width,
        "intermediate_size": keys.whole("feed_forward_length"),
        "num_hidden_layers": keys.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys.whole("attention.head_count_kv", heads),
        "head_dim": keys.whole("attention.key_length", width // heads),
        "hidden_act": "silu",
        "max_position_embeddings": keys.whole("context_length"),
        "rms_norm_eps": _short(keys.real("attention.layer_norm_rms_epsilon")),
        "rope_theta": _short(keys.real("rope.freq_base", 10000.0)),
        "rope_scaling": _rope_scaling(keys),
        "tie_word_embeddings": keys.tied,
    } | more


def _llama(keys: Keys) -> Config:
    """Llama, Mistral and Mixtral share llama.cpp's "llama"."""
    window = {"sliding_window": keys.whole("attention.sliding_window")} if keys.has("attention.sliding_window") else {}
    if keys.whole("expert_count", 0) > 0:
        experts = {
            "num_local_experts": keys.whole("expert_count"),
            "num_experts_per_tok": keys.whole("expert_used_count"),
        }
        return _decoder(keys, "mixtral", "MixtralForCausalLM", **experts, **window)
    if window:
        return _decoder(keys, "mistral", "MistralForCausalLM", **window)
    biased = {"attention_bias": _has(keys, "attn_q.bias"), "mlp_bias": _has(keys, "ffn_gate.bias")}
    return _decoder(keys, "llama", "LlamaForCausalLM", **biased)


def _qwen2(keys: Keys) -> Config:
    return _decoder(keys, "qwen2", "Qwen2ForCausalLM", use_sliding_window=False)


def _qwen3(keys: Keys) -> Config:
    return _decoder(keys, "qwen3", "Qwen3ForCausalLM", attention_bias=_has(keys, "attn_q.bias"))


def _experts(keys: Keys, **more: Any) -> Config:
    """Qwen's words for a mixture of experts in every layer."""
    return {
        "num_experts": keys.whole("expert_count"),
        "num_experts_per_tok": keys.whole("expert_used_count"),
        "moe_intermediate_size": keys.whole("expert_feed_forward_length"),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    } | more


def _qwen2moe(keys: Keys) -> Config:
    shared = {"shared_expert_intermediate_size": keys.whole("expert_shared_feed_forward_length")}
    # llama.cpp does not renormalise the chosen experts' weights for qwen2moe, and does for qwen3moe.
    experts = _experts(keys, norm_topk_prob=False, **shared)
    return _decoder(keys, "qwen2_moe", "Qwen2MoeForCausalLM", **experts)


def _qwen3moe(keys: Keys) -> Config:
    experts = _experts(keys, norm_topk_prob=True, attention_bias=_has(keys, "attn_q.bias"))
    return _decoder(keys, "qwen3_moe", "Qwen3MoeForCausalLM", **experts)


def _gemma(keys: Keys, model_type: str, architecture: str, every: int, biggest: int, **more: Any) -> Config:
    """Full attention in every `every`-th layer, windows in the others. The attention scale is not in older files;
    llama.cpp knows that only the 27B model, told by its `biggest` layer count, scales by width / heads."""
    config = _decoder(keys, model_type, architecture)
    layers, heads, width = config["num_hidden_layers"], config["num_attention_heads"], config["hidden_size"]
    scalar = width // heads if layers == biggest else config["head_dim"]
    if keys.has("attention.scale"):
        scalar = round(keys.real("attention.scale") ** -2)
    config |= {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scalar,
        "sliding_window": keys.whole("attention.sliding_window"),
        "layer_types": ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(layers)],
        "attention_bias": False,
    }
    del config["hidden_act"]
    return config | more


def _gemma2(keys: Keys) -> Config:
    caps = {
        "attn_logit_softcapping": _short(keys.real("attn_logit_softcapping", 50.0)),
        "final_logit_softcapping": _short(keys.real("final_logit_softcapping", 30.0)),
    }
    return _gemma(keys, "gemma2", "Gemma2ForCausalLM", 2, 46, **caps)


def _gemma3(keys: Keys) -> Config:
    every = keys.whole("attention.sliding_window_pattern", 6)
    local = _short(keys.real("rope.freq_base_swa", 10000.0))
    caps = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    return _gemma(keys, "gemma3_text", "Gemma3ForCausalLM", every, 62, rope_local_base_freq=local, **caps)


def _phi3(keys: Keys) -> Config:
    config = _decoder(keys, "phi3", "Phi3ForCausalLM")
    turned = keys.whole("rope.dimension_count", config["head_dim"]) / max(config["head_dim"], 1)
    original = keys.whole("rope.scaling.original_context_length", config["max_position_embeddings"])
    window = keys.whole("attention.sliding_window", 0) or None
    return config | {
        "partial_rotary_factor": turned,
        "original_max_position_embeddings": original,
        "sliding_window": window,
    }


def _gpt2(keys: Keys) -> Config:
    width = keys.whole("embedding_length")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": keys.vocab,
        "n_embd": width,
        "n_layer": keys.layers,
        "n_head": keys.whole("attention.head_count"),
        "n_inner": keys.whole("feed_forward_length", 4 * width),
        "n_positions": keys.whole("context_length"),
        "n_ctx": keys.whole("context_length"),
        "layer_norm_epsilon": _short(keys.real("attention.layer_norm_epsilon")),
        "activation_function": "gelu_new",
        "tie_word_embeddings": keys.tied,
    }


ARCHITECTURES: dict[str, Callable[[Keys], Config]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen2moe": _qwen2moe,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3moe,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "gpt2": _gpt2,
}


def _rope_scaling(keys: Keys) -> Config | None:
    """Position scaling, from metadata or from the factors llama.cpp precomputes into tensors."""
    tensors = keys.gguf.tensors
    if "rope_freqs.weight" in tensors:
        return _llama3_scaling(keys, keys.gguf.values_of("rope_freqs.weight"))
    if "rope_factors_long.weight" in tensors:
        long, short = (keys.gguf.values_of(f"rope_factors_{n}.weight").tolist() for n in ("long", "short"))
        return {"rope_type": "longrope", "long_factor": long, "short_factor": short}
    kind = keys.gguf.get(f"{keys.arch}.rope.scaling.type", str, "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise ModelDirError(
            f"{keys.gguf.path}: {keys.arch}.rope.scaling.type {kind!r} is not supported; linear, yarn are."
        )
    scaling: Config = {"rope_type": kind, "factor": _short(keys.real("rope.scaling.factor"))}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = keys.whole("rope.scaling.original_context_length")
        for ours, theirs in (("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")):
            if keys.has(f"rope.scaling.{theirs}"):
                scaling[ours] = _short(keys.real(f"rope.scaling.{theirs}"))
    return scaling


def _llama3_scaling(keys: Keys, factors: np.ndarray) -> Config | None:
    """Llama 3.1's rule, found again from the per-frequency divisors it was turned into.

    Every published model uses low_freq_factor 1, high_freq_factor 4 and 8192 original positions and differs in
    `factor` alone, which is the divisor of the lowest frequency. If that does not give these divisors back, we refuse.
    """
    if np.allclose(factors, 1):
        return None
    factor, low, high, original = _short(float(factors.max())), 1.0, 4.0, 8192
    base, size = keys.real("rope.freq_base", 10000.0), 2 * len(factors)
    turns = original * base ** (-np.arange(0, size, 2) / size) / (2 * math.pi)  # in the original context
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    if not np.allclose(1 / ((1 - smooth) / factor + smooth), factors, rtol=1e-4):
        raise ModelDirError(
            f"{keys.gguf.path}: rope_freqs.weight holds position factors that are not Llama 3's. "
            "Pull the original Hugging Face directory instead: `myna pull hub:OWNER/REPO`."
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def _has(keys: Keys, tail: str) -> bool:
    return f"blk.0.{tail}" in keys.gguf.tensors


def _short(value: float) -> float:
    """A float32 as the shortest decimal that means it: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))
