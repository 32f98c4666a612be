"""One encoder for every family: texts in flat rows, one after the other, so that no text meets padding or another's tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from myna.model.attention import Attention
from myna.model.linear import Linear, MakeLinear
from myna.model.memory import Apart, Memory
from myna.model.mlp import Mlp
from myna.model.norm import make_norm
from myna.model.spec import Spec


class EncoderBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)) (Devlin et al. 2019)."""

    def __init__(self, spec: Spec, layer: int, linear: MakeLinear = Linear):
        super().__init__()
        self.attention = Attention(spec, layer, linear)
        self.attention_norm = make_norm(spec.norm, spec.width)
        self.mlp = Mlp(spec, spec.hidden, linear)
        self.mlp_norm = make_norm(spec.norm, spec.width)

    def forward(self, x: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        x = self.attention_norm(x + self.attention(x, positions, None, memory))
        return self.mlp_norm(x + self.mlp(x))


class Score(nn.Module):
    """What a sequence classification head makes of a text's first hidden row: out(tanh(dense(x))), float32 in every
    precision, as the outputs are few and decide."""

    def __init__(self, width: int, labels: int):
        super().__init__()
        self.dense = Linear(width, width, bias=True)
        self.out = Linear(width, labels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> float32 [..., labels]"""
        return self.out(torch.tanh(self.dense(x)))


class Encoder(nn.Module):
    """BERT and its kin. `linear` makes every projection and the word embedding, as in Decoder."""

    def __init__(self, spec: Spec, linear: MakeLinear = Linear, max_len: int | None = None):
        super().__init__()
        assert spec.encoder is not None, f"{spec.family} is no encoder"
        self.spec = spec
        self.max_len = max_len or spec.max_len
        self.first = spec.encoder.first
        self.embed = linear(spec.width, spec.vocab)
        self.places = Linear(spec.width, spec.max_len + self.first)
        self.kinds = Linear(spec.width, spec.encoder.kinds)
        self.norm = make_norm(spec.norm, spec.width)
        self.layers = nn.ModuleList(EncoderBlock(spec, layer, linear) for layer in range(spec.layers))
        self.score = Score(spec.width, spec.encoder.labels) if spec.encoder.labels else None

    @property
    def precision(self) -> str:
        """What its projections hold: float32, bfloat16, or int8."""
        return self.embed.precision

    def forward(self, ids: Tensor, kinds: Tensor, lengths: Sequence[int]) -> Tensor:
        """Long [rows], Long [rows] -> hidden float32 [rows, C]; the rows of texts of these lengths, one after the other."""
        positions = torch.cat([torch.arange(self.first, self.first + length) for length in lengths])
        x = self.norm(self.embed.rows(ids) + self.places.rows(positions) + self.kinds.rows(kinds))
        memory = Apart(lengths, causal=False)
        for block in self.layers:
            x = block(x, positions, memory)
        return x
