"""Mixture of experts (Shazeer et al. 2017; Mixtral, Jiang et al. 2024; the shared expert is Qwen2-MoE's)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from myna.model.linear import Linear, MakeLinear
from myna.model.mlp import Mlp
from myna.model.spec import MoE, Spec


class Experts(nn.Module):
    """Each token goes through the `top_k` experts its router likes best, weighted by the router's softmax.

    Training balances them (train/balance.py): `bias` [E] is added where experts are chosen, and never to their weights;
    `chose` hears which experts [n, k] were.
    """

    def __init__(self, spec: Spec, moe: MoE, linear: MakeLinear = Linear):
        super().__init__()
        self.top_k = moe.top_k
        self.norm_topk = moe.norm_topk
        # Router and gate stay float32 in every precision: they are small, and a rounded choice is another expert.
        self.router = Linear(spec.width, moe.experts)
        self.experts = nn.ModuleList(Mlp(spec, moe.hidden, linear) for _ in range(moe.experts))
        self.bias: Tensor | None = None
        self.chose: Callable[[Tensor], None] | None = None
        self.shared = Mlp(spec, moe.shared, linear) if moe.shared else None
        self.shared_gate = Linear(spec.width, 1) if moe.shared else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> float32 [..., C]. One pass over the experts that were chosen, never over tokens."""
        flat = x.reshape(-1, x.shape[-1])
        gates = self.router(flat).softmax(-1)
        liked = gates if self.bias is None else gates + self.bias
        # Of two alike the lower expert; topk leaves open which.
        chosen = liked.argsort(dim=-1, descending=True, stable=True)[:, : self.top_k]
        weights = gates.gather(-1, chosen)
        if self.chose is not None:
            self.chose(chosen)
        if self.norm_topk:
            weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(flat)
        # While training every expert has a gradient, if of 0: which ones have none would depend on the rows at hand.
        every = torch.is_grad_enabled()
        for expert in range(len(self.experts)) if every else chosen.unique().tolist():
            token, rank = torch.where(chosen == expert)
            out = out.index_add(0, token, self.experts[expert](flat[token]) * weights[token, rank, None])
        if self.shared is not None and self.shared_gate is not None:
            out = out + self.shared(flat) * self.shared_gate(flat).sigmoid()
        return out.view(x.shape)
