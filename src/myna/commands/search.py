"""myna search: passages out of an index."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
from cyclopts import Parameter
from rich.console import Console

from myna.apps.index.index import Hit
from myna.commands.index import DEFAULT, By, IndexFile, opened
from myna.commands.options import printable
from myna.provider import Scorer


def run(
    *queries: str,
    index: IndexFile = DEFAULT,
    k: Annotated[int, Parameter(name=("--k", "-k"))] = 5,
    model: str | None = None,
    rerank: str | None = None,
    by: By | None = None,
    json: bool = False,
) -> None:
    """Find passages in the documents of an index.

    Parameters
    ----------
    queries
        What to find. Several are several ways to ask for one thing.
    index
        The file of the index.
    k
        How many passages.
    model
        The model that made the vectors; words alone if left out.
    rerank
        A cross-encoder that reads the best passages once more.
    by
        A structure to search beside words and vectors: tree or graph (myna index build).
    json
        One JSON object, for programs.
    """
    scorer = _scorer(rerank) if rerank else None
    with opened(Path(index), model, by=by) as file:
        found = asyncio.run(file.search(queries, k, rerank=scorer))
    if json:
        print(orjson.dumps(asdict(found)).decode())
        return
    screen = Console(highlight=False, markup=False, soft_wrap=True)
    for number, hit in enumerate(found.hits, 1):
        screen.print(printable(f"{number}. {_where(hit)}  {hit.score:.3f}"), style="bold")
        for line in hit.via:
            screen.print(printable(f"   by {line}"), style="dim")
        screen.print(printable(hit.text, {"\n": "\n"}), end="\n\n")
    for note in (*found.notes, found.how if found.hits else "nothing was found"):
        screen.print(printable(note), style="dim")


def _where(hit: Hit) -> str:
    page = f", page {hit.page}" if hit.page else ""
    path = " > ".join(hit.path)
    return f"{hit.names[0]}{page}, {hit.start}-{hit.end}" + (f" ({path})" if path else "")


def _scorer(model: str) -> Scorer:
    from myna.provider.local_embed import CrossEncoder, load_embedder
    from myna.records import MynaError

    scorer = load_embedder(model)
    if not isinstance(scorer, CrossEncoder):
        raise MynaError(f"{scorer.name} makes vectors and scores no pairs; name a cross-encoder.")
    return scorer
