"""myna index add, list, remove, report, tune, build, entity: documents to search in, in one file."""

import asyncio
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from myna.apps.index import like
from myna.apps.index.file import FileIndex
from myna.apps.index.folder import Report, read_folder
from myna.apps.index.graph import Graph
from myna.apps.index.index import Added
from myna.apps.index.qdrant import QdrantIndex
from myna.apps.index.readers import BY_SUFFIX
from myna.apps.index.reading import Document, Limits, Reader, shown
from myna.apps.index.tree import Tree
from myna.commands.agent_memory import forget_drawn
from myna.commands.options import printable, spoken
from myna.commands.trace import TraceFile
from myna.modeldir import DEFAULT as DEFAULT_MODEL
from myna.provider.connect import connect
from myna.provider.local_embed import CrossEncoder, LocalEmbedder, load_embedder
from myna.records import DataError, DocumentError, MynaError
from myna.records.jsonl import unopened
from myna.records.language import counted
from myna.trace import Prices, Trace
from myna.trace.where import price_file

app = App(name="index", help="Documents to search in: add, list, remove, report, tune, build.")
By = Literal["tree", "graph"]
IndexFile = Annotated[str, Parameter(name="--index")]  # a file, or URL#COLLECTION
DEFAULT = "index.sqlite"
LIMITS = Limits()


@contextmanager
def opened(
    where: Path | str, embedder: str | None = None, *, new: bool = False, by: By | None = None
) -> Iterator[FileIndex]:
    """The file that is meant, searched by a structure, too, where one is named. One that is only read must be there."""
    with either(str(where), embedder, new=new, by=by) as index:
        if not isinstance(index, FileIndex):
            raise MynaError(
                f"{where}: in Qdrant there is add, list, remove, tune and search; this needs an index in a file."
            )
        yield index


@contextmanager
def either(
    where: str, embedder: str | None = None, *, new: bool = False, by: By | None = None
) -> Iterator[FileIndex | QdrantIndex]:
    """A file, or URL#COLLECTION: Qdrant."""
    remote = "://" in where
    if not (new or remote) and not Path(where).is_file():
        raise DataError(f"there is no index {where}. Make it: myna index add FOLDER --index {where}")
    if remote and by:
        raise MynaError(f"{where}: a structure is searched in a file; Qdrant has words and vectors.")
    vectors = _embedder(embedder) if embedder else None
    index = QdrantIndex(where, vectors) if remote else FileIndex(where, vectors, _arm(by) if by else None)
    try:
        yield index
    finally:
        index.close()
        if vectors:
            vectors.close()


def _embedder(model: str) -> LocalEmbedder:
    found = load_embedder(model)
    if isinstance(found, CrossEncoder):
        raise MynaError(f"{found.name} scores pairs of texts and makes no vectors.")
    return found


def _arm(by: By) -> Tree | Graph:
    return Tree() if by == "tree" else Graph()


@app.command
def add(
    *paths: Path, index: IndexFile = DEFAULT, embedder: str | None = None, seconds: float = LIMITS.seconds, size: int = LIMITS.size >> 20
) -> None:  # fmt: skip
    """Read files and folders, and put what they say into an index. What is there already stays; changed files are replaced. What
    cannot be read is said, and the rest is read; exit status 1 then.

    Parameters
    ----------
    paths
        Documents, or folders of documents.
    index
        The file of the index, made if it is not there; or URL#COLLECTION of a Qdrant server.
    embedder
        A model that makes vectors, such as all-minilm-l6-v2; words alone if left out. Every passage of the index gets one, and how
        much they count is fitted.
    seconds
        That reading one document may take.
    size
        MiB that one file may have.
    """
    if seconds <= 0 or size <= 0:
        raise MynaError(f"--seconds and --size are more than 0, not {min(seconds, size):g}.")
    limits = replace(LIMITS, seconds=seconds, size=size << 20)
    if not paths:
        raise MynaError("name files or folders to add.")
    if not any(map(os.path.exists, paths)):  # then no index is made
        try:
            paths[0].stat()
        except OSError as problem:
            raise DataError(unopened(paths[0], problem)) from None
    failed = 0
    with either(index, embedder, new=True) as file, Reader(limits) as reader:
        for path in paths:
            try:
                if os.path.isdir(path):  # not Path.is_dir, which raises where it may not look
                    _add_folder(file, path, limits)
                else:
                    asyncio.run(file.add([reader.read(path)], _say))
            except DocumentError as e:
                failed += 1
                print(f"myna: {spoken(str(e))}", file=sys.stderr)
        if embedder:
            print(
                asyncio.run(_fit(file))
                if isinstance(file, FileIndex)
                else file.fitted() or "fit the weight of vectors: myna index tune"
            )
    if failed:
        print(f"myna: {failed} of {len(paths)} could not be added", file=sys.stderr)
        sys.exit(1)


