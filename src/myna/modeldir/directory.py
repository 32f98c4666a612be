"""A model directory: what persists. Opening one checks what can be known without reading the weights."""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from myna.modeldir.files import GGUF_NAME, MAX_TEMPLATE, NO_PICKLE, inside, is_pickle, read_json, read_text
from myna.modeldir.gguf import GGUF
from myna.modeldir.gguf_names import stored_from_gguf
from myna.modeldir.safetensors import read_safetensors
from myna.modeldir.stored import Source, Stored, Weights
from myna.records import ModelDirError

Json = dict[str, Any]

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h)\.(\d{1,9})\.")


@dataclass(frozen=True)
class ModelDir:
    """An opened model directory. It holds data, never code; nothing in it is executed.

    config         config.json
    generation     generation_config.json, or {}
    lineage        lineage.json (command, source, parent, sha256 of the files, licence, date), or {}
    chat_template  Jinja text, or None
    weights        the tensors under Hugging Face names
    warnings       what was found and deliberately not used, in sentences
    """

    path: Path
    config: Json
    generation: Json
    lineage: Json
    chat_template: str | None
    weights: Weights
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def digest(self) -> str:
        """A sha256 of what is in the files, by the hashes that lineage.json has of them; "" where it has none."""
        hashes = [f"{name} {facts.get('sha256')}" for name, facts in sorted(self.lineage.get("files", {}).items())]
        return sha256("\n".join(hashes).encode()).hexdigest() if hashes else ""

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read and check the directory. Takes milliseconds: sizes and headers, not hashes (`verify` does those).

        Raises ModelDirError saying what is wrong, where, and what to do.
        """
        path = Path(path)
        if not path.is_dir():
            raise ModelDirError(f"{path} is not a directory. `myna list` shows the models, `myna pull` gets one.")
        if adapter := read_json(path, "adapter_config.json") if not (path / "config.json").exists() else {}:
            base = str(adapter.get("base_model_name_or_path") or "MODEL")[:200]
            raise ModelDirError(
                f"{path} is an adapter, which goes with its model: --adapter {path} beside {base}, or make a model of both: "
                f"myna merge {path} --out NAME"
            )
        config = read_json(path, "config.json", required=True)
        lineage = read_json(path, "lineage.json")
        _check_sizes(path, lineage)
        sources = tuple(map(Source.of, _weight_files(path)))  # before they are read: a change meanwhile is seen later
        weights = Weights(_read_weights(path, config), sources)
        check_weights(path, config, weights)
        return cls(
            path,
            config,
            read_json(path, "generation_config.json"),
            lineage,
            read_template(path),
            weights,
            tuple(_warnings(path, config)),
        )


def _weight_files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.suffix in (".gguf", ".safetensors") and file.is_file())


def _read_weights(path: Path, config: Json) -> dict[str, Stored]:
    tensors = sorted(file.name for file in path.glob("*.safetensors"))
    if (path / GGUF_NAME).exists():
        if tensors:
            raise ModelDirError(
                f"{path} holds both {GGUF_NAME} and {tensors[0]}; remove the one that is not the model."
            )
        gguf = GGUF(_plain_file(path, GGUF_NAME))
        return {stored.name: stored for stored in stored_from_gguf(gguf, config)}
    if (path / _INDEX).exists():
        return _read_shards(path)
    if (path / _SINGLE).exists():
        return read_safetensors(_plain_file(path, _SINGLE))
    if tensors:
        raise ModelDirError(f"{path} holds {tensors[0]} but neither {_SINGLE} nor {_INDEX}. Pull the model again.")
    if pickles := sorted(file.name for file in path.iterdir() if is_pickle(file.name)):
        raise ModelDirError(f"{path / pickles[0]} is {NO_PICKLE}")
    raise ModelDirError(f"{path} holds no weights: no {_SINGLE}, no {_INDEX}, no {GGUF_NAME}.")


def _plain_file(path: Path, name: str) -> Path:
    if not (file := inside(path, name)).is_file():  # a directory, or a pipe, on which reading would wait for ever
        raise ModelDirError(f"{path / name} is not a plain file. Pull the model again.")
    return file


def _read_shards(path: Path) -> dict[str, Stored]:
    """The tensors of a sharded model. The index and the shards must agree on who holds what."""
    index = read_json(path, _INDEX).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(file, str) for file in index.values()):
        raise ModelDirError(f"{path / _INDEX}: weight_map should name a file for every tensor.")
    files = {file: _shard(path, file) for file in sorted(set(index.values()))}
    found: dict[str, Stored] = {}
    for file, shard in files.items():
        for name, stored in read_safetensors(shard).items():
            if index.get(name) != file:
                raise ModelDirError(f"{path / file} holds {name!r}, which {_INDEX} puts in {index.get(name)}.")
            found[name] = stored
    if missing := sorted(set(index) - set(found)):
        raise ModelDirError(f"{path / str(index[missing[0]])} lacks tensor {missing[0]!r}, which {_INDEX} puts there.")
    return found


def _shard(path: Path, file: str) -> Path:
    """The real path of a file that the index names."""
    if is_pickle(file):
        raise ModelDirError(f"{path / _INDEX} names {file}: {NO_PICKLE}")
    if not file.endswith(".safetensors"):
        raise ModelDirError(f"{path / _INDEX} names {file[:200]!r}, which is not a safetensors file.")
    if not (shard := inside(path, file)).is_file():
        raise ModelDirError(f"{path} lacks {file}, which {_INDEX} names. Pull the model again.")
    return shard


def check_weights(path: Path, config: Json, weights: Weights) -> None:
    """What any language model's config promises about its tensors: embedding, output matrix, number of layers."""
    vocab, width = config.get("vocab_size"), config.get("hidden_size", config.get("n_embd"))
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    for key, value in (("vocab_size", vocab), ("hidden_size", width), ("num_hidden_layers", layers)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ModelDirError(f"{path / 'config.json'}: {key} is {value!r}; it should be a positive integer.")
    embedding = next((s for n, s in weights.items() if n.endswith(("embed_tokens.weight", "wte.weight"))), None)
    head = weights.get("lm_head.weight")
    for stored in (embedding, head):
        if stored is not None and vocab and width and stored.shape != (vocab, width):
            raise ModelDirError(
                f"{path}: {stored.name} has shape {stored.shape}; config.json says vocabulary {vocab}, width {width}."
            )
    if embedding is not None and head is None and config.get("tie_word_embeddings") is False:
        raise ModelDirError(f"{path}: no lm_head.weight, but config.json says tie_word_embeddings is false.")
    held = {int(found[1]) for name in weights if (found := _LAYER.search(name))}
    if held and layers and (len(held), max(held)) != (layers, layers - 1):
        raise ModelDirError(f"{path}: config.json says {layers} layers; the weights hold {_ranges(held)}.")


def _ranges(numbers: set[int]) -> str:
    return f"layers {min(numbers)} to {max(numbers)}" + ("" if len(numbers) == max(numbers) + 1 else ", with gaps")


def _check_sizes(path: Path, lineage: Json) -> None:
    """Every file that lineage.json records is there and has the recorded size."""
    files = lineage.get("files", {})
    if not isinstance(files, dict):
        raise ModelDirError(f"{path / 'lineage.json'}: files should be an object.")
    for name, facts in files.items():
        if not isinstance(facts, dict) or not isinstance(facts.get("bytes"), int):
            raise ModelDirError(f"{path / 'lineage.json'}: files.{name} should hold bytes and sha256.")
        file = inside(path, name)
        if not file.is_file():
            raise ModelDirError(f"{path} lacks {name}, which lineage.json records. Pull the model again.")
        if (size := file.stat().st_size) != facts["bytes"]:
            raise ModelDirError(f"{file}: {size} bytes; lineage.json says {facts['bytes']}. Pull the model again.")


def read_template(path: Path) -> str | None:
    """The chat template: chat_template.jinja, or what older repositories keep in tokenizer_config.json (a text, or a list of
    named ones, of which "default" is the one to chat with); None if there is none. Raises ModelDirError."""
    if (path / "chat_template.jinja").exists():
        return read_text(path, "chat_template.jinja", MAX_TEMPLATE)
    template = read_json(path, "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        named = {t["name"]: t["template"] for t in template if isinstance(t, dict) and {"name", "template"} <= set(t)}
        template = named.get("default")
    if template is not None and (not isinstance(template, str) or len(template) > MAX_TEMPLATE):
        raise ModelDirError(
            f"{path / 'tokenizer_config.json'}: chat_template is not a text of at most {MAX_TEMPLATE} bytes."
        )
    return template


def _warnings(path: Path, config: Json) -> list[str]:
    found = []
    if "auto_map" in config:
        found.append(
            "config.json names custom code (auto_map); it is never run, the model is read as its model_type says."
        )
    if code := sorted(file.name for file in path.glob("*.py")):
        found.append(f"{', '.join(code)}: code in a model directory is never run.")
    if pickles := sorted(file.name for file in path.iterdir() if is_pickle(file.name)):
        found.append(f"{', '.join(pickles)}: pickles are never read.")
    return found
