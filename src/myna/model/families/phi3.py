"""Phi-3 and Phi-3.5 mini (Abdin et al. 2024): Llama whose disk fuses q, k, v and gate, up; longrope for long contexts."""

from myna.model.config import Config
from myna.model.families import llama
from myna.model.names import LLAMA
from myna.model.spec import Spec

NAMES = LLAMA | {
    "layers.*.attention.qkv": "model.layers.*.self_attn.qkv_proj",
    "layers.*.mlp.gate_up": "model.layers.*.mlp.gate_up_proj",
}


def spec(config: Config) -> Spec:
    window = config.maybe_integer("sliding_window")
    base = llama.spec(_longrope(config.filled(rms_norm_eps=1e-5)))
    return base.with_window(window)


def _longrope(config: Config) -> Config:
    """Early files call longrope "su" or "yarn"; transformers renames both."""
    scaling = config.below("rope_scaling").fields
    renamed = {k: "longrope" if k in ("type", "rope_type") and v in ("su", "yarn") else v for k, v in scaling.items()}
    return Config(config.fields | {"rope_scaling": renamed}, config.where)