def named(name: str) -> str:
    """A document as an index knows it: from how `myna index list` shows it, or from the name of its file."""
    return name if "\ufffd" in name else shown(name)


def _say(one: Added) -> None:
    print(printable(f"{one.outcome:8} {one.name}: {counted(one.chunks, 'chunk')}"))


def _add_folder(file: FileIndex | QdrantIndex, path: Path, limits: Limits) -> None:
    """Raises DocumentError where it holds nothing that is read."""
    report = Report()
    asyncio.run(file.add(_folder(file, path, report, limits), _say))
    print(printable("\n".join(report.lines()), {"\n": "\n"}))
    if not report.read:
        kinds = " ".join(sorted(BY_SUFFIX))
        raise DocumentError(f"{path}: there is no document in it that could be read. These are: {kinds}, and text.")


@app.command(name="list")
def list_documents(*, index: IndexFile = DEFAULT) -> None:
    """The documents of an index.

    Parameters
    ----------
    index
        The file of the index.
    """
    table = Table(
        "name", "title", "kind", "date", "characters", "chunks", "vectors", "sha256", box=None, header_style="bold"
    )
    with either(index) as file:
        for one in asyncio.run(file.documents()):
            date = "" if one.dated is None else one.dated.day + (" (file)" if one.dated.by == "file" else "")
            figures = (date, f"{one.characters:,}", str(one.chunks), str(one.vectors), one.sha256[:12])
            table.add_row(printable(one.name), printable(one.title or Path(one.name).name), one.kind, *figures)
    Console(highlight=False, markup=False, soft_wrap=True, width=1000).print(table)


async def _nameless(file: FileIndex | QdrantIndex, names: Collection[str]) -> set[str]:
    """The sha256 of documents that have no name but these."""
    listed = await file.documents()
    return {one.sha256 for one in listed if one.name in names} - {one.sha256 for one in listed if one.name not in names}


@app.command
def remove(*names: str, index: IndexFile = DEFAULT) -> None:
    """Take documents out, with all that was derived from them; what agents on this machine remember from them goes, too.

    Parameters
    ----------
    names
        As `myna index list` shows them.
    index
        The file of the index.
    """
    if not names:
        raise MynaError("name documents to remove; `myna index list` shows them.")
    with either(index) as file:
        wanted = [*map(named, names)]
        # First, so that a memory that cannot be written leaves the document where it can be named again.
        forgotten = forget_drawn(asyncio.run(_nameless(file, wanted)))
        count = asyncio.run(file.remove(wanted))
    print(f"{count} of {len(names)} documents removed")
    if forgotten:
        print(f"{counted(forgotten, 'memory', 'memories')} that agents wrote after reading them: forgotten")
    if count < len(names):
        raise DataError(
            f"{counted(len(names) - count, 'name is', 'names are')} not in {index}; `myna index list` shows those that are."
        )


@app.command
def report(*, index: IndexFile = DEFAULT) -> None:
    """What an index holds, in figures, and what is worth a look.

    Parameters
    ----------
    index
        The file of the index.
    """
    figures = Report()
    names: dict[str, str] = {}  # sha256 -> the first of its names
    with opened(index) as file:
        listed = asyncio.run(file.documents())
        for one in listed:
            if (first := names.setdefault(one.sha256, one.name)) != one.name:
                figures.duplicates[one.name] = first
            elif parsed := file.parsed(one.sha256):
                figures.add_parsed(one.name, one.size, parsed)
        fitted = file.fitted()
        structures = [*_tree_lines(file), *_graph_lines(file)]
    print(printable("\n".join(figures.lines()), {"\n": "\n"}))
    each = {one.sha256: one for one in listed}.values()
    print(f"{counted(sum(one.chunks for one in each), 'chunk')}, {sum(one.vectors for one in each)} with vectors; "
          f"{fitted or 'words alone: nothing was fitted'}")  # fmt: skip
    print(printable("\n".join(structures), {"\n": "\n"}))


