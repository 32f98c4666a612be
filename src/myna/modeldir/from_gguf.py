"""A GGUF file -> a model directory: the file itself, byte for byte, and Hugging Face's files rebuilt from its metadata."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from myna.modeldir.files import GGUF_NAME
from myna.modeldir.gguf import GGUF
from myna.modeldir.gguf_config import config_from_gguf
from myna.modeldir.gguf_tokenizer import generation_config_from_gguf, tokenizer_config_from_gguf, tokenizer_from_gguf
from myna.modeldir.publish import publish, write_json
from myna.records import ModelDirError


def publish_gguf(
    file: Path,
    place: Path,
    lineage: dict[str, Any],
    *,
    generation: dict[str, Any] | None = None,
    replace: bool = False,
) -> Path:
    """Publish a model directory around a GGUF file we downloaded (linked, so that a crash loses no download)."""

    def build(directory: Path) -> None:
        try:
            os.link(file, directory / GGUF_NAME)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, directory / GGUF_NAME)
        build_from_gguf(directory, generation)

    return publish(place, build, lineage, replace=replace)


def build_from_gguf(directory: Path, generation: dict[str, Any] | None = None) -> None:
    """Write the files that belong beside `directory`/model.gguf. `generation` adds to generation_config.json.

    Raises ModelDirError naming the metadata that cannot be carried over.
    """
    gguf = GGUF(directory / GGUF_NAME)
    write_json(directory / "config.json", config_from_gguf(gguf))
    tokenizer = directory / "tokenizer.json"
    write_json(tokenizer, tokenizer_from_gguf(gguf))
    _check_tokenizer(gguf, tokenizer)
    write_json(directory / "tokenizer_config.json", tokenizer_config_from_gguf(gguf))
    write_json(directory / "generation_config.json", {**generation_config_from_gguf(gguf), **(generation or {})})
    _write_templates(gguf, directory)


def _check_tokenizer(gguf: GGUF, path: Path) -> None:
    """The `tokenizers` library must accept what we wrote: merges name tokens, regexes compile, ids agree."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as e:  # the library raises plain Exception
        raise ModelDirError(f"{gguf.path}: the tokenizer in its metadata does not work: {e}") from None
    tokens = gguf.get("tokenizer.ggml.tokens", list)
    if tokenizer.get_vocab_size() != len(tokens):
        raise ModelDirError(f"{gguf.path}: {len(tokens)} tokens became {tokenizer.get_vocab_size()}.")


def _write_templates(gguf: GGUF, directory: Path) -> None:
    """chat_template.jinja, and others the file names, where transformers looks for them."""
    for key, text in gguf.metadata.items():
        if not (found := re.fullmatch(r"tokenizer\.chat_template(?:\.([A-Za-z0-9_-]+))?", key)) or not isinstance(
            text, str
        ):
            continue
        place = directory / "chat_template.jinja"
        if found[1]:
            place = directory / "additional_chat_templates" / f"{found[1]}.jinja"
            place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
