"""Mixtral (Jiang et al. 2024): Mistral with 8 experts in every layer, 2 a token."""

from dataclasses import replace

from myna.model.config import Config
from myna.model.families import llama
from myna.model.names import LLAMA
from myna.model.spec import MoE, Spec

_MOE = "model.layers.*.block_sparse_moe."
NAMES = LLAMA | {
    "layers.*.mlp.router": _MOE + "gate",
    "layers.*.mlp.experts.*.gate_up": (_MOE + "experts.*.w1", _MOE + "experts.*.w3"),
    "layers.*.mlp.experts.*.down": _MOE + "experts.*.w2",
}


def spec(config: Config) -> Spec:
    base = llama.spec(config)
    moe = MoE(
        experts=config.integer("num_local_experts", 8, most="experts"),
        top_k=config.integer("num_experts_per_tok", 2, most="experts"),
        hidden=base.hidden,
        norm_topk=True,
    )
    window = config.maybe_integer("sliding_window")
    return replace(base, moe=moe, norm=replace(base.norm, eps=config.number("rms_norm_eps", 1e-5))).with_window(window)
