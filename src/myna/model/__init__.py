"""One decoder for every family and one encoder, their memories, and loading it from a model directory."""

from myna.model.classifier import Classifier
from myna.model.decoder import Decoder
from myna.model.encoder import Encoder
from myna.model.fit import Estimate, estimate
from myna.model.load import (
    REFERENCE,
    check_decoder,
    describe,
    hf_state,
    load_classifier,
    load_encoder,
    load_model,
    write_model,
)
from myna.model.lora import Adapter, Lora, read_adapter
from myna.model.machine import available_memory
from myna.model.memory import Apart, Cache, Causal, Documents, Memory, visible, weigh
from myna.model.spec import AttentionRule, MoE, Norm, Rope, Spec

__all__ = [
    "REFERENCE",
    "Adapter",
    "Apart",
    "AttentionRule",
    "Cache",
    "Causal",
    "Classifier",
    "Decoder",
    "Documents",
    "Encoder",
    "Estimate",
    "Lora",
    "Memory",
    "MoE",
    "Norm",
    "Rope",
    "Spec",
    "available_memory",
    "check_decoder",
    "describe",
    "estimate",
    "hf_state",
    "load_classifier",
    "load_encoder",
    "load_model",
    "read_adapter",
    "visible",
    "weigh",
    "write_model",
]
