"""myna tokenizer: make one from text, and compare what tokenizers make of a text."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path

from cyclopts import App
from rich.console import Console
from rich.table import Table

from myna.chat import Tokenizer
from myna.chat.density import KINDS, Density, measure
from myna.chat.train_tokenizer import check_tokenizer, pieces, train, words_of, write_tokenizer
from myna.commands.options import printable
from myna.data.sources import Source
from myna.modeldir import find, list_models, publish
from myna.modeldir.progress import Advance, note, progress
from myna.modeldir.publish import sha256
from myna.records import DataError, MynaError

app = App(name="tokenizer")

HELD_OUT = 25  # every so many pieces one is not learned from, and measured on
ENOUGH = 4 << 20  # characters that are measured on, at most


@app.command(name="train")
def train_from(*files: Path, out: Path, vocab: int = 8192, split_on: str | None = None, replace: bool = False) -> None:
    """Learn a tokenizer from text and conversations: a directory with tokenizer.json and the chat template of our own format,
    from which `myna train pretrain` makes a model.

    Parameters
    ----------
    files
        Text (.txt, .md) and rows of text or conversations (.jsonl, .json), each also as .gz; or folders of them.
    out
        The directory to make.
    vocab
        How many tokens, control tokens included: at least 267. Small models want few: the embedding grows with them.
    split_on
        A line that separates the documents of a text file, or "blank": empty lines do. A text of more than 1 GiB needs one.
    replace
        Replace the directory if there is one.
    """
    if not files:
        raise MynaError("from what? Give files: myna tokenizer train FILES... --out DIR")
    if out.exists() and not replace:
        raise MynaError(f"{out} exists. Choose another name, or say --replace.")
    source = Source(files, split_on=split_on)
    with progress("reading", sum(map(_size, source.files()))) as advance:
        kept = _HeldOut(pieces(_told(source, vocab, advance)))
        spec = train(kept.learned(), vocab)
    lineage = {
        "command": "tokenizer train",
        "vocab": vocab,
        "data": [{"path": str(file), "bytes": file.stat().st_size, "sha256": sha256(file)} for file in source.files()],
    }
    print(publish(out, partial(write_tokenizer, spec=spec), lineage, replace=replace, check=check_tokenizer))
    where = "held out of the text" if kept.texts else "the text itself, too short to hold some out of it"
    texts = kept.texts or list(_pieces(source))
    found = {out.name: _measured(out, texts)} | {name: at for name, at in _pulled(texts) if not at.lossy}
    _print(f"bytes a token, of {sum(found[out.name].nbytes.values()):,} bytes {where}", found, {out.name: out})


@app.command
def compare(*models: str, on: list[Path]) -> None:
    """How many bytes of a text each tokenizer puts into a token.

    Parameters
    ----------
    models
        Model directories, or pulled models' names.
    on
        Files and folders as `train` reads them.
    """
    if not models:
        raise MynaError("compare what? Give directories: myna tokenizer compare DIR DIR --on FILE")
    source, paths = Source(tuple(on)), {name: find(name) for name in models}
    found = {name: _measured(path, _pieces(source)) for name, path in paths.items()}
    nbytes = sum(found[models[0]].nbytes.values())
    if not nbytes:
        raise DataError(f"there is no text in {', '.join(map(str, on))}.")
    _print(f"bytes a token, of {nbytes:,} bytes", found, paths)


class _HeldOut:
    """Hands out pieces to learn from, and keeps one of HELD_OUT in `texts`: fewer, evenly, where the text is long."""

    def __init__(self, source: Iterable[str]):
        self.texts: list[str] = []
        self._source = source

    def learned(self) -> Iterator[str]:
        every, size = HELD_OUT, 0
        for number, piece in enumerate(self._source, start=1):
            if number % every:
                yield piece
                continue
            self.texts.append(piece)
            size += len(piece)
            if size > ENOUGH:
                self.texts, every = self.texts[::2], every * 2
                size = sum(map(len, self.texts))


def _told(source: Source, vocab: int, advance: Advance) -> Iterator[str]:
    """The source's texts, with the progress of reading them."""
    read, before, sizes = 0, 0, {str(file): _size(file) for file in source.files()}
    for file, records in groupby(source.records(), lambda record: record.place.file):
        for record in records:
            for text in words_of(record.value):
                step = min(len(text.encode(errors="replace")), before + sizes[file] - read)
                read += step
                advance(step)
                yield text
        before += sizes[file]
        advance(before - read)
        read = before
    note(f"joining the most frequent pairs, until there are {vocab:,} tokens")


def _pieces(source: Source) -> Iterator[str]:
    return pieces(text for record in source.records() for text in words_of(record.value))


def _size(file: Path) -> int:
    """Bytes of text in a file; of a gzip file what its last four bytes say, which is exact below 4 GiB."""
    try:
        with open(file, "rb") as raw:
            if file.suffix != ".gz":
                return file.stat().st_size
            raw.seek(-4, 2)
            return int.from_bytes(raw.read(4), "little")
    except OSError as e:
        raise DataError(f"{file}: cannot read: {e.strerror or e}") from None


def _measured(path: Path, texts: Iterable[str]) -> Density:
    return measure(Tokenizer.load(path), texts)


def _pulled(texts: list[str]) -> Iterator[tuple[str, Density]]:
    """What pulled models' tokenizers make of it, to compare with."""
    for model in list_models():
        try:
            yield model.name, _measured(model.path, texts)
        except MynaError as e:
            note(f"{model.name} cannot be compared: {e}")


def _print(title: str, found: dict[str, Density], paths: dict[str, Path]) -> None:
    kinds = [kind for kind in KINDS if any(density.of(kind) for density in found.values())]
    table = Table("tokenizer", "tokens", "all", *kinds, box=None, title=title, title_justify="left", title_style="")
    for name, density in found.items():
        size = Tokenizer.load(paths.get(name) or find(name)).vocab_size
        values = [f"{value:.2f}" if (value := density.of(kind)) else "" for kind in kinds]
        mark = " (changes the text)" if density.lossy else ""
        table.add_row(printable(name + mark), f"{size:,}", f"{density.overall:.2f}", *values)
    Console(highlight=False, soft_wrap=True).print(table)
