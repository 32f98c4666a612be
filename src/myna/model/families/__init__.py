"""One file per `model_type` of config.json, found by its name, with "_" for "-". A family says only what is different about it:

spec(config) -> Spec       what config.json means
NAMES                      module in memory -> module(s) on disk
TURNED (optional)          modules whose matrices the disk stores transposed
rename(name) (optional)    a tensor's name on disk -> its usual name, or None when the model has no use for it
BELOW (encoders)           what the encoder's names begin with beside a classification head
HEADS (optional)           what names begin with whose tensors are left on disk when the spec has no place for them
"""

import difflib
import importlib
import pkgutil
from types import ModuleType

from myna.model.config import Config
from myna.model.spec import Spec
from myna.records import ModelDirError


def supported() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def family(model_type: str) -> ModuleType:
    """The family's module. ModelDirError says what is supported and what is closest."""
    known = supported()
    if (name := model_type.replace("-", "_")) not in known:
        close = difflib.get_close_matches(model_type, known, n=1)
        hint = f" Closest: {close[0]}." if close else ""
        raise ModelDirError(f"model_type {model_type[:60]!r} is not supported.{hint} Supported: {', '.join(known)}.")
    return importlib.import_module(f"{__name__}.{name}")


def read_spec(config: Config) -> Spec:
    """config.json -> Spec. ModelDirError names the field that is missing or unsupported."""
    spec: Spec = family(config.text("model_type")).spec(config)
    if spec.heads % spec.kv_heads:
        raise ModelDirError(
            f"{config.where}: {spec.heads} heads are not a multiple of {spec.kv_heads} key-value heads."
        )
    if spec.moe and spec.moe.top_k > spec.moe.experts:
        raise ModelDirError(f"{config.where}: top {spec.moe.top_k} of only {spec.moe.experts} experts.")
    return spec
