"""How many processes train together. One, unless torchrun started several."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from myna.train import checkpoint


@dataclass(frozen=True)
class World:
    """This process among those that train one model."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """The one that writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        return list(values)

    def any(self, value: bool) -> bool:
        return value

    def full_state(
        self, model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What is trained by name, and every moment by "parameter:moment", whole, where is_main."""
        weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        return weights, checkpoint.moments_of(model, optimizers)

    @torch.no_grad()
    def set_full_state(
        self,
        model: nn.Module,
        optimizers: Iterable[torch.optim.Optimizer],
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
    ) -> None:
        """The inverse."""
        for name, value in weights.items():
            model.get_parameter(name).copy_(value)
        checkpoint.set_moments(model, optimizers, moments)


ALONE = World()
