"""How a model's vectors are made of its hidden rows: what sentence-transformers' files beside it say, or its kind's custom.

modules.json                        the steps: Transformer, Pooling, Normalize
1_Pooling/config.json               which rows count
sentence_bert_config.json           how long a text may be
config_sentence_transformers.json   texts to put before queries and documents
config.json                         matryoshka_dimensions, is_matryoshka (vLLM's names)
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from myna.modeldir.directory import Json, ModelDir
from myna.modeldir.files import MODULE, read_json, read_text
from myna.records import ModelDirError

How = Literal["mean", "cls", "last"]
_MODES: dict[str, How] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_MAX_MODULES = 1 << 16  # bytes of modules.json


@dataclass(frozen=True, slots=True)
class Pooling:
    """
    how              mean: the mean of all rows; cls: the first row; last: the last row
    max_len          tokens of a text that its makers reckon with, or None
    lower            whether texts are lowercased first
    prompts          name -> what is put before a text
    default_prompt   the one that is used when none is named, or None
    dimensions       sizes a vector may be cut to; empty: none
    any_dimension    whether it may be cut to any size
    """

    how: How
    max_len: int | None = None
    lower: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    dimensions: tuple[int, ...] = ()
    any_dimension: bool = False


def read_pooling(directory: ModelDir, *, causal: bool, how: How | None = None) -> Pooling:
    """Of a model directory. `how` overrides what it says. Without files it is the custom of its kind: the last token of a
    `causal` model, the mean of any other. ModelDirError names what we would compute otherwise."""
    transformer = read_json(directory.path, "sentence_bert_config.json")
    texts = read_json(directory.path, "config_sentence_transformers.json")
    prompts, default = _prompts(directory, texts)
    sizes, any_size = _dimensions(directory)
    return Pooling(
        how=how or _pooling_mode(directory) or ("last" if causal else "mean"),
        max_len=_whole(directory, "sentence_bert_config.json", transformer, "max_seq_length"),
        lower=transformer.get("do_lower_case") is True,
        prompts=prompts,
        default_prompt=default,
        dimensions=sizes,
        any_dimension=any_size,
    )


def _pooling_mode(directory: ModelDir) -> How | None:
    """What modules.json and the file of its Pooling step say; None where there is no modules.json."""
    path = directory.path
    if not (path / "modules.json").exists():
        return None
    found: How | None = None
    for module in _modules(directory):
        kind, folder = str(module.get("type", "")).rpartition(".")[2], str(module.get("path", ""))
        if kind == "Pooling":
            if not MODULE.fullmatch(f"{folder}/config.json"):
                raise ModelDirError(f"{path / 'modules.json'}: {folder[:80]!r} is no folder of a Pooling step.")
            found = _mode(read_json(path, f"{folder}/config.json", required=True), f"{path / folder}/config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise ModelDirError(
                f"{path / 'modules.json'}: a step of type {kind[:80]!r} is not supported; Transformer, Pooling and "
                "Normalize are. Its vectors would be others than the model's."
            )
    return found


def _modules(directory: ModelDir) -> list[Json]:
    path = directory.path / "modules.json"
    try:
        modules = orjson.loads(read_text(directory.path, "modules.json", _MAX_MODULES))
    except orjson.JSONDecodeError as e:
        raise ModelDirError(f"{path}: not JSON: {e}") from None
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise ModelDirError(f"{path}: should be a list of objects.")
    return modules


def _mode(config: Json, where: str) -> How:
    modes = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise ModelDirError(
            f"{where}: pooling by {', '.join(modes)[:200] or 'nothing'} is not supported; one of {', '.join(_MODES)} is. "
            "--pooling chooses another, if you know that it is right."
        )
    if config.get("include_prompt") is False:
        raise ModelDirError(f"{where}: include_prompt is false: pooling without the prompt's tokens is not supported.")
    return _MODES[modes[0]]


def _prompts(directory: ModelDir, texts: Json) -> tuple[dict[str, str], str | None]:
    where = directory.path / "config_sentence_transformers.json"
    prompts, default = texts.get("prompts") or {}, texts.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelDirError(f"{where}: prompts should be an object of texts.")
    if default is not None and default not in prompts:
        raise ModelDirError(f"{where}: default_prompt_name is {str(default)[:80]!r}, which is none of its prompts.")
    return prompts, default


def _dimensions(directory: ModelDir) -> tuple[tuple[int, ...], bool]:
    sizes: Any = directory.config.get("matryoshka_dimensions") or []
    if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
        raise ModelDirError(f"{directory.path / 'config.json'}: matryoshka_dimensions should be a list of sizes.")
    return tuple(sizes), not sizes and directory.config.get("is_matryoshka") is True


def _whole(directory: ModelDir, file: str, config: Json, key: str) -> int | None:
    value = config.get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise ModelDirError(
            f"{directory.path / file}: {key} is {str(value)[:80]!r}; it should be a whole number from 1."
        )
    return value
