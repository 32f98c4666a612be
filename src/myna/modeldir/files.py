"""Which files a model directory may hold, and reading them without trusting them."""

import json
import re
from pathlib import Path
from typing import Any

import orjson

from myna.records import ModelDirError

GGUF_NAME = "model.gguf"
PACKED = "packed"  # the folder of what was made of the weights, and can be made again; see packed.py
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
# What is copied and fetched: weights as data, and text. Everything else stays where it is.
WANTED = {".safetensors", ".json", ".jinja", ".txt", ".model", ".md"}
WANTED_NAMES = {"LICENSE", "LICENCE", "NOTICE", "README"}
MODULE = re.compile(
    r"\d{1,2}_\w{1,60}/config\.json"
)  # sentence-transformers' steps after the encoder, as modules.json says
MAX_JSON = 512 << 20  # Gemma's tokenizer.json is 33 MB
MAX_TEMPLATE = 1 << 20
NO_PICKLE = (
    "a pickle, which runs code when it is read; Myna never reads one. "
    "Look for a *.safetensors version of the model, or convert it where you trust it: "
    "`transformers` loads it and save_pretrained() writes safetensors."
)


def wanted(name: str) -> bool:
    """Whether a file belongs in a model directory, by its name."""
    return Path(name).suffix.lower() in WANTED or Path(name).stem.upper() in WANTED_NAMES


def model_bytes(directory: Path) -> int:
    """Bytes of a model directory's files, without what is packed of them."""
    files = (file for file in directory.rglob("*") if file.relative_to(directory).parts[0] != PACKED)
    return sum(file.stat().st_size for file in files if file.is_file())


def is_pickle(name: str) -> bool:
    return Path(name).suffix.lower() in PICKLES


def inside(directory: Path, name: str) -> Path:
    """The real path of a file of the directory. ModelDirError if it, or what it links to, lies outside.

    One kind of link outwards is followed: a Hugging Face cache keeps `models--X/snapshots/REV/file` as a link to
    `models--X/blobs/HASH`. There the borders are those of `models--X/blobs`.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name or "\0" in name:
        raise ModelDirError(f"{directory}: file name {name[:200]!r} leaves the directory.")
    try:
        root = directory.resolve()
        real = (root / name).resolve()
        real.stat()
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError) as e:  # a name too long, a link to itself
        raise ModelDirError(f"{directory}: file name {name[:200]!r} leads nowhere: {e.args[-1][:80]}") from None
    allowed = [root]
    if root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--"):
        allowed.append(root.parent.parent / "blobs")
    if not any(real.is_relative_to(place) for place in allowed):
        raise ModelDirError(f"{directory / name} is a link to {real}, outside the directory. Copy the file in.")
    return real


def read_json(directory: Path, name: str, *, required: bool = False) -> dict[str, Any]:
    """A JSON object of the directory; {} if the file is absent and not required."""
    path = directory / name
    if not path.exists() and not path.is_symlink():
        if required:
            raise ModelDirError(
                f"{directory} has no {name}; it is not a model directory. `myna list` shows the models."
            )
        return {}
    text = read_text(directory, name, MAX_JSON)
    try:
        value = orjson.loads(text)  # a tokenizer's 11 MB in two thirds of json's time
    except orjson.JSONDecodeError:
        value = _lenient(path, text)
    if not isinstance(value, dict):
        raise ModelDirError(f"{path}: not a JSON object.")
    return value


def _lenient(path: Path, text: str) -> Any:
    """What orjson refuses and json, like transformers, does not: NaN, Infinity, halves of surrogate pairs."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ModelDirError(f"{path}: not JSON: {e}") from None


def read_text(directory: Path, name: str, limit: int) -> str:
    """A text file of the directory, of at most `limit` bytes."""
    path = inside(directory, name)
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise ModelDirError(f"{directory / name}: not a plain file.")
        if path.stat().st_size > limit:
            raise ModelDirError(f"{directory / name}: {path.stat().st_size} bytes; at most {limit} are read.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise ModelDirError(f"{directory / name}: not UTF-8: {e}") from None
    except OSError as e:
        raise ModelDirError(f"{directory / name}: cannot read: {e.strerror}") from None


def model_files(names: list[str]) -> list[str]:
    """Of a repository's or directory's files, those that make a safetensors model directory; [] if it is none.

    Repositories often hold the weights twice (consolidated.safetensors, onnx/, pickles); only transformers' names and
    the top level count, and the settings of sentence-transformers' modules.
    """
    top = [name for name in names if "/" not in name and wanted(name) and name != "lineage.json"]
    weights = [name for name in top if re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors", name)]
    if not weights:
        return []
    modules = [name for name in names if MODULE.fullmatch(name)]
    return sorted(weights + modules + [name for name in top if not name.endswith(".safetensors")])


def pooling_files(directory: Path) -> list[str]:
    """The settings of sentence-transformers' modules in a directory: 1_Pooling/config.json."""
    found = (str(file.relative_to(directory)) for file in directory.glob("*/config.json"))
    return sorted(name for name in found if MODULE.fullmatch(name))
