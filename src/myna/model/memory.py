"""What attention reads besides the tokens of this step: nothing (Causal, Apart, Documents) or a contiguous cache (Cache). The engine
brings pages. A memory has one method:

    attend(layer, q[..., H, D], k[..., K, D], v[..., K, D], positions[...], rule) -> [..., H, D]
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.model.spec import AttentionRule, Spec


class Memory(Protocol):
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, rule: AttentionRule) -> Tensor: ...


class Causal:
    """No memory: each of T tokens attends to those before it in its row. q, k, v [B, T, heads, D]; differentiable."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, rule: AttentionRule) -> Tensor:
        q, k, v = (x.transpose(-3, -2) for x in (q, k, v))
        plain = rule.softcap is None and (rule.window is None or rule.window >= q.shape[-2])
        if plain:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=rule.scale, enable_gqa=True)
        else:
            steps = torch.arange(q.shape[-2], device=q.device)
            out = weigh(q, k, v, visible(steps, steps, rule.window), rule)
        return out.transpose(-3, -2)


class Apart:
    """No memory: texts of these lengths, one after the other in flat rows, each of which sees itself alone. `causal`: a token
    sees those before it; else all of its text. q, k, v [rows, heads, D]; differentiable.

    Nothing is padded, so nothing has to be hidden; neighbours of one length attend in one call.
    """

    def __init__(self, lengths: Sequence[int], *, causal: bool):
        self.groups = [(length, len(list(texts))) for length, texts in groupby(lengths)]
        self.causal = causal

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, rule: AttentionRule) -> Tensor:
        outs = []
        sizes = [length * count for length, count in self.groups]
        for group, *rows in zip(self.groups, *(x.split(sizes) for x in (q, k, v)), strict=True):
            length, count = group
            q, k, v = (x.unflatten(0, (count, length)) for x in rows)
            seen = Causal().attend(layer, q, k, v, positions, rule) if self.causal else _attend_all(q, k, v, rule)
            outs.append(seen.flatten(0, 1))
        return torch.cat(outs)


class Documents:
    """No memory: rows in which sequences lie one after the other, each of which sees itself alone, and a token those before
    it. `docs` [B, T] numbers the sequence of each place; padding is one of its own. q, k, v [B, T, heads, D]; differentiable.
    """

    def __init__(self, docs: Tensor):
        self.docs = docs
        self.alone = bool((docs == docs[:, :1]).all())
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, rule: AttentionRule) -> Tensor:
        if self.alone:
            return Causal().attend(layer, q, k, v, positions, rule)
        if rule.window not in self._masks:
            steps = torch.arange(q.shape[-3], device=q.device)
            same = self.docs[:, :, None] == self.docs[:, None, :]
            self._masks[rule.window] = (same & visible(steps, steps, rule.window))[:, None]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return weigh(q, k, v, self._masks[rule.window], rule).transpose(1, 2)


def _attend_all(q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
    """q, k, v [B, T, heads, D]: every token sees every token of its row."""
    assert rule.window is None, "an encoder with windows"
    assert rule.softcap is None, "an encoder with soft caps"
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=rule.scale, enable_gqa=True).transpose(1, 2)


class Cache:
    """Keys and values of `batch` sequences of up to `length` positions, contiguous, preallocated: [layers, B, K, S, D].

    Each row writes at its own positions, so rows may be of different lengths; positions must be filled from 0 on.
    q, k and v take the cache's dtype.
    """

    def __init__(self, spec: Spec, batch: int, length: int, dtype: torch.dtype = torch.float32):
        shape = (spec.layers, batch, spec.kv_heads, length, spec.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype)
        self.values = torch.zeros(shape, dtype=dtype)
        self.rows = torch.arange(batch)[:, None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, rule: AttentionRule) -> Tensor:
        positions = positions.expand(q.shape[:2])
        length = int(positions.max()) + 1
        assert length <= self.keys.shape[3], f"position {length - 1} in a cache of {self.keys.shape[3]}"
        self.keys[layer, self.rows, :, positions] = k.to(self.keys.dtype)
        self.values[layer, self.rows, :, positions] = v.to(self.values.dtype)
        keys, values = self.keys[layer, :, :, :length], self.values[layer, :, :, :length]
        mask = visible(positions, torch.arange(length), rule.window).unsqueeze(1)
        return weigh(q.transpose(1, 2).to(keys.dtype), keys, values, mask, rule).transpose(1, 2)


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Which key positions [S] each query position [..., T] sees: bool [..., T, S]."""
    distance = queries.unsqueeze(-1) - keys
    return (distance >= 0) if window is None else (distance >= 0) & (distance < window)


def weigh(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, rule: AttentionRule) -> Tensor:
    """Attention of q [..., H, T, D] over k, v [..., K, S, D] where mask [..., T, S] is true; H is a multiple of K."""
    if rule.softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=rule.scale, enable_gqa=True)
    groups = q.shape[-3] // k.shape[-3]
    k, v = k.repeat_interleave(groups, -3), v.repeat_interleave(groups, -3)
    scores = (q @ k.transpose(-1, -2)).float() * rule.scale
    scores = rule.softcap * torch.tanh(scores / rule.softcap)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1).to(v.dtype) @ v
