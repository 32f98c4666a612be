"""A decoder's forward step as a program of the native kernels: described once, walked in C every step.

The readable decoder (model/decoder.py) stays the truth; this file says the same as a flat list. A family whose Spec asks
for what no operation does yet runs through the decoder, on the same pages.
"""

from array import array

import torch
from torch import Tensor

from myna.engine.blocks import BLOCK, blocks_for
from myna.engine.pages import Pages
from myna.engine.request import Plan
from myna.kernels import UNIT, Program, Step, library, row_bytes
from myna.kernels.program import ACTIVATIONS, PART
from myna.model import Decoder
from myna.model.decoder import Block
from myna.model.linear import AnyLinear, PackedLinear
from myna.model.mlp import Mlp
from myna.model.norm import RMSNorm


def why_not(model: Decoder) -> str | None:
    """What keeps this decoder from running as a program, or None."""
    spec = model.spec
    if library() is None or not isinstance(model.embed, PackedLinear):
        return "its weights are not packed"
    if spec.norm.kind != "rms" or spec.rope is None:
        return "it has layer norms or learned positions"
    if spec.moe is not None:
        return "it is a mixture of experts"
    if spec.gated and not all(_packed(m.gate_up).halves() for m in model.modules() if isinstance(m, Mlp)):
        return f"gate and up share a unit of {UNIT} rows: its hidden size is {spec.hidden}"
    if spec.head_dim % 16 or spec.activation not in ACTIVATIONS:
        return f"its heads have {spec.head_dim} channels, or its activation is {spec.activation}"
    return None


