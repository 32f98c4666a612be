"""Where pulled models live, and finding one by name."""

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from myna.modeldir.catalogue import CATALOGUE
from myna.modeldir.files import GGUF_NAME, model_bytes, read_json
from myna.modeldir.publish import OLD, PARTIAL, settle
from myna.records import ModelDirError


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in the cache. `kind` is "gguf" or "safetensors"; `nbytes` all its files, without what is packed of them."""

    name: str
    path: Path
    nbytes: int
    kind: str
    source: str


def cache_dir() -> Path:
    """$MYNA_HOME, else $XDG_CACHE_HOME/myna, else ~/.cache/myna."""
    if home := os.environ.get("MYNA_HOME"):
        return Path(home).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "myna"


def model_path(name: str) -> Path:
    """Where the model of that name lives, or would. ModelDirError if it cannot be a name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name) or name.endswith((PARTIAL, OLD)):
        raise ModelDirError(f"{name[:200]!r} is no name for a model: letters, digits, '.', '_' and '-', please.")
    return cache_dir() / "models" / name


def find(name_or_path: str) -> Path:
    """The model directory at a path, or of a pulled model's name. ModelDirError says what there is and what to run."""
    path = Path(name_or_path).expanduser()
    if path.is_dir() and (os.sep in name_or_path or (path / "config.json").exists()):
        return path
    if path.is_file():
        raise ModelDirError(f"{path} is a file, not a model directory. Make one of it: myna pull {path}")
    if os.sep not in name_or_path:
        place = model_path(name_or_path)
        settle(place)
        if place.is_dir():
            return place
        if name_or_path in CATALOGUE:
            raise ModelDirError(f"{name_or_path} is not here yet. Get it: myna pull {name_or_path}")
    if "/" in name_or_path and not path.is_dir():
        raise ModelDirError(f"{name_or_path}: there is no such folder. `myna list` shows the models that have a name.")
    here = [model.name for model in list_models()]
    known = [*here, *CATALOGUE]
    close = difflib.get_close_matches(name_or_path, known, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    if path.is_dir():
        hint = f" A bare name is a pulled model's; the folder here is .{os.sep}{path}."
    listed = (
        f"Pulled: {', '.join(here) or 'none'}. To pull: {', '.join(n for n in CATALOGUE if n not in here) or 'none'}."
    )
    raise ModelDirError(f"no model {name_or_path!r}.{hint} {listed} Get one: myna pull NAME | hub:OWNER/REPO | PATH")


def called(place: Path) -> str:
    """What `find` finds this directory by, wherever it is called from: a pulled model's name, else the whole path."""
    place = place.resolve()
    return place.name if place.parent == (cache_dir() / "models").resolve() else str(place)


def list_models() -> list[Listed]:
    """The pulled models, by name."""
    root = cache_dir() / "models"
    places = sorted(root.iterdir()) if root.is_dir() else []
    for place in places:
        if place.name.endswith(OLD):
            settle(place.with_name(place.name.removesuffix(OLD)))
    return [
        _listed(place)
        for place in sorted(root.iterdir() if places else [])
        if place.is_dir() and not place.name.startswith(".") and not place.name.endswith((PARTIAL, OLD))
    ]


def _listed(place: Path) -> Listed:
    kind = "gguf" if (place / GGUF_NAME).exists() else "safetensors"
    try:
        source = str(read_json(place, "lineage.json").get("source", "unknown"))
    except ModelDirError as e:  # one broken directory must not hide the others
        source = f"unreadable: {e}"
    return Listed(place.name, place, model_bytes(place), kind, source)
