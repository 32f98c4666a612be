"""Merging an adapter into its model: W + scale B A, written as a model directory, with the difference that it makes measured."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from myna.model import Causal, Decoder, load_model, read_adapter
from myna.model.lora import attach, detach, merge
from myna.modeldir import AdapterDir, ModelDir, find, publish
from myna.records import DataError, ModelDirError
from myna.train.trainee import write_directory

PROBE = 64  # tokens whose logits are compared


@dataclass(frozen=True, slots=True)
class Merged:
    """Largest differences of logits over PROBE tokens: `exact` of merged to adapted in float32, `saved` of the model as it was
    written, `moved` of adapted to plain."""

    place: Path
    base: str
    exact: float
    saved: float
    moved: float


def merge_adapter(adapter: Path, model: str, place: Path, precision: str) -> Merged:
    """Raises DataError, ModelDirError."""
    folder = AdapterDir.open(adapter)
    base = model or folder.base
    if not base:
        raise DataError(f"{adapter} does not name the model it was trained beside; give --model")
    source = _find(base, adapter, told=bool(model))
    directory = ModelDir.open(source)
    decoder = load_model(directory, "float32")
    loras = read_adapter(decoder.spec, folder)
    plain = probe(decoder)
    attach(decoder, loras)
    adapted = probe(decoder)
    detach(decoder)
    merge(decoder, loras)
    exact = _apart(adapted, probe(decoder))
    lineage = {"command": f"merge {adapter.name}", "parent": directory.name, "adapter": adapter.name}
    publish(place, partial(write_directory, decoder, directory.config, source, precision), lineage, replace=True)
    saved = _apart(adapted, probe(load_model(ModelDir.open(place), "float32")))
    return Merged(place, base, exact, saved, _apart(plain, adapted))


def _find(base: str, adapter: Path, *, told: bool) -> Path:
    try:
        return find(base)
    except ModelDirError as e:
        if told:
            raise
        raise ModelDirError(
            f"{adapter} was trained beside {base}, which is not here. Say where it is: --model. ({e})"
        ) from None


@torch.no_grad()
def probe(decoder: Decoder) -> Tensor:
    """Logits [up to PROBE, V] of tokens spread over the vocabulary."""
    places = torch.arange(min(PROBE, decoder.max_len))[None]
    return decoder.logits(decoder(places * 7919 % decoder.spec.vocab, places, Causal()))[0]


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
