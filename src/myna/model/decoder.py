"""One decoder for every family: training and serving call it alike, only the memory differs."""

import torch
from torch import Tensor, nn

from myna.kernels import PageFormat
from myna.model.attention import Angles, Attention
from myna.model.linear import Linear, MakeLinear, PackedLinear
from myna.model.memory import Memory
from myna.model.mlp import Mlp
from myna.model.moe import Experts
from myna.model.norm import make_norm
from myna.model.rope import Rotary
from myna.model.spec import Spec


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); Gemma 2 and 3 also normalise what is added."""

    def __init__(self, spec: Spec, layer: int, linear: MakeLinear = Linear):
        super().__init__()
        self.attention_norm = make_norm(spec.norm, spec.width)
        self.attention = Attention(spec, layer, linear)
        self.post_attention_norm = make_norm(spec.norm, spec.width) if spec.post_norms else nn.Identity()
        self.mlp_norm = make_norm(spec.norm, spec.width)
        sparse = spec.moe if spec.sparse(layer) else None
        self.mlp = Experts(spec, sparse, linear) if sparse else Mlp(spec, spec.hidden, linear)
        self.post_mlp_norm = make_norm(spec.norm, spec.width) if spec.post_norms else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor, angles: Angles | None, memory: Memory) -> Tensor:
        x = x + self.post_attention_norm(self.attention(self.attention_norm(x), positions, angles, memory))
        return x + self.post_mlp_norm(self.mlp(self.mlp_norm(x)))


class Decoder(nn.Module):
    """`linear` makes every projection, the embedding and the head: Linear to train, PackedLinear to serve quantized.
    `table`, if given, makes embedding and head instead.

    `max_len` is how many positions its rotary tables hold; longer input is an IndexError, so callers check first.
    `kept` is what pages keep keys and values as (see PageFormat); None is float32 beside float32 weights, else bfloat16.
    """

    def __init__(
        self,
        spec: Spec,
        linear: MakeLinear = Linear,
        max_len: int | None = None,
        kept: str | None = None,
        table: MakeLinear | None = None,
    ):
        super().__init__()
        table = table or linear
        self.spec = spec
        self.kept = kept
        self.max_len = max_len or spec.max_len
        self.embed = table(spec.width, spec.vocab)
        self.places = None if spec.rope else Linear(spec.width, spec.max_len)
        self.rotary = Rotary(spec.rope, self.max_len) if spec.rope else None
        self.local_rotary = Rotary(spec.local_rope, self.max_len) if spec.local_rope else None
        self.layers = nn.ModuleList(Block(spec, layer, linear) for layer in range(spec.layers))
        self.norm = make_norm(spec.norm, spec.width)
        self.head = None if spec.tied else table(spec.width, spec.vocab)

    @property
    def precision(self) -> str:
        """What its projections hold: float32, bfloat16, int8, int4, or several as int4+int6."""
        packed = {kind for m in self.modules() if isinstance(m, PackedLinear) for kind in m.precision.split("+")}
        return "+".join(sorted(packed)) if packed else self.embed.precision

    @property
    def kv_format(self) -> PageFormat:
        """How keys and values are kept while answering."""
        usual = "float32" if self.precision == "float32" else "bfloat16"
        return PageFormat(self.kept or usual, self.spec.head_dim)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that the keys and values of one token take, over all layers."""
        return self.spec.kv_bytes(self.kv_format.kept)

    def forward(self, ids: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        """Long [...], Long [...] -> hidden float32 [..., C], normalised and ready for `logits`."""
        x = self.embed.rows(ids) * self.spec.embed_scale
        if self.places is not None:
            x = x + self.places.rows(positions)
        angles = self.rotary(positions) if self.rotary else None
        local = self.local_rotary(positions) if self.local_rotary else None
        for layer, block in enumerate(self.layers):
            x = block(x, positions, local if self.spec.local(layer) else angles, memory)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [..., C] -> float32 [..., V]"""
        logits = (self.head or self.embed)(hidden).float()
        cap = self.spec.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)
