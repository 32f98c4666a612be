"""Llama 1 to 3 and everything in its form (SmolLM2, many others): Touvron et al. 2023, Grattafiori et al. 2024.

The other families of this line take `spec` from here and replace what differs.
"""

from myna.model.config import Config
from myna.model.names import LLAMA
from myna.model.rope import read_rope
from myna.model.spec import AttentionRule, Biases, Norm, Spec

NAMES = LLAMA


def spec(config: Config) -> Spec:
    heads, layers = config.integer("num_attention_heads"), config.integer("num_hidden_layers", most="layers")
    width = config.integer("hidden_size")
    head_dim = config.integer("head_dim", max(1, width // heads))
    bias = config.flag("attention_bias", False)
    return Spec(
        family=config.text("model_type"),
        vocab=config.integer("vocab_size"),
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=config.integer("num_key_value_heads", heads),
        head_dim=head_dim,
        hidden=config.integer("intermediate_size"),
        max_len=config.integer("max_position_embeddings", most="length"),
        norm=Norm("rms", config.number("rms_norm_eps", 1e-6)),
        rules=(AttentionRule(head_dim**-0.5),) * layers,
        rope=read_rope(config, head_dim),
        activation=config.text("hidden_act", "silu"),
        biases=Biases(qkv=bias, out=bias, mlp=config.flag("mlp_bias", False)),
        tied=config.flag("tie_word_embeddings", False),
    )


def rename(name: str) -> str | None:
    """Llama 2 files carry the rope frequencies, which follow from config.json."""
    return None if name.endswith(".rotary_emb.inv_freq") else name
