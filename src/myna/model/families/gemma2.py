"""Gemma 2 (2024): norms that multiply by 1 + weight on both sides of attention and MLP, scaled embeddings, soft caps,
and a window in every other layer."""

from dataclasses import replace

from myna.model.config import Config
from myna.model.families import llama
from myna.model.names import LLAMA, POST_NORMS
from myna.model.spec import AttentionRule, Spec

NAMES = LLAMA | POST_NORMS


def spec(config: Config) -> Spec:
    base = gemma(config, attention_cap=config.maybe("attn_logit_softcapping", 50.0))
    local = config.windowed(base.layers, lambda layer: layer % 2 == 0)
    base = replace(base, softcap=config.maybe("final_logit_softcapping", 30.0))
    return base.with_window(config.integer("sliding_window", 4096), local)


def gemma(config: Config, attention_cap: float | None) -> Spec:
    """What Gemma 2 and 3 share."""
    config.refuse("use_bidirectional_attention", False)
    base = llama.spec(config.filled(head_dim=256, hidden_act=config.text("hidden_activation", "gelu_pytorch_tanh")))
    rule = AttentionRule(config.number("query_pre_attn_scalar", 256) ** -0.5, softcap=attention_cap)
    return replace(
        base,
        norm=replace(base.norm, offset=1.0),
        rules=(rule,) * base.layers,
        post_norms=True,
        tied=config.flag("tie_word_embeddings", True),
        embed_scale=base.width**0.5,
    )
