"""What a transformer is made of, in about a dozen fields. families/<model_type>.py reads one from config.json.

Shape letters used in this room: B batch, T time, C channels (`width`), H query heads, K key-value heads, D head size,
F feed-forward size (`hidden`), V vocabulary, E experts, N rows and K columns of a weight.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from myna.kernels import PageFormat
from myna.kernels.pages import BLOCK


@dataclass(frozen=True, slots=True)
class Norm:
    """`kind` "rms" (Zhang and Sennrich 2019) or "layer" (Ba et al. 2016); Gemma's multiplies by offset 1 + weight."""

    kind: str = "rms"
    eps: float = 1e-6
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary position embedding (Su et al. 2021) of the first `dim` channels of a head, and how it is stretched.

    `kind` is transformers' `rope_type`; `trained` is the length it was trained at (original_max_position_embeddings),
    `stated` the length config.json states (max_position_embeddings). rope.py says what each kind does with the rest.
    """

    dim: int
    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    trained: int = 0
    stated: int = 0
    attention_factor: float | None = None
    low: float = 1.0
    high: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    truncate: bool = True
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class AttentionRule:
    """How one layer weighs what it sees: softmax of scale * q.k, capped by softcap * tanh(. / softcap) when set,
    over the last `window` positions (itself included), or all earlier ones when None."""

    scale: float
    window: int | None = None
    softcap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Biases:
    qkv: bool = False
    out: bool = False
    mlp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MoE:
    """Mixture of experts (Shazeer et al. 2017): `top_k` of `experts`, each of feed-forward size `hidden`.

    `norm_topk` makes the chosen weights sum to 1; `shared` is the size of an expert that sees every token behind a
    sigmoid gate (Qwen2-MoE), 0 for none; `dense` names the layers that keep a plain MLP.
    """

    experts: int
    top_k: int
    hidden: int
    norm_topk: bool
    shared: int = 0
    dense: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bidirectional:
    """What makes an encoder of it (Devlin et al. 2019): every token sees its whole text, and norms come after what attention
    and MLP add.

    `kinds` is how many token types there are (0 the first text, 1 the second); the first token's position is `first`
    (RoBERTa counts on from its padding id); `labels` are the outputs of a sequence classification head, 0 for none.
    """

    kinds: int
    first: int = 0
    labels: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of the model: the rows of each part fused into it, and its columns (None: a vector)."""

    rows: tuple[int, ...]
    columns: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(self.rows),) if self.columns is None else (sum(self.rows), self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A decoder-only transformer, or an encoder-only one where `encoder` is set. `rules` holds one attention rule a layer.

    `rope` None means learned positions (GPT-2); `local_rope`, when set, serves the layers that have a window (Gemma 3).
    `gated` MLPs compute down(act(gate) * up), plain ones down(act(up)). `post_norms` also normalises what attention and
    MLP give back (Gemma 2 and 3). `softcap` caps the final logits. `tied`: the head is the embedding.
    """

    family: str
    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    max_len: int
    norm: Norm
    rules: tuple[AttentionRule, ...]
    rope: Rope | None
    local_rope: Rope | None = None
    activation: str = "silu"
    gated: bool = True
    biases: Biases = Biases()
    qk_norm: bool = False
    post_norms: bool = False
    moe: MoE | None = None
    tied: bool = False
    embed_scale: float = 1.0
    softcap: float | None = None
    encoder: Bidirectional | None = None

    def with_window(self, window: int | None, local: tuple[bool, ...] | None = None) -> "Spec":
        """The same spec with the window in every layer, or in those where `local` is true."""
        local = local or (True,) * self.layers
        rules = (replace(rule, window=window if here else None) for rule, here in zip(self.rules, local, strict=True))
        return replace(self, rules=tuple(rules))

    def untied(self) -> "Spec":
        return replace(self, tied=False)

    def kv_bytes(self, kept: str) -> int:
        """What the keys and values of one token take, over all layers, kept as float32, bfloat16 or int8. An encoder keeps none."""
        if self.encoder:
            return 0
        return 2 * self.layers * self.kv_heads * PageFormat(kept, self.head_dim).nbytes // BLOCK

    def sparse(self, layer: int) -> bool:
        """Is this layer's MLP a mixture of experts?"""
        return self.moe is not None and layer not in self.moe.dense

    def local(self, layer: int) -> bool:
        """Does this layer rotate with `local_rope`?"""
        return self.local_rope is not None and self.rules[layer].window is not None

    def slots(self) -> Iterator[tuple[str, Slot]]:
        """Every tensor of the model by its path in memory, largest structure first. Decoder or Encoder has exactly these."""
        yield "embed.weight", Slot((self.vocab,), self.width)
        if self.rope is None:
            yield "places.weight", Slot((self.max_len + (self.encoder.first if self.encoder else 0),), self.width)
        for layer in range(self.layers):
            for path, slot in self._layer_slots(layer):
                yield f"layers.{layer}.{path}", slot
        yield from self._norm_slots("norm", self.width)
        if self.encoder:
            yield from self._encoder_slots(self.encoder)
        elif not self.tied:
            yield "head.weight", Slot((self.vocab,), self.width)

    def parameters(self) -> int:
        """How many numbers are learned; tied ones count once."""
        return sum(prod(slot.shape) for _, slot in self.slots())

    def active_parameters(self) -> int:
        """How many of them one token touches: a mixture uses `top_k` experts of each sparse layer."""
        if self.moe is None:
            return self.parameters()
        idle = self.moe.experts - self.moe.top_k
        sparse = sum(self.sparse(layer) for layer in range(self.layers))
        expert = sum(prod(slot.shape) for _, slot in self._mlp_slots("", self.moe.hidden))
        return self.parameters() - idle * sparse * expert

    def _encoder_slots(self, encoder: Bidirectional) -> Iterator[tuple[str, Slot]]:
        """`norm` is that of the embeddings."""
        yield "kinds.weight", Slot((encoder.kinds,), self.width)
        if encoder.labels:
            yield from _linear("score.dense", (self.width,), self.width, True)
            yield from _linear("score.out", (encoder.labels,), self.width, True)

    def _layer_slots(self, layer: int) -> Iterator[tuple[str, Slot]]:
        names = ["attention_norm", "mlp_norm"]
        names += ["post_attention_norm", "post_mlp_norm"] if self.post_norms else []
        for name in names:
            yield from self._norm_slots(name, self.width)
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield from _linear("attention.qkv", (q, kv, kv), self.width, self.biases.qkv)
        yield from _linear("attention.out", (self.width,), q, self.biases.out)
        if self.qk_norm:
            yield from self._norm_slots("attention.q_norm", self.head_dim)
            yield from self._norm_slots("attention.k_norm", self.head_dim)
        if self.moe is not None and self.sparse(layer):
            yield from self._moe_slots(self.moe)
        else:
            yield from self._mlp_slots("mlp.", self.hidden)

    def _moe_slots(self, moe: MoE) -> Iterator[tuple[str, Slot]]:
        yield "mlp.router.weight", Slot((moe.experts,), self.width)
        for expert in range(moe.experts):
            yield from self._mlp_slots(f"mlp.experts.{expert}.", moe.hidden)
        if moe.shared:
            yield from self._mlp_slots("mlp.shared.", moe.shared)
            yield "mlp.shared_gate.weight", Slot((1,), self.width)

    def _mlp_slots(self, path: str, hidden: int) -> Iterator[tuple[str, Slot]]:
        up, rows = ("gate_up", (hidden, hidden)) if self.gated else ("up", (hidden,))
        yield from _linear(path + up, rows, self.width, self.biases.mlp)
        yield from _linear(path + "down", (self.width,), hidden, self.biases.mlp)

    def _norm_slots(self, path: str, size: int) -> Iterator[tuple[str, Slot]]:
        yield f"{path}.weight", Slot((size,))
        if self.norm.kind == "layer":
            yield f"{path}.bias", Slot((size,))


def _linear(path: str, rows: tuple[int, ...], columns: int, bias: bool) -> Iterator[tuple[str, Slot]]:
    yield f"{path}.weight", Slot(rows, columns)
    if bias:
        yield f"{path}.bias", Slot(rows)
