"""Qwen2 and 2.5 (Yang et al. 2024): Llama with biases on q, k and v, and a window in the upper layers if asked for."""

from dataclasses import replace

from myna.model.config import Config
from myna.model.families import llama
from myna.model.names import LLAMA
from myna.model.spec import Biases, Spec

NAMES = LLAMA


def spec(config: Config) -> Spec:
    base = replace(llama.spec(config), biases=Biases(qkv=True))
    if not config.flag("use_sliding_window", False):
        return base
    first = config.integer("max_window_layers", 28)
    local = config.windowed(base.layers, lambda layer: layer >= first)
    return base.with_window(config.integer("sliding_window", 4096), local)
