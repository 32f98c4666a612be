"""Qwen3 (Yang et al. 2025): Qwen2 with q and k normalised a head, and no biases unless asked for."""

from dataclasses import replace

from myna.model.config import Config
from myna.model.families import qwen2
from myna.model.names import LLAMA
from myna.model.spec import Biases, Spec

NAMES = LLAMA


def spec(config: Config) -> Spec:
    bias = config.flag("attention_bias", False)
    base = qwen2.spec(config.filled(head_dim=128))
    return replace(base, biases=Biases(qkv=bias, out=bias), qk_norm=True)
