"""Gemma 3, its text part (2025): Gemma 2 with q and k normalised instead of capped, five windowed layers to each full one,
and a rope for each of the two kinds."""

from dataclasses import replace

from myna.model.config import Config
from myna.model.families.gemma2 import gemma
from myna.model.names import LLAMA, POST_NORMS
from myna.model.rope import read_rope
from myna.model.spec import Rope, Spec

NAMES = LLAMA | POST_NORMS
# What the image-and-text models hold besides, in the spelling of transformers 4 and 5.
_IMAGE_PARTS = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


def spec(config: Config) -> Spec:
    base = gemma(config, attention_cap=config.maybe("attn_logit_softcapping"))
    pattern = config.integer("sliding_window_pattern", 6)
    local = config.windowed(base.layers, lambda layer: (layer + 1) % pattern != 0)
    base = replace(
        base,
        qk_norm=True,
        rope=read_rope(config, base.head_dim, theta=1_000_000.0, layer_type="full_attention"),
        local_rope=_local_rope(config, base.head_dim),
        softcap=config.maybe("final_logit_softcapping"),
    )
    return base.with_window(config.integer("sliding_window", 4096), local)


def _local_rope(config: Config, head_dim: int) -> Rope:
    """transformers 5 nests it by layer type; 4 has rope_local_base_freq and never stretches it."""
    if "sliding_attention" in config.below("rope_parameters").fields:
        return read_rope(config, head_dim, layer_type="sliding_attention")
    theta = config.number("rope_local_base_freq", 10_000.0)
    return Rope(dim=head_dim, theta=theta, stated=config.integer("max_position_embeddings", most="length"))


def rename(name: str) -> str | None:
    if name.startswith(_IMAGE_PARTS):
        return None
    if name.startswith("language_model."):
        return name.removeprefix("language_model.")
    return name.replace("model.language_model.", "model.", 1) if name.startswith("model.language_model.") else name