@app.command
def build(
    structure: By, /, *, index: IndexFile = DEFAULT, by: str = DEFAULT_MODEL, embedder: str | None = None, yes: bool = False,
    trace: TraceFile = None, prices: Path | None = None,
) -> None:  # fmt: skip
    """Build a structure over the documents: a tree of summaries, or a graph of entities. What it takes at most is said first.

    What is there already is kept, so a build that was interrupted goes on, and after documents have changed only theirs is made.

    Parameters
    ----------
    structure
        tree: summaries of sections, documents and folders; graph: what passages name, and how it is related.
    index
        The file of the index.
    by
        Who writes it: a pulled model, http://HOST/v1#MODEL, ollama:MODEL.
    embedder
        The model that made the index's vectors; summaries get one, too.
    yes
        Do not ask whether to build.
    trace
        Record every call in this trace file.
    prices
        A price file (see docs/trace.md); this user's if left out.
    """
    from myna.provider.budget import Budget, Budgeted
    from myna.provider.traced import Traced

    costs = Prices.read(prices or price_file())
    with opened(index, embedder) as file:
        provider = connect(by)
        try:
            arm = _arm(structure)
            estimate = arm.estimate(file, provider)
            print(printable(estimate.line(provider.name, costs)))
            if (estimate.calls or estimate.dropped) and not (yes or _agreed()):
                raise MynaError("nothing was built; --yes builds without asking.")
            asked = Traced(provider, Trace(trace, costs)) if trace else provider
            built = asyncio.run(arm.build(file, Budgeted(asked, Budget(estimate.limits), costs), told=_told))
        finally:
            if close := getattr(provider, "close", None):
                close()
    print(built)


def _agreed() -> bool:
    return sys.stdin.isatty() and input("Build it? [y/N] ").strip().lower() in ("y", "yes")


def _told(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {of}", end="" if done < of else "\n", file=sys.stderr, flush=True)


@app.command
def compare(one: str, other: str, /, *, index: IndexFile = DEFAULT) -> None:
    """How like each other two documents are: by their words, and by their vectors where the index has them.

    Parameters
    ----------
    one
        The name of a document.
    other
        Another's.
    index
        The file of the index.
    """
    with opened(index) as file:
        found = like.compare(file, named(one), named(other))
    vectors = "" if found.vectors is None else f", vectors {found.vectors:.3f}"
    print(printable(f"words {found.words:.3f}{vectors}; shared: {' '.join(found.shared) or 'nothing'}"))


@app.command
def entity(name: str, /, *, index: IndexFile = DEFAULT) -> None:
    """How an entity is related to others, with the passage that states it.

    Parameters
    ----------
    name
        However it is written.
    index
        The file of the index.
    """
    with opened(index) as file:
        edges = Graph().edges(file, named(name))
    if not edges:
        raise DataError(f"the graph of {index} has no relation of {name!r}; `myna index report` shows what it has.")
    print(printable("\n".join(map(str, edges)), {"\n": "\n"}))


@app.command
def tune(
    embedder: str | None = None, /, *, index: IndexFile = DEFAULT, questions: Path | None = None, by: By | None = None
) -> None:
    """Fit how much vectors count beside words, or a structure beside both.

    Parameters
    ----------
    embedder
        The model that made the index's vectors; none if only words are searched.
    index
        The file of the index.
    questions
        Rows {"question": ..., "name": ...} of JSON, where name is the document that answers; made from the documents if left out.
    by
        Fit the weight of this structure, tree or graph: with questions of yours alone.
    """
    if by and not questions:
        raise MynaError("a structure is weighed on questions of yours: --questions FILE.")
    with either(index, embedder, by=by) as file:
        asked = _read_questions(questions) if questions else None
        if asked is None and not isinstance(file, FileIndex):
            raise MynaError(f"{index}: in Qdrant the weight is fitted on questions of yours: --questions FILE.")
        print(asyncio.run(file.tune(asked) if asked is not None else _fit(file)))  # type: ignore[arg-type]


def _tree_lines(file: FileIndex) -> Iterator[str]:
    if (tree := Tree().standing(file)) is None:
        yield "no tree; build it: myna index build tree"
        return
    levels = ", ".join(f"{count} of level {level}" for level, count in tree.levels.items())
    yield f"tree by {tree.model}: {counted(sum(tree.levels.values()), 'summary', 'summaries')} ({levels or 'none'}), {tree.missing} missing"


def _graph_lines(file: FileIndex) -> Iterator[str]:
    if (graph := Graph().standing(file)) is None:
        yield "no graph; build it: myna index build graph"
        return
    yield (
        f"graph by {graph.model}: {counted(graph.entities, 'entity', 'entities')}, {counted(graph.relations, 'relation')} from "
        f"{counted(graph.passages, 'passage')}; "
        f"{graph.missing} missing, {graph.failed} failed, {counted(graph.left_out, 'name or relation', 'names and relations')} not in their passages left out"
    )
    yield from (f"  {len(group)} together: {', '.join(group[:8])}" for group in graph.groups[:8] if len(group) > 2)


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


def _folder(file: FileIndex | QdrantIndex, path: Path, report: Report, limits: Limits) -> Iterator[Document]:
    """What is read, and under its own name what has the bytes of a file before it, which the index has by then."""
    for outcome in read_folder(path, limits):
        report.add(outcome)
        if parsed := file.parsed(outcome.sha256) if outcome.same_as else outcome.parsed:
            yield Document(path / outcome.path, outcome.sha256, outcome.size, parsed, outcome.modified)
