"""Mistral (Jiang et al. 2023): Llama with a sliding window in every layer."""

from myna.model.config import Config
from myna.model.families import llama
from myna.model.names import LLAMA
from myna.model.spec import Spec

NAMES = LLAMA
rename = llama.rename


def spec(config: Config) -> Spec:
    # A missing field means 4096, a null one no window (transformers' MistralConfig).
    window = config.maybe_integer("sliding_window", 4096)
    return llama.spec(config).with_window(window)
