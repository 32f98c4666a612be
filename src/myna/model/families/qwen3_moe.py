"""Qwen3-MoE (Yang et al. 2025): Qwen3 with mixtures of experts; the window, if asked for, is in every layer."""

from dataclasses import replace

from myna.model.config import Config
from myna.model.families import llama
from myna.model.families.qwen2_moe import read_moe
from myna.model.names import EXPERTS, LLAMA
from myna.model.spec import Biases, Spec

NAMES = LLAMA | EXPERTS


def spec(config: Config) -> Spec:
    base = llama.spec(config)
    bias = config.flag("attention_bias", False)
    moe = read_moe(config, base.layers, experts=128, top_k=8, hidden=768)
    base = replace(base, biases=Biases(qkv=bias, out=bias), qk_norm=True, moe=moe)
    windowed = config.flag("use_sliding_window", False)
    return base.with_window(config.integer("sliding_window", 4096)) if windowed else base
