"""All sizes of a new model from one dial, its depth, as nanochat has it: deeper is also wider, and nothing else is tuned.

    layers       depth
    width        64 * depth
    heads        depth, of 64 channels each, and as many for keys and values
    hidden       8/3 of the width, rounded up to whole 64s: a gated MLP as costly as a plain one of 4 widths (Shazeer 2020)
    experts      when asked for: each of half that size, and a token sees two, so that a token costs what it costs a plain MLP

The layers then hold about 49,000 * depth^3 numbers: 1.3 million at 3, 11 million at 6, 85 million at 12, 0.7 billion at 24.

The family is Qwen3, or Qwen3-MoE with experts: Llama with queries and keys normalised, which keeps attention's logits
small at high learning rates (Henry et al. 2020; Dehghani et al. 2023). The head is the embedding, turned: below 100 million
numbers a head of its own would be a large part of the model.
"""

from typing import Any

from myna.model.config import LIMITS, Config
from myna.model.families import read_spec
from myna.model.spec import Spec
from myna.records import MynaError

HEAD = 64  # channels of a head
TOP_K = 2  # experts a token sees
DEEPEST = 96


def shape(depth: int, *, vocab: int, context: int, experts: int = 0, tied: bool = True) -> dict[str, Any]:
    """The config.json of a model of this depth: transformers, vLLM and llama.cpp read it too.

    vocab      tokens the embedding has rows for
    context    the longest text, in tokens (max_position_embeddings)
    experts    in each layer; 0: a plain MLP

    Raises MynaError naming the argument that is out of range.
    """
    _check(depth=(depth, 1, DEEPEST), vocab=(vocab, 2, LIMITS["size"]), context=(context, 2, LIMITS["length"]))
    if experts:
        _check(experts=(experts, TOP_K, LIMITS["experts"]))
    hidden = HEAD * -(-8 * depth // 3)
    config: dict[str, Any] = {
        "architectures": ["Qwen3MoeForCausalLM" if experts else "Qwen3ForCausalLM"],
        "model_type": "qwen3_moe" if experts else "qwen3",
        "vocab_size": vocab,
        "hidden_size": HEAD * depth,
        "num_hidden_layers": depth,
        "num_attention_heads": depth,
        "num_key_value_heads": depth,
        "head_dim": HEAD,
        "intermediate_size": hidden,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": tied,
    }
    return config | (_mixture(experts, hidden // TOP_K) if experts else {})


def shape_spec(depth: int, *, vocab: int, context: int, experts: int = 0, tied: bool = True) -> Spec:
    """The same as a Spec, which knows its tensors and how many numbers they hold."""
    return read_spec(Config(shape(depth, vocab=vocab, context=context, experts=experts, tied=tied), "shape"))


def _mixture(experts: int, hidden: int) -> dict[str, Any]:
    return {
        "num_experts": experts,
        "num_experts_per_tok": TOP_K,
        "moe_intermediate_size": hidden,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _check(**ranges: tuple[int, int, int]) -> None:
    for name, (value, least, most) in ranges.items():
        if not least <= value <= most:
            raise MynaError(f"{name} is {value}; it must be a whole number from {least:,} to {most:,}.")
