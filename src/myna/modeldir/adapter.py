"""An adapter's folder in PEFT's layout: adapter_config.json and adapter_model.safetensors (LoRA, Hu et al. 2021; DoRA, Liu et al.
2024).

Format: https://huggingface.co/docs/peft/developer_guides/checkpoint. A folder is a stranger's: what it says is checked
against itself here, and against the model it adapts in model/lora.py. What would change the adapter's meaning and is not
honoured is refused by name.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from myna.modeldir.files import NO_PICKLE, inside, read_text
from myna.modeldir.publish import publish, write_json
from myna.modeldir.safetensors import read_safetensors, write_safetensors
from myna.modeldir.stored import Stored
from myna.records import ModelDirError

CONFIG, TENSORS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
MAX_CONFIG = 1 << 20
MAX_RANK = 512  # vLLM's bound as well; the largest in use are 256
KINDS = ("F32", "BF16", "F16")
ROOT = "base_model.model."
MAGNITUDE = "magnitude_vector"
_TENSOR = re.compile(r"(?P<module>[\w.]{1,200})\.(lora_(?P<side>[AB])\.weight|(?P<magnitude>lora_magnitude_vector))")
# PEFT matches a pattern's keys as regular expressions, which a stranger could make run for ever.
_PLAIN_KEY = re.compile(r"\^?[\w.]{1,200}")
# Fields that change what the adapter computes, and the values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "lora_bias": (False,),
    "use_qalora": (False,),
    # Others take a part out of the base model's weights when training begins (PiSSA, OLoRA, CorDA, LoftQ).
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
} | dict.fromkeys(
    ("modules_to_save", "layer_replication", "alora_invocation_tokens", "trainable_token_indices", "target_parameters",
     "use_bdlora", "arrow_config", "kasa_config", "monteclora_config", "velora_config"),
    ((), {}, False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one linear module: x -> scale * B A x, with A [rank, columns] and B [rows, rank]. With DoRA's
    magnitude [rows] the rows of the sum have these norms."""

    a: Stored
    b: Stored
    scale: float
    magnitude: Stored | None = None

    @property
    def nbytes(self) -> int:
        """In memory: bfloat16 where both are, else float32."""
        size = 2 if self.a.kind == self.b.kind == "BF16" else 4
        return size * (self.a.count + self.b.count) + (4 * self.magnitude.count if self.magnitude else 0)


