"""Adapters in a step: each row has one of its own, or none. For the native program they are packed; the decoder is told
which rows are whose."""

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import chain

import torch
from torch import Tensor, nn

from myna.kernels import Adapters, LowRank
from myna.kernels.adapters import AddedTo
from myna.model import Adapter, Decoder
from myna.model.linear import AnyLinear, PackedLinear


class PackedAdapter:
    """An adapter as the native program reads it: what it adds to each linear, by its path."""

    def __init__(self, model: Decoder, adapter: Adapter):
        self.weights: dict[str, LowRank] = {}
        for path, loras in adapter.loras.items():
            linear = model.get_submodule(path)
            assert isinstance(linear, PackedLinear), path
            half = linear.rows_total // 2 if path.endswith(".gate_up") else None
            self.weights[path] = LowRank([AddedTo(lora.start, lora.a, lora.b, lora.scale) for lora in loras], half)

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self.weights.values())


def of_weights(adapters: Sequence[PackedAdapter], numbers: int, rows: int) -> dict[str, Adapters]:
    """The adapters of each linear that any of them adapts, for steps of up to so many rows. `numbers` as in Adapters."""
    paths = dict.fromkeys(path for one in adapters for path in one.weights)
    most = max(low.rank for one in adapters for low in one.weights.values())
    shrunk = torch.empty(rows, most)
    return {path: Adapters(numbers, shrunk, [one.weights.get(path) for one in adapters]) for path in paths}


class ByRow:
    """A decoder whose rows each have the adapter of their own number, or none: the readable truth about a step."""

    def __init__(self, model: Decoder, adapters: Mapping[int, Adapter]):
        self.model, self.adapters = model, adapters
        self._rows: dict[int, Tensor] = {}

    def over(self, numbers: Sequence[int]) -> Decoder:
        """The decoder for one pass over rows of these adapters; 0 is none."""
        whose = torch.tensor(numbers)
        self._rows = {number: (whose == number).nonzero().flatten() for number in {*numbers} - {0}}
        return self._adapted if self._rows else self.model

    @cached_property
    def _adapted(self) -> Decoder:
        """A decoder of its own with the same weights: what else computes with the model, embeddings, sees no adapter."""
        weights = {id(tensor): tensor for tensor in chain(self.model.parameters(), self.model.buffers())}
        decoder = copy.deepcopy(self.model, weights)
        for path, module in decoder.named_modules():
            if isinstance(module, AnyLinear):
                module.register_forward_hook(partial(self._add, path))
        return decoder

    def _add(self, path: str, _: nn.Module, inputs: tuple[Tensor], y: Tensor) -> Tensor:
        x, flat = inputs[0].flatten(0, -2), y.flatten(0, -2)
        for number, rows in self._rows.items():
            for lora in self.adapters[number].loras.get(path, ()):
                flat[rows, lora.start : lora.stop] += lora(x[rows])
        return flat.view(y.shape)
