"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, plain MLP, biases everywhere, matrices stored transposed."""

from myna.model.config import Config
from myna.model.spec import AttentionRule, Biases, Norm, Spec

_LAYER = "transformer.h.*."
NAMES = {
    "embed": "transformer.wte",
    "places": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "layers.*.attention_norm": _LAYER + "ln_1",
    "layers.*.attention.qkv": _LAYER + "attn.c_attn",
    "layers.*.attention.out": _LAYER + "attn.c_proj",
    "layers.*.mlp_norm": _LAYER + "ln_2",
    "layers.*.mlp.up": _LAYER + "mlp.c_fc",
    "layers.*.mlp.down": _LAYER + "mlp.c_proj",
}
TURNED = frozenset(f"layers.*.{x}" for x in ("attention.qkv", "attention.out", "mlp.up", "mlp.down"))


def spec(config: Config) -> Spec:
    config.refuse("add_cross_attention", False)
    width, heads = config.integer("n_embd", 768), config.integer("n_head", 12)
    layers, head_dim = config.integer("n_layer", 12, most="layers"), width // heads
    if width % heads:
        raise config.error("n_head", f"must divide the width, {width}")
    scale = head_dim**-0.5 if config.flag("scale_attn_weights", True) else 1.0
    by_depth = config.flag("scale_attn_by_inverse_layer_idx", False)
    return Spec(
        family="gpt2",
        vocab=config.integer("vocab_size", 50257),
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        hidden=config.integer("n_inner", 4 * width),
        max_len=config.integer("n_positions", 1024, most="length"),
        norm=Norm("layer", config.number("layer_norm_epsilon", 1e-5)),
        rules=tuple(AttentionRule(scale / (layer + 1 if by_depth else 1)) for layer in range(layers)),
        rope=None,
        activation=config.text("activation_function", "gelu_new"),
        gated=False,
        biases=Biases(qkv=True, out=True, mlp=True),
        tied=config.flag("tie_word_embeddings", True),
    )


def rename(name: str) -> str | None:
    """The published files leave out "transformer." and carry the causal mask."""
    if name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    return name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
