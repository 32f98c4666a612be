"""myna embed: texts in, vectors out; made for pipes."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import orjson
from cyclopts import Parameter

from myna.provider.local_embed import CrossEncoder, EmbedLoading, LocalEmbedder, load_embedder
from myna.records import DataError, Document, Embedding, MynaError, jsonl

EmbedFlags = Annotated[EmbedLoading, Parameter(name="*", group="Loading")]
AT_ONCE = 1024  # texts read, computed and written together: a file may be of any size


def run(
    *texts: str,
    model: str = "all-minilm-l6-v2",
    file: Path | None = None,
    out: Path | None = None,
    prompt: str | None = None,
    dimensions: int | None = None,
    truncate: bool = False,
    loading: EmbedFlags = EmbedLoading(),
) -> None:
    """Turn texts into vectors: a JSON line each, or a NumPy array.

    Parameters
    ----------
    texts
        What to embed. Left out, and without --file, standard input is read: a text a line.
    model
        A pulled model's name, or the path of a model directory. A model that chats embeds too, if not as well.
    file
        Rows {"text": ...} of JSON, gzipped if the name ends in .gz.
    out
        Where to write, instead of standard output: rows {"text", "embedding"}, or an array if the name ends in .npy.
    prompt
        Which of the model's prompts to put before the texts, such as query or document.
    dimensions
        How many numbers a vector has, of models that were trained to be cut.
    truncate
        Cut texts that are too long; else they are an error.
    """
    if texts and file:
        raise MynaError("Give texts or --file, not both.")
    rows = _read(file) if file else iter(texts) if texts else (line.rstrip("\n") for line in sys.stdin if line.strip())
    embedder = load_embedder(model, loading)
    if isinstance(embedder, CrossEncoder):
        raise MynaError(f"{embedder.name} scores pairs of texts and makes no vectors. Serve it: myna serve {model}")
    how = Embedding(prompt=prompt, dimensions=dimensions, truncate=truncate)
    found = asyncio.run(_gather(embedder, rows, how)) if out and out.suffix == ".npy" else None
    if found is not None and out:
        _write_whole(out, lambda to: np.save(to, found))
    elif out:
        _write_whole(out, lambda to: asyncio.run(_lines(embedder, rows, how, to)))
    else:
        asyncio.run(_lines(embedder, rows, how, sys.stdout.buffer))
    embedder.close()


def _read(file: Path) -> Iterator[str]:
    return (document.text for document in jsonl.read(file, Document))


async def _lines(embedder: LocalEmbedder, texts: Iterator[str], how: Embedding, to: IO[bytes]) -> None:
    count = 0
    while batch := [*islice(texts, AT_ONCE)]:
        rows = await _embed(embedder, batch, how, count)
        for text, row in zip(batch, rows, strict=True):
            line = {"text": text, "embedding": row}
            to.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))
        to.flush()
        count += len(batch)


async def _gather(embedder: LocalEmbedder, texts: Iterator[str], how: Embedding) -> np.ndarray:
    found: list[np.ndarray] = []
    while batch := [*islice(texts, AT_ONCE)]:
        found.append(await _embed(embedder, batch, how, sum(map(len, found))))
    if not found:
        raise DataError("There is nothing to embed.")
    return np.concatenate(found)


async def _embed(embedder: LocalEmbedder, batch: list[str], how: Embedding, before: int) -> np.ndarray:
    try:
        return (await embedder.embed(batch, how)).rows
    except MynaError as e:
        if (param := getattr(e, "param", None) or "").startswith("input."):
            number = before + int(param.removeprefix("input.")) + 1
            raise DataError(f"text {number}{str(e).removeprefix(param)}") from None
        raise


def _write_whole(out: Path, write: Callable[[IO[bytes]], object]) -> None:
    """The file appears whole or not at all."""
    partial = out.with_name(out.name + ".partial")
    try:
        with open(partial, "wb") as to:
            write(to)
        partial.rename(out)
    except OSError as e:
        raise DataError(f"{out}: cannot write: {e.strerror or e}") from None
