"""myna index add, list, remove, report, tune: documents to search in, in one file."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from myna.apps.index.file import FileIndex
from myna.apps.index.folder import Report, read_folder
from myna.apps.index.reading import Document, read_file
from myna.commands.options import printable
from myna.provider.local_embed import CrossEncoder, LocalEmbedder, load_embedder
from myna.records import DataError, MynaError

app = App(name="index", help="Documents to search in: add, list, remove, report, tune.")
IndexFile = Annotated[Path, Parameter(name="--index")]
DEFAULT = Path("index.sqlite")


@contextmanager
def opened(path: Path, model: str | None = None, *, new: bool = False) -> Iterator[FileIndex]:
    """The index that is meant. One that is only read must be there."""
    if not new and not path.is_file():
        raise DataError(f"there is no index {path}. Make it: myna index add FOLDER --index {path}")
    embedder = _embedder(model) if model else None
    index = FileIndex(path, embedder)
    try:
        yield index
    finally:
        index.close()
        if embedder:
            embedder.close()


def _embedder(model: str) -> LocalEmbedder:
    embedder = load_embedder(model)
    if isinstance(embedder, CrossEncoder):
        raise MynaError(f"{embedder.name} scores pairs of texts and makes no vectors.")
    return embedder


@app.command
def add(*paths: Path, index: IndexFile = DEFAULT, model: str | None = None) -> None:
    """Read files and folders, and put what they say into an index. What is there already stays; changed files are replaced.

    Parameters
    ----------
    paths
        Documents, or folders of documents.
    index
        The file of the index; made if it is not there.
    model
        A model that makes vectors, such as all-minilm-l6-v2; words alone if left out. Every passage of the index gets one, and how
        much they count is fitted.
    """
    if not paths:
        raise MynaError("name files or folders to add.")
    with opened(index, model, new=True) as file:
        for path in paths:
            report = Report()
            documents = _folder(path, report) if path.is_dir() else iter([read_file(path)])
            for one in asyncio.run(file.add(documents)):
                print(printable(f"{one.outcome:8} {one.name}: {one.chunks} chunks"))
            if path.is_dir():
                print(printable("\n".join(report.lines()), {"\n": "\n"}))
        if model:
            print(asyncio.run(_fit(file)))


@app.command(name="list")
def list_documents(*, index: IndexFile = DEFAULT) -> None:
    """The documents of an index.

    Parameters
    ----------
    index
        The file of the index.
    """
    table = Table("name", "title", "kind", "characters", "chunks", "vectors", "sha256", box=None, header_style="bold")
    with opened(index) as file:
        for one in asyncio.run(file.documents()):
            figures = (f"{one.characters:,}", str(one.chunks), str(one.vectors), one.sha256[:12])
            table.add_row(printable(one.name), printable(one.title), one.kind, *figures)
    Console(highlight=False, markup=False, soft_wrap=True, width=1000).print(table)


@app.command
def remove(*names: str, index: IndexFile = DEFAULT) -> None:
    """Take documents out, with all that was derived from them.

    Parameters
    ----------
    names
        As `myna index list` shows them.
    index
        The file of the index.
    """
    with opened(index) as file:
        count = asyncio.run(file.remove(names))
    print(f"{count} of {len(names)} documents removed")
    if count < len(names):
        raise DataError(f"{len(names) - count} names are not in {index}; `myna index list` shows those that are.")


@app.command
def report(*, index: IndexFile = DEFAULT) -> None:
    """What an index holds, in figures, and what is worth a look.

    Parameters
    ----------
    index
        The file of the index.
    """
    figures = Report()
    with opened(index) as file:
        listed = asyncio.run(file.documents())
        for one in listed:
            parsed = file.parsed(one.sha256)
            if parsed:
                figures.add_parsed(one.name, one.size, parsed)
        fitted = file.fitted()
    print(printable("\n".join(figures.lines()), {"\n": "\n"}))
    print(f"{sum(one.chunks for one in listed)} chunks, {sum(one.vectors for one in listed)} with vectors; "
          f"{fitted or 'words alone: nothing was fitted'}")  # fmt: skip


@app.command
def tune(model: str, /, *, index: IndexFile = DEFAULT, questions: Path | None = None) -> None:
    """Fit how much vectors count beside words.

    Parameters
    ----------
    model
        The model that made the vectors.
    index
        The file of the index.
    questions
        Rows {"question": ..., "name": ...} of JSON, where name is the document that answers; made from the documents if left out.
    """
    with opened(index, model) as file:
        asked = _read_questions(questions) if questions else None
        print(asyncio.run(file.tune(asked) if asked is not None else _fit(file)))


async def _fit(file: FileIndex) -> str:
    """On questions made from the corpus, unless somebody's own were given before."""
    from myna.apps.index.fusion import fit
    from myna.apps.index.questions import cloze

    known = file.fitted()
    if known and known.asked == "given":
        return str(known)
    return str(await file.keep(fit(await cloze(file), "made")))


def _read_questions(path: Path) -> list[tuple[str, str]]:
    from myna.records.jsonl import read_rows

    found = []
    for line, row in read_rows(path):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("question", "name")):
            raise DataError(f'{path}:{line}: a row is {{"question": ..., "name": ...}}, both texts.')
        found.append((row["question"], row["name"]))
    return found


def _folder(path: Path, report: Report) -> Iterator[Document]:
    for outcome in read_folder(path):
        report.add(outcome)
        if outcome.parsed:
            yield Document(path / outcome.path, outcome.sha256, outcome.size, outcome.parsed)
