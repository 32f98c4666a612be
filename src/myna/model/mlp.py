"""The feed-forward part: gated (Shazeer 2020) or plain."""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from myna.model.linear import Linear, MakeLinear
from myna.model.spec import Spec
from myna.records import ModelDirError

_tanh_gelu = partial(F.gelu, approximate="tanh")
# The names of transformers' ACT2FN.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_new": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "relu": F.relu,
}


def activation(name: str) -> Callable[[Tensor], Tensor]:
    if name not in ACTIVATIONS:
        raise ModelDirError(f"activation {name!r} is not supported; these are: {', '.join(sorted(ACTIVATIONS))}.")
    return ACTIVATIONS[name]


class Mlp(nn.Module):
    """down(act(gate) * up), gate and up in one product; or down(act(up))."""

    def __init__(self, spec: Spec, hidden: int, linear: MakeLinear = Linear):
        super().__init__()
        self.activation = spec.activation
        self.act = activation(spec.activation)
        self.gated = spec.gated
        if spec.gated:
            self.gate_up = linear(spec.width, 2 * hidden, spec.biases.mlp)
        else:
            self.up = linear(spec.width, hidden, spec.biases.mlp)
        self.down = linear(hidden, spec.width, spec.biases.mlp)

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> float32 [..., C]"""
        if not self.gated:
            return self.down(self.act(self.up(x)))
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(self.act(gate) * up)
