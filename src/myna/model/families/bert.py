"""BERT (Devlin et al. 2019), and what is stored in its form: MiniLM, E5, BGE, GTE, multilingual-e5-small, cross-encoders."""

from myna.model.config import Config
from myna.model.spec import AttentionRule, Biases, Bidirectional, Norm, Spec

_LAYER = "encoder.layer.*."
NAMES: dict[str, str | tuple[str, ...]] = {
    "embed": "embeddings.word_embeddings",
    "places": "embeddings.position_embeddings",
    "kinds": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "layers.*.attention.qkv": tuple(f"{_LAYER}attention.self.{x}" for x in ("query", "key", "value")),
    "layers.*.attention.out": _LAYER + "attention.output.dense",
    "layers.*.attention_norm": _LAYER + "attention.output.LayerNorm",
    "layers.*.mlp.up": _LAYER + "intermediate.dense",
    "layers.*.mlp.down": _LAYER + "output.dense",
    "layers.*.mlp_norm": _LAYER + "output.LayerNorm",
    "score.dense": "pooler.dense",
    "score.out": "classifier",
}
# Parts that are trained along and that embeddings have no use for; dropped unless they are a classifier's own.
HEADS = ("pooler.", "cls.")
BELOW = "bert."  # where a classifier keeps its encoder


def spec(config: Config, *, first: int = 0) -> Spec:
    """`first` is the position of the first token."""
    config.refuse("position_embedding_type", "absolute")
    for key in ("is_decoder", "add_cross_attention"):
        config.refuse(key, False)
    width, heads = config.integer("hidden_size", 768), config.integer("num_attention_heads", 12)
    layers = config.integer("num_hidden_layers", 12, most="layers")
    if width % heads:
        raise config.error("num_attention_heads", f"must divide the width, {width}")
    places = config.integer("max_position_embeddings", 512, most="length")
    if places <= first:
        raise config.error("max_position_embeddings", f"must be above {first}, where positions begin")
    return Spec(
        family=config.text("model_type").replace("-", "_"),
        vocab=config.integer("vocab_size", 30522),
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        hidden=config.integer("intermediate_size", 4 * width),
        max_len=places - first,
        norm=Norm("layer", config.number("layer_norm_eps", 1e-12)),
        rules=(AttentionRule((width // heads) ** -0.5),) * layers,
        rope=None,
        activation=config.text("hidden_act", "gelu"),
        gated=False,
        biases=Biases(qkv=True, out=True, mlp=True),
        tied=True,
        encoder=Bidirectional(kinds=config.integer("type_vocab_size", 2), first=first, labels=_labels(config)),
    )


def _labels(config: Config) -> int:
    """The outputs of a classification head, where `architectures` names one; transformers counts id2label, and has two by
    default."""
    named = config.fields.get("architectures") or []
    if not isinstance(named, list) or not any(str(name).endswith("ForSequenceClassification") for name in named):
        return 0
    return len(config.below("id2label").fields) or config.integer("num_labels", 2)


def rename(name: str) -> str | None:
    """Files of a model with a head begin every other name with "bert."; the oldest call a norm's numbers gamma and beta."""
    if name.endswith("position_ids"):
        return None
    name = name.removeprefix(BELOW)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