class NativeStep:
    """Buffers for `capacity` rows, and the program over them; both are made anew when a step needs more."""

    def __init__(self, model: Decoder, pages: Pages):
        self.model = model
        self.pages = pages
        self._build(rows=64, samples=8, parts=64)

    def run(self, plan: Plan) -> Tensor:
        """logits [rows, V] of the answers of each of plan.sampling, good until the next run."""
        rows = sum(piece.stop - piece.start for piece in plan.slices)
        parts = sum(blocks_for(s.stop) * BLOCK // PART + 2 for s in plan.slices if s.stop - s.start == 1)
        samples = sum(piece.answers for piece in plan.sampling)
        if rows > self.rows or samples > len(self.logits) or parts > self.parts:
            self._build(*(max(2 * need if need > had else had, had) for need, had in self._sizes(rows, samples, parts)))
        describe(self.step, plan)
        self.program.run()
        logits, cap = self.logits[:samples], self.model.spec.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _sizes(self, rows: int, samples: int, parts: int) -> tuple[tuple[int, int], ...]:
        return (rows, self.rows), (samples, len(self.logits)), (parts, self.parts)

    def _build(self, rows: int, samples: int, parts: int) -> None:
        spec = self.model.spec
        self.rows, self.parts, self.step = rows, parts, Step(max(rows, samples))
        q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
        self.x = torch.empty(rows, spec.width)
        self.added = torch.empty(rows, spec.width) if spec.post_norms else self.x
        self.qkv = torch.empty(rows, q + 2 * kv)
        self.seen = torch.empty(rows, q)
        self.packed = torch.empty(max(rows, samples) * row_bytes(max(spec.width, q)), dtype=torch.uint8)
        self.hidden = torch.empty(rows * row_bytes(spec.hidden), dtype=torch.uint8)
        self.partials = torch.empty(parts, spec.heads * (spec.head_dim + 2))
        self.logits = torch.empty(samples, spec.vocab)
        self.program = Program()
        self._describe_model()

    def _describe_model(self) -> None:
        """The decoder's forward, op by op: compare with Decoder, Block, Attention and Mlp."""
        model, program, spec, rows = self.model, self.program, self.model.spec, self.step.field("rows")
        packed, _, format = next(_packed(model.embed).parts())
        program.embed(rows, self.step.ids.ctypes.data, self.x, packed, format, spec.embed_scale)
        for layer, block in enumerate(model.layers):
            assert isinstance(block, Block)
            assert isinstance(block.mlp, Mlp)
            program.quantize(rows, self.x, self.packed, spec.width, *_norm(block.attention_norm))
            self._attention(layer, block)
            self._add(block.post_attention_norm)
            program.quantize(rows, self.x, self.packed, spec.width, *_norm(block.mlp_norm))
            self._mlp(block.mlp)
            self._add(block.post_mlp_norm)
        samples, which = self.step.field("samples"), self.step.sampled.ctypes.data
        program.quantize(samples, self.x, self.packed, spec.width, *_norm(model.norm), which=which)
        self._linear(samples, self.packed, model.head or model.embed, self.logits)

    def _attention(self, layer: int, block: Block) -> None:
        model, spec, program, rule = self.model, self.model.spec, self.program, self.model.spec.rules[layer]
        rotary = model.local_rotary if spec.local(layer) else model.rotary
        heads, attention = (spec.heads, spec.kv_heads, spec.head_dim), block.attention
        keys, values = self.pages.keys[layer], self.pages.values[layer]
        assert rotary is not None
        norms = (_weight(attention.q_norm), _weight(attention.k_norm)) if spec.qk_norm else None
        self._linear(self.step.field("rows"), self.packed, attention.qkv, self.qkv)
        program.place(self.step, self.qkv, keys, values, heads, (rotary.cos, rotary.sin), norms, spec.norm.eps)
        program.attend(
            self.step, self.qkv, keys, values, self.seen, self.partials, heads, rule.scale, rule.window, rule.softcap
        )
        program.quantize(self.step.field("rows"), self.seen, self.packed, self.seen.shape[1])
        self._linear(self.step.field("rows"), self.packed, attention.out, self.added, adds=not spec.post_norms)

    def _mlp(self, mlp: Mlp) -> None:
        rows, first = self.step.field("rows"), _packed(mlp.gate_up if mlp.gated else mlp.up)
        gate, *up = first.halves() if mlp.gated else first.parts()
        self.program.hidden(rows, self.packed, self.hidden, gate, up[0] if up else None, first.bias, mlp.activation)
        self._linear(rows, self.hidden, mlp.down, self.added, adds=not self.model.spec.post_norms)

    def _linear(self, rows: int, x: Tensor, linear: AnyLinear, out: Tensor, *, adds: bool = False) -> None:
        start = 0
        for packed, shape, format in _packed(linear).parts():
            self.program.linear(rows, x, out, packed, shape, format, linear.bias, start=start, adds=adds)
            start += shape[0]

    def _add(self, norm: torch.nn.Module) -> None:
        """x += norm(added), where the family normalises what is added; else the product has added it already."""
        if self.model.spec.post_norms:
            self.program.norm(self.step.field("rows"), self.added, self.x, *_norm(norm), adds=True)


def _packed(linear: AnyLinear) -> PackedLinear:
    assert isinstance(linear, PackedLinear)
    return linear


def _weight(norm: torch.nn.Module) -> Tensor:
    assert isinstance(norm, RMSNorm)
    return (norm.weight + norm.offset).detach() if norm.offset else norm.weight.detach()


def _norm(norm: torch.nn.Module) -> tuple[Tensor, float]:
    assert isinstance(norm, RMSNorm)
    return _weight(norm), norm.eps


def describe(step: Step, plan: Plan) -> None:
    """Write a plan down as the native library reads it. Plain integers: most slices are one row, for which a call into
    numpy would take longer than the row."""
    ids, positions, slots, table = array("i"), array("i"), array("i"), array("i")
    sequences: list[tuple[int, int, int, int]] = []
    sampled: list[int] = []  # in the order of plan.sampling, which is that of plan.slices
    for piece in plan.slices:
        blocks = piece.sequence.blocks
        sequences.append((len(ids), piece.stop - piece.start, piece.start, len(table)))
        table.extend(blocks[: blocks_for(piece.stop)])
        for place in range(piece.start, piece.stop):
            positions.append(place)
            slots.append(blocks[place // BLOCK] * BLOCK + place % BLOCK)
        ids.extend(piece.ids)
        sampled += range(len(ids) - piece.answers, len(ids))
    step.set(ids, positions, slots, sampled, sequences, table)
