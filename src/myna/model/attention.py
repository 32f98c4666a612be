"""Grouped-query attention (Ainslie et al. 2023) with q, k and v in one product."""

from torch import Tensor, nn

from myna.model.linear import Linear, MakeLinear
from myna.model.memory import Memory
from myna.model.norm import make_norm
from myna.model.rope import rotate
from myna.model.spec import Spec

Angles = tuple[Tensor, Tensor]


class Attention(nn.Module):
    def __init__(self, spec: Spec, layer: int, linear: MakeLinear = Linear):
        super().__init__()
        self.layer = layer
        self.rule = spec.rules[layer]
        self.groups = spec.heads // spec.kv_heads
        self.head_dim = spec.head_dim
        q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.qkv = linear(spec.width, q + 2 * kv, spec.biases.qkv)
        self.out = linear(q, spec.width, spec.biases.out)
        self.q_norm = make_norm(spec.norm, spec.head_dim) if spec.qk_norm else nn.Identity()
        self.k_norm = make_norm(spec.norm, spec.head_dim) if spec.qk_norm else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor, angles: Angles | None, memory: Memory) -> Tensor:
        """[..., C] -> float32 [..., C]"""
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        kv = heads.shape[-2] // (self.groups + 2)  # where processes share a layer, each has some of its heads
        q, k, v = heads.split((self.groups * kv, kv, kv), dim=-2)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate(q, *angles), rotate(k, *angles)
        seen = memory.attend(self.layer, q, k, v, positions, self.rule)
        return self.out(seen.flatten(-2))
