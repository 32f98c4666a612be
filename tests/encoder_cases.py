"""A tiny random encoder of every family as transformers makes and saves it, for the tests of several rooms."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

VOCAB = 97
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
    "max_position_embeddings": 40,
}  # fmt: skip

# Case -> model_type, fields of the config, outputs of its classification head (0: none).
ENCODERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "bert": ("bert", {}, 0),
    "bert, three kinds, other activation": ("bert", {"type_vocab_size": 3, "hidden_act": "gelu_new"}, 0),
    "bert, coarse norms": ("bert", {"layer_norm_eps": 1e-2, "hidden_act": "relu"}, 0),
    "bert that scores": ("bert", {}, 1),
    "bert that classifies": ("bert", {}, 3),
    "roberta": ("roberta", {"type_vocab_size": 1}, 0),
    "roberta that scores": ("roberta", {"type_vocab_size": 1, "pad_token_id": 3}, 1),
    "xlm-roberta": ("xlm-roberta", {"type_vocab_size": 1}, 0),
    "xlm-roberta that scores": ("xlm-roberta", {}, 1),
}


def encoder_oracle(case: str, at: Path) -> torch.nn.Module:
    """A transformers model with random weights, norms and biases included, saved as a model directory."""
    model_type, fields, labels = ENCODERS[case]
    config = AutoConfig.for_model(model_type, **(SMALL | fields | ({"num_labels": labels} if labels else {})))
    torch.manual_seed(len(case))
    maker = AutoModelForSequenceClassification if labels else AutoModel
    model = maker.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(at)
    return model
