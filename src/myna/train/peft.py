"""Training a few small matrices beside frozen weights: LoRA and its kin, over any of our linears."""

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from myna.kernels import library
from myna.model import Decoder, Spec
from myna.model.fit import ITEM_BYTES, weight_bytes
from myna.model.load import TABLES, describe, formats_of, parts_of, pick_precision
from myna.model.lora import Adapter, Lora, attach, linear_at, places, read_adapter, written
from myna.model.names import Part
from myna.modeldir import AdapterDir, ModelDir, publish_adapter
from myna.modeldir.cache import called
from myna.records import DataError
from myna.train.config import Lora as Config
from myna.train.plan import FLOAT, Adapters
from myna.train.trainee import Trainee

EVERY = {"all", "all-linear"}  # the second is PEFT's word


def adapt(trainee: Trainee, config: Config, seed: int) -> Trainee:
    """The trainee with its weights frozen and low-rank matrices beside them, new ones or those of config.start; what it
    publishes is then an adapter, in PEFT's layout. Raises DataError naming a target that there is not, ModelDirError for an
    adapter that is of another model."""
    decoder = trainee.decoder
    adapter, rslora = (
        _begun(decoder, config) if config.start else (fresh(decoder, config, seed), config.kind == "rslora")
    )
    decoder.requires_grad_(False)
    attach(decoder, adapter)
    for lora in adapter:
        lora.requires_grad_(True).train()
    turned = any(part.turned for part in places(decoder.spec).values())

    def publish(place: Path, lineage: dict[str, Any]) -> Path:
        modules, base = written(adapter, rslora=rslora), called(trainee.source)
        return publish_adapter(place, modules, lineage, base=base, rslora=rslora, turned=turned, replace=True)

    return replace(trainee, publish=publish)


def fresh(decoder: Decoder, config: Config, seed: int) -> Adapter:
    """New low-rank matrices beside the linears that the config means."""
    torch.manual_seed(seed)
    scale = config.alpha / (config.rank**0.5 if config.kind == "rslora" else config.rank)
    loras: dict[str, tuple[Lora, ...]] = {}
    for part in choose(decoder.spec, config.targets):
        path, lora = part.path.removesuffix(".weight"), Lora.fresh(part, config.rank, scale, config.dropout)
        if config.kind == "dora":
            lora.magnitude = nn.Parameter(lora.norms(linear_at(decoder, path).decoded()))
        loras[path] = (*loras.get(path, ()), lora)
    return Adapter(loras)


def _begun(decoder: Decoder, config: Config) -> tuple[Adapter, bool]:
    """The adapter to go on from, and whether it is rsLoRA's."""
    folder = AdapterDir.open(config.start)
    adapter = read_adapter(decoder.spec, folder)
    for lora in adapter:
        lora.float().dropout = config.dropout
    return adapter, folder.config.get("use_rslora") is True


def beside(directory: ModelDir, config: Config) -> Adapters:
    """What training adapters beside this model takes; no weight is read. Raises DataError, ModelDirError as `adapt` does."""
    spec, stored = describe(directory)
    precision = pick_precision(stored, "auto" if config.base == "stored" else config.base)
    frozen = weight_bytes(spec, precision, 0, formats_of(spec, stored, precision))
    if config.start:
        modules = AdapterDir.open(config.start).modules
        found = [(*one.b.shape[::-1], one.a.shape[1], one.magnitude is not None) for one in modules.values()]
        kind: Literal["lora", "dora"] = "dora" if any(dora for *_, dora in found) else "lora"
        rank = max(rank for rank, *_ in found)
        config = replace(config, start="", rank=rank, kind=kind, targets=tuple(modules))
    else:
        shapes = [part.shape[::-1] if part.turned else part.shape for part in choose(spec, config.targets)]
        found = [(config.rank, *shape, config.kind == "dora") for shape in shapes]
    scaled = [(rows, columns) for _, rows, columns, dora in found if dora]
    return Adapters(
        lora=config,
        precision=precision,
        trained=sum(rank * (rows + columns) + rows * dora for rank, rows, columns, dora in found),
        inner=sum(rank for rank, *_ in found),
        scaled=sum(rows for rows, _ in scaled),
        frozen=frozen,
        decoded=_decoded(spec, precision) + 2 * FLOAT * max(map(prod, scaled), default=0),  # B A, and its sum with W
    )


def _decoded(spec: Spec, precision: str) -> int:
    """Bytes that it takes at its widest to decode the largest weight that products are of."""
    if precision in ITEM_BYTES:
        return 0
    tables = ("embed.weight", "head.weight") if precision in TABLES else ()
    largest = max(prod(slot.shape) for path, slot in spec.slots() if slot.columns and path not in tables)
    # Kernels write the numbers where they belong; torch has levels, scales and their product.
    return FLOAT * largest * (3 if precision == "nf4" or library() is None else 1)


def choose(spec: Spec, targets: Iterable[str]) -> list[Part]:
    """The linears that these names and patterns mean. DataError naming one that means nothing, or an expert."""
    known = places(spec)
    parts = ((part.name.removesuffix(".weight"), part) for part in parts_of(spec) if ".mlp." in part.path)
    experts = [name for name, part in parts if len(part.shape) > 1 and name not in known]
    for target in targets:
        if target in EVERY:
            continue
        if expert := next((name for name in experts if _means(target, name)), None):
            raise DataError(
                f"lora.targets: {target!r} means {expert} too, which is of a mixture of experts; there, attention alone can "
                "be adapted: write patterns of whole names, as model.layers.*.self_attn.*"
            )
        if not any(_means(target, name) for name in known):
            leaves = sorted({name.rpartition(".")[2] for name in known})
            raise DataError(
                f"lora.targets: {target!r} means nothing that can be adapted here. It is all, {', '.join(leaves)}, or a pattern "
                f"of whole names with * and ?, as {next(iter(known)).replace('.0.', '.*.')}"
            )
    return [part for name, part in known.items() if any(_means(target, name) for target in targets)]


def _means(target: str, name: str) -> bool:
    return target in EVERY or f".{name}".endswith(f".{target}") or fnmatchcase(name, target)
