"""Random adapters of a random decoder, in one of the shapes that folders have."""

import torch

from myna.model import Adapter, Decoder, Lora
from myna.model.lora import places


def random_adapter(decoder: Decoder, seed: int, rank: int = 4, only: str = "", size: float = 1.0) -> Adapter:
    """Of every part that has one, or of those whose path has `only` in it. Large enough to change every answer."""
    random = torch.Generator().manual_seed(seed)
    loras: dict[str, tuple[Lora, ...]] = {}
    for number, part in enumerate(places(decoder.spec).values()):
        rows, columns = part.shape[::-1] if part.turned else part.shape
        path, some = part.path.removesuffix(".weight"), rank + number % 3
        a = torch.randn(some, columns, generator=random) / columns**0.5
        b = torch.randn(rows, some, generator=random) / some**0.5
        if only in path:
            lora = Lora(part.name, part.start, a, b, size).requires_grad_(False)
            loras[path] = (*loras.get(path, ()), lora)
    return Adapter(loras)
