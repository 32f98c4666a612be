"""Training a few small matrices beside frozen weights: LoRA and its kin, over any of our linears."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from myna.model.lora import Adapter, Lora, attach, places, written
from myna.modeldir import publish_adapter
from myna.records import DataError
from myna.train.config import Lora as Config
from myna.train.trainee import Trainee


def adapt(trainee: Trainee, config: Config, seed: int) -> Trainee:
    """The trainee with its weights frozen and low-rank matrices beside those that config.targets names; what it publishes is
    then an adapter, in PEFT's layout. Raises DataError naming a target that there is not."""
    decoder, known = trainee.decoder, places(trainee.decoder.spec)
    leaves = {name.rpartition(".")[2] for name in known}
    if wrong := [target for target in config.targets if target not in {"all", *leaves}]:
        raise DataError(f"lora.targets: {wrong[0]!r} is none of all, {', '.join(sorted(leaves))}")
    chosen = [part for name, part in known.items() if {"all", name.rpartition(".")[2]} & {*config.targets}]
    scale = config.alpha / (config.rank**0.5 if config.kind == "rslora" else config.rank)
    torch.manual_seed(seed)
    loras: dict[str, tuple[Lora, ...]] = {}
    for part in chosen:
        path = part.path.removesuffix(".weight")
        loras[path] = (*loras.get(path, ()), Lora.fresh(part, config.rank, scale, config.dropout))
    adapter = Adapter(loras)
    decoder.requires_grad_(False)
    attach(decoder, adapter)

    def publish(place: Path, lineage: dict[str, Any]) -> Path:
        rslora = config.kind == "rslora"
        modules = written(adapter, rslora=rslora)
        return publish_adapter(place, modules, lineage, base=trainee.name, rslora=rslora, replace=True)

    return replace(trainee, publish=publish)
