"""What can be said of a model directory without loading it: `myna show`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from myna.modeldir.directory import ModelDir
from myna.modeldir.files import GGUF_NAME, model_bytes
from myna.modeldir.packed import packed_bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """parameters counts every number once; kinds maps a kind on disk to its bytes, the largest first; packed maps a
    precision to the bytes on disk that let it start at once."""

    name: str
    path: Path
    architecture: str
    parameters: int
    format: str
    kinds: dict[str, int]
    nbytes: int
    packed: dict[str, int]
    context: int | None
    vocabulary: int | None
    layers: int | None
    tied: bool
    template: bool
    licence: str | None
    source: str | None
    lineage: dict[str, Any]
    warnings: tuple[str, ...]


def facts(directory: ModelDir | str | Path) -> Facts:
    """Read from headers and JSON alone, in milliseconds. Raises ModelDirError as `ModelDir.open` does."""
    model = directory if isinstance(directory, ModelDir) else ModelDir.open(directory)
    config, kinds = model.config, Counter[str]()
    for stored in model.weights.values():
        kinds[stored.kind] += stored.nbytes
    return Facts(
        name=model.name,
        path=model.path,
        architecture=str(config.get("model_type", "unknown")),
        parameters=model.weights.count,
        format="gguf" if (model.path / GGUF_NAME).exists() else "safetensors",
        kinds=dict(kinds.most_common()),
        nbytes=model_bytes(model.path),
        packed=packed_bytes(model.path),
        context=config.get("max_position_embeddings", config.get("n_positions")),
        vocabulary=config.get("vocab_size"),
        layers=config.get("num_hidden_layers", config.get("n_layer")),
        tied="lm_head.weight" not in model.weights,
        template=model.chat_template is not None,
        licence=model.lineage.get("licence"),
        source=model.lineage.get("source"),
        lineage=model.lineage,
        warnings=model.warnings,
    )