@dataclass(frozen=True, slots=True)
class AdapterDir:
    """An opened adapter folder. `modules`: of each module that it adapts, by its Hugging Face name in the model."""

    path: Path
    config: dict[str, Any]
    modules: dict[str, LowRank]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def base(self) -> str:
        """The model that it says it was trained beside; "" if it says nothing."""
        named = self.config.get("base_model_name_or_path")
        return named if isinstance(named, str) else ""

    @property
    def dora(self) -> bool:
        return any(one.magnitude is not None for one in self.modules.values())

    @property
    def nbytes(self) -> int:
        """What it takes in memory: as on disk, but 16-bit floats of the other kind (F16) become float32."""
        return sum(one.nbytes for one in self.modules.values())

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read and check the folder; its numbers are read later. Raises ModelDirError: what is wrong, where, what to do."""
        path = Path(path)
        if not path.is_dir():
            raise ModelDirError(f"{path} is not a folder. An adapter is one, with {CONFIG} and {TENSORS} in it.")
        config = _read_config(path)
        return cls(path, config, _pair(path, config, _read_tensors(path)))


def _read_config(path: Path) -> dict[str, Any]:
    import orjson

    if not (path / CONFIG).exists():
        raise ModelDirError(f"{path} has no {CONFIG}, so it is no adapter. PEFT's save_pretrained() writes one.")
    try:
        config = orjson.loads(read_text(path, CONFIG, MAX_CONFIG))
    except orjson.JSONDecodeError as e:
        raise ModelDirError(f"{path / CONFIG}: not JSON: {e}") from None
    if not isinstance(config, dict):
        raise ModelDirError(f"{path / CONFIG}: not a JSON object.")
    for field, neutral in _NEUTRAL.items():
        value = config.get(field)
        if value is not None and value not in neutral and value != []:
            raise ModelDirError(
                f"{path / CONFIG}: {field} is {str(value)[:80]!r}, which is not supported: {_why(field)}"
            )
    return config


def _why(field: str) -> str:
    if field == "peft_type":
        return "only LORA is."
    if field == "modules_to_save":
        return "whole modules would replace the model's own. Merge the adapter into the model with PEFT instead."
    return "the adapter would mean something else without it. Merge it into the model with PEFT instead."


def _read_tensors(path: Path) -> dict[str, Stored]:
    if not (path / TENSORS).exists() and not (path / TENSORS).is_symlink():
        pickle = f" {PICKLE} is {NO_PICKLE}" if (path / PICKLE).exists() else ""
        raise ModelDirError(f"{path} has no {TENSORS}.{pickle}")
    file = inside(path, TENSORS)
    if not file.is_file():
        raise ModelDirError(f"{path / TENSORS} is not a plain file.")
    return read_safetensors(file)


def _pair(path: Path, config: dict[str, Any], tensors: dict[str, Stored]) -> dict[str, LowRank]:
    """The A and B of each module, of the rank that the config says."""
    sides: dict[str, dict[str, Stored]] = {}
    for name, stored in tensors.items():
        found = _TENSOR.fullmatch(name.removeprefix(ROOT)) if name.startswith(ROOT) else None
        if found is None:
            raise ModelDirError(
                f"{path / TENSORS}: tensor {name[:200]!r} is none of {ROOT}MODULE.lora_A.weight, .lora_B.weight and "
                ".lora_magnitude_vector; adapted embeddings and biases are not supported."
            )
        wanted, form = (1, "vector") if found["magnitude"] else (2, "matrix")
        if stored.kind not in KINDS or len(stored.shape) != wanted:
            raise ModelDirError(
                f"{path / TENSORS}: {name} is {stored.kind} of shape {stored.shape}; a {form} of {', '.join(KINDS)} is needed."
            )
        sides.setdefault(found["module"], {})[found["side"] or MAGNITUDE] = stored
    if not sides:
        raise ModelDirError(f"{path / TENSORS} holds no tensor: the adapter adapts nothing.")
    return {module: _low_rank(path, config, module, pair) for module, pair in sorted(sides.items())}


def _low_rank(path: Path, config: dict[str, Any], module: str, pair: dict[str, Stored]) -> LowRank:
    dora = config.get("use_dora") or False
    if not isinstance(dora, bool):
        raise ModelDirError(f"{path / CONFIG}: use_dora is {str(dora)[:80]}; it is true or false.")
    wanted = {"A", "B", MAGNITUDE} if dora else {"A", "B"}
    if missing := sorted(wanted - set(pair)):
        raise ModelDirError(f"{path / TENSORS}: {module} has no lora_{missing[0]}.")
    if MAGNITUDE in pair and not dora:
        raise ModelDirError(f"{path / TENSORS}: {module} has magnitudes (DoRA), and {CONFIG} does not say use_dora.")
    a, b, rank = pair["A"], pair["B"], _of_module(path, config, "rank_pattern", "r", module)
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ModelDirError(f"{path / CONFIG}: the rank of {module} is {rank!r}; it goes from 1 to {MAX_RANK}.")
    if a.shape[0] != rank or b.shape[1] != rank:
        raise ModelDirError(
            f"{path / TENSORS}: of {module} A is {_by(a.shape)} and B {_by(b.shape)}; {CONFIG} says rank {rank}, so A has "
            f"{rank} rows and B {rank} columns."
        )
    alpha, root = _of_module(path, config, "alpha_pattern", "lora_alpha", module), config.get("use_rslora", False)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha) or abs(alpha) > 1e6:
        raise ModelDirError(f"{path / CONFIG}: the alpha of {module} is {str(alpha)[:80]}; it is a number.")
    if not isinstance(root, bool):
        raise ModelDirError(f"{path / CONFIG}: use_rslora is {str(root)[:80]}; it is true or false.")
    return LowRank(a, b, alpha / (math.sqrt(rank) if root else rank), pair.get(MAGNITUDE))


def _of_module(path: Path, config: dict[str, Any], patterns: str, field: str, module: str) -> Any:
    """The value of the first pattern that is the module's name or its end, else the field's."""
    found = config.get(patterns) or {}
    if not isinstance(found, dict):
        raise ModelDirError(f"{path / CONFIG}: {patterns} should be an object.")
    for key, value in found.items():
        if not _PLAIN_KEY.fullmatch(key):
            raise ModelDirError(
                f"{path / CONFIG}: {patterns} has the key {key[:80]!r}; regular expressions are not run. "
                "Write the modules' names, or their ends."
            )
        whole, name = key.startswith("^"), key.removeprefix("^")
        if module == name or (not whole and module.endswith(f".{name}")):
            return value
    return config.get(field, 8)  # 8: PEFT's default of both


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


@dataclass(frozen=True, slots=True)
class Written:
    """What is written of one module: A [rank, columns] and B [rows, rank] in float32, and alpha; of DoRA magnitudes [rows]."""

    a: np.ndarray
    b: np.ndarray
    alpha: float
    magnitude: np.ndarray | None = None


def publish_adapter(
    path: str | Path,
    modules: Mapping[str, Written],
    lineage: dict[str, Any],
    *,
    base: str | None = None,
    rslora: bool = False,
    turned: bool = False,
    replace: bool = False,
) -> Path:
    """Write an adapter's folder, whole or not at all, as PEFT would. `modules` by their Hugging Face names.

    base     the model that it adapts, by name or path
    rslora   scale is alpha / sqrt(rank) (Kalajdzievski 2023), not alpha / rank
    turned   the model keeps its matrices transposed (GPT-2's Conv1D)
    """
    ranks = {name: len(one.a) for name, one in modules.items()}
    alphas = {name: one.alpha for name, one in modules.items()}
    r, alpha = max(ranks.values()), max(alphas.values())
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "inference_mode": True,
        "r": r, "lora_alpha": alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": turned,
        "use_rslora": rslora, "use_dora": any(one.magnitude is not None for one in modules.values()), "init_lora_weights": True, "modules_to_save": None,
        "target_modules": sorted(modules),
        "rank_pattern": {f"^{name}": rank for name, rank in ranks.items() if rank != r},
        "alpha_pattern": {f"^{name}": one for name, one in alphas.items() if one != alpha},
    }  # fmt: skip
    tensors = {}
    for name, one in sorted(modules.items()):
        for side, matrix in (("A", one.a), ("B", one.b)):
            tensors[f"{ROOT}{name}.lora_{side}.weight"] = np.ascontiguousarray(matrix, np.float32)
        if one.magnitude is not None:
            tensors[f"{ROOT}{name}.lora_{MAGNITUDE}"] = np.ascontiguousarray(one.magnitude, np.float32)

    def build(partial: Path) -> None:
        write_json(partial / CONFIG, config)
        with open(partial / TENSORS, "wb") as file:
            write_safetensors(file, tensors, {"format": "pt"})

    return publish(path, build, lineage, replace=replace, check=AdapterDir.open)
