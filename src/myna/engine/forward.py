"""A decoder's forward as a program, op by op: read it beside Decoder, Block, Attention, Mlp and Experts, which it repeats.

Everything a step computes with lies in buffers that are made once; an operation reads one and writes the next.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from myna.engine.pages import Pages
from myna.kernels import Adapters, Program, Routes, Step, row_bytes
from myna.model import Decoder, Spec
from myna.model.decoder import Block
from myna.model.linear import AnyLinear, PackedLinear
from myna.model.mlp import Mlp
from myna.model.moe import Experts
from myna.model.norm import LayerNorm, RMSNorm


class Buffers:
    """What a step of up to `rows` rows computes with, of which up to `samples` give logits.

    x         [rows, C] the residual stream          added   what attention or MLP give back before it is normalised
    qkv       [rows, (H + 2 KV) D]                   seen    [rows, H D] what heads have seen
    packed    the quantized rows a product reads     hidden  those of an MLP's hidden layer
    logits    [samples, V]

    and for a mixture of experts: normed [rows, C] what the router reads, routes, pairs [rows * top_k, C] what experts
    answered, shared [rows, C] what the shared expert did.
    """

    def __init__(self, spec: Spec, rows: int, samples: int):
        self.rows, moe = rows, spec.moe
        heads, packed, hidden = spec.heads + 2 * spec.kv_heads, row_bytes(spec.width), row_bytes(spec.hidden)
        self.x = torch.empty(rows, spec.width)
        self.added = torch.empty(rows, spec.width) if spec.post_norms else self.x
        self.qkv, self.seen = torch.empty(rows, heads * spec.head_dim), torch.empty(rows, spec.heads * spec.head_dim)
        self.logits = torch.empty(samples, spec.vocab)
        if moe is not None:
            pairs = rows * moe.top_k
            self.normed, self.routes = torch.empty(rows, spec.width), Routes(rows, moe.experts, moe.top_k)
            self.pairs = torch.empty(pairs, spec.width)
            self.shared = torch.empty(rows, spec.width) if moe.shared else None
            packed = moe.top_k * packed
            hidden = max(hidden, row_bytes(moe.shared), moe.top_k * row_bytes(moe.hidden))
        packed = max(packed, row_bytes(spec.heads * spec.head_dim))
        self.packed = torch.empty(rows * packed, dtype=torch.uint8)
        self.hidden = torch.empty(rows * hidden, dtype=torch.uint8)


class Forward:
    """Writes the program of one decoder over one set of buffers. `adapters` add to the products of the linears at these
    paths; of those in a mixture's experts there are none."""

    def __init__(
        self, model: Decoder, pages: Pages, step: Step, buffers: Buffers, adapters: Mapping[str, Adapters] = {}
    ):
        self.adapters = adapters
        self.model, self.spec, self.pages, self.step, self.buffers = model, model.spec, pages, step, buffers
        self.rows = step.field("rows")
        self.program = Program()
        self._describe()

    def _describe(self) -> None:
        model, program, b, step = self.model, self.program, self.buffers, self.step
        packed, _, format = next(_packed(model.embed).parts())
        program.embed(self.rows, step.ids.ctypes.data, b.x, packed, format, self.spec.embed_scale)
        if model.places is not None:
            program.add_places(step, b.x, model.places.weight.detach())
        for layer, block in enumerate(model.layers):
            assert isinstance(block, Block)
            program.quantize(self.rows, b.x, b.packed, self.spec.width, *_norm(block.attention_norm))
            self._attention(layer, block)
            self._add(block.post_attention_norm)
            if isinstance(block.mlp, Experts):
                self._experts(block.mlp, block.mlp_norm)
            else:
                assert isinstance(block.mlp, Mlp)
                program.quantize(self.rows, b.x, b.packed, self.spec.width, *_norm(block.mlp_norm))
                self._mlp(block.mlp, b.added, adds=not self.spec.post_norms, path=f"layers.{layer}.mlp")
            self._add(block.post_mlp_norm)
        samples, which = step.field("samples"), step.sampled.ctypes.data
        program.quantize(samples, b.x, b.packed, self.spec.width, *_norm(model.norm), which=which)
        self._linear(samples, b.packed, model.head or model.embed, b.logits)

    def _attention(self, layer: int, block: Block) -> None:
        spec, program, b, rule = self.spec, self.program, self.buffers, self.spec.rules[layer]
        attention, heads = block.attention, (spec.heads, spec.kv_heads)
        pages = self.pages.keys[layer], self.pages.values[layer], self.pages.format
        rotary = self.model.local_rotary if spec.local(layer) else self.model.rotary
        angles = None if rotary is None else (rotary.cos, rotary.sin)
        norms = (_norm(attention.q_norm)[0], _norm(attention.k_norm)[0]) if spec.qk_norm else None
        path = f"layers.{layer}.attention"
        self._linear(self.rows, b.packed, attention.qkv, b.qkv)
        self._adapt(f"{path}.qkv", b.packed, attention.qkv, b.qkv)
        program.place(self.step, b.qkv, *pages, heads, angles, norms, spec.norm.eps)
        program.attend(self.step, b.qkv, *pages, b.seen, heads, rule.scale, rule.window, rule.softcap)
        program.quantize(self.rows, b.seen, b.packed, b.seen.shape[1])
        self._linear(self.rows, b.packed, attention.out, b.added, adds=not spec.post_norms)
        self._adapt(f"{path}.out", b.packed, attention.out, b.added)

    def _mlp(self, mlp: Mlp, out: Tensor, *, adds: bool, path: str = "") -> None:
        """What lies in `packed`, through the MLP, to `out`."""
        adapters = self.adapters.get(f"{path}.gate_up" if mlp.gated else f"{path}.up")
        if adapters:
            self.program.shrink(self.rows, self.buffers.packed, self.spec.width, adapters)
        self._hidden(self.rows, mlp, adapters=adapters)
        self._linear(self.rows, self.buffers.hidden, mlp.down, out, adds=adds)
        self._adapt(f"{path}.down", self.buffers.hidden, mlp.down, out)

    def _adapt(self, path: str, x: Tensor, linear: AnyLinear, out: Tensor) -> None:
        """`out` += what adapters add to this linear's product of x."""
        if adapters := self.adapters.get(path):
            self.program.shrink(self.rows, x, _packed(linear).columns, adapters)
            self.program.expand(self.rows, out, adapters)

    def _hidden(self, rows: int, mlp: Mlp, *, first: int = 0, adapters: Adapters | None = None) -> None:
        """What lies in `packed`, through the MLP's first product and activation, to `hidden`."""
        b, weight = self.buffers, _packed(mlp.gate_up if mlp.gated else mlp.up)
        gate, up = weight.halves() if mlp.gated else (*weight.parts(), None)
        assert gate is not None
        bias, kind = weight.bias, mlp.activation
        self.program.hidden(rows, b.packed, b.hidden, gate, up, bias, kind, first=first, adapters=adapters)

    def _experts(self, mlp: Experts, norm: nn.Module) -> None:
        """Each pair (row, expert) is a row of its own to the products, the pairs of an expert one stretch of them."""
        spec, program, b, routes = self.spec, self.program, self.buffers, self.buffers.routes
        program.norm(self.rows, b.x, b.normed, *_norm(norm))
        gate = mlp.shared_gate.weight.detach() if mlp.shared_gate else None
        program.route(self.rows, b.normed, routes, mlp.router.weight.detach(), gate, mlp.norm_topk)
        program.quantize(routes.pairs, b.normed, b.packed, spec.width, which=routes.owners.data_ptr())
        experts = [(expert, *routes.of(n)) for n, expert in enumerate(mlp.experts) if isinstance(expert, Mlp)]
        for expert, count, first in experts:
            self._hidden(count, expert, first=first)
        for expert, count, first in experts:
            self._linear(count, b.hidden, expert.down, b.pairs, first=first)
        if mlp.shared is not None and b.shared is not None:
            program.quantize(self.rows, b.normed, b.packed, spec.width)
            self._mlp(mlp.shared, b.shared, adds=False)
        program.combine(self.rows, routes, b.pairs, b.shared, b.added, adds=not spec.post_norms)

    def _linear(
        self, rows: int, x: Tensor, linear: AnyLinear, out: Tensor, *, adds: bool = False, first: int = 0
    ) -> None:
        start = 0
        for packed, shape, format in _packed(linear).parts():
            self.program.linear(rows, x, out, packed, shape, format, linear.bias, start=start, adds=adds, first=first)
            start += shape[0]

    def _add(self, norm: nn.Module) -> None:
        """x += norm(added), where the family normalises what is added; else the product has added it already."""
        if self.spec.post_norms:
            self.program.norm(self.rows, self.buffers.added, self.buffers.x, *_norm(norm), adds=True)


def _packed(linear: AnyLinear) -> PackedLinear:
    assert isinstance(linear, PackedLinear)
    return linear


def _norm(norm: nn.Module) -> tuple[Tensor, float, Tensor | None]:
    """Weight, epsilon, and a layer norm's bias."""
    if isinstance(norm, LayerNorm):
        return norm.weight.detach(), norm.eps, norm.bias.detach()
    assert isinstance(norm, RMSNorm)
    return (norm.weight + norm.offset).detach() if norm.offset else norm.weight.detach(), norm.eps, None
