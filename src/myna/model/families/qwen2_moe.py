"""Qwen1.5-MoE and Qwen2-MoE: Qwen2 with mixtures of experts and a shared expert behind a sigmoid gate."""

from dataclasses import replace

from myna.model.config import Config
from myna.model.families import llama
from myna.model.names import EXPERTS, LLAMA
from myna.model.spec import Biases, MoE, Spec

NAMES = LLAMA | EXPERTS


def spec(config: Config) -> Spec:
    base = llama.spec(config)
    moe = read_moe(config, base.layers, experts=60, top_k=4, hidden=1408)
    moe = replace(moe, shared=config.integer("shared_expert_intermediate_size", 5632))
    base = replace(base, biases=Biases(qkv=config.flag("qkv_bias", True)), moe=moe)
    if not config.flag("use_sliding_window", False):
        return base
    first = config.integer("max_window_layers", 28)
    local = config.windowed(base.layers, lambda layer: layer % 2 == 0 and layer < first)
    return base.with_window(config.integer("sliding_window", 4096), local)


def read_moe(config: Config, layers: int, experts: int, top_k: int, hidden: int) -> MoE:
    """Qwen's fields of a mixture; the numbers are the family's defaults. Every `decoder_sparse_step`-th layer is sparse,
    except those in `mlp_only_layers`."""
    step, plain = config.integer("decoder_sparse_step", 1), config.integers("mlp_only_layers")
    return MoE(
        experts=config.integer(
            "num_experts", config.integer("num_local_experts", experts, most="experts"), most="experts"
        ),
        top_k=config.integer("num_experts_per_tok", top_k, most="experts"),
        hidden=config.integer("moe_intermediate_size", hidden),
        norm_topk=config.flag("norm_topk_prob", False),
        dense=frozenset(layer for layer in range(layers) if layer in plain or (layer + 1) % step),
    )
