"""myna search: passages out of an index."""

import asyncio
import os
from dataclasses import asdict
from typing import Annotated, cast

import orjson
from cyclopts import Parameter
from rich.console import Console

from myna.apps.index.index import Hit
from myna.apps.index.like import similar
from myna.commands.index import DEFAULT, By, IndexFile, either, named, opened
from myna.commands.options import printable
from myna.provider import Scorer
from myna.records import MynaError


def run(
    *queries: str,
    index: IndexFile = DEFAULT,
    k: Annotated[int, Parameter(name=("--k", "-k"))] = 5,
    embedder: str | None = None,
    rerank: str | None = None,
    by: By | None = None,
    like: tuple[str, ...] = (),
    unlike: tuple[str, ...] = (),
    json: bool = False,
) -> None:
    """Find passages in the documents of an index; or documents that are like others.

    Parameters
    ----------
    queries
        What to find. Several are several ways to ask for one thing.
    index
        The file of the index.
    k
        How many passages.
    embedder
        The model that made the index's vectors; words alone if left out.
    rerank
        Who reads the best passages once more: a cross-encoder, a chat model (asked for yes or no), http://HOST/v1#MODEL.
    by
        A structure to search beside words and vectors: tree or graph (myna index build).
    like
        The name of a document: find documents like it. May be given several times.
    unlike
        The name of a document: not like this one.
    json
        One JSON object, for programs.
    """
    if like or unlike:
        _print_similar(queries, index, like, unlike, k, json)
        return
    with either(index, embedder, by=by) as file:
        scorer = _scorer(rerank) if rerank else None
        try:
            found = asyncio.run(file.search(queries, k, rerank=scorer))
        finally:
            if close := getattr(scorer, "close", None):
                close()
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


def _print_similar(
    queries: tuple[str, ...], index: str, like: tuple[str, ...], unlike: tuple[str, ...], k: int, json: bool
) -> None:
    if queries:
        raise MynaError("give queries or --like, not both.")
    with opened(index) as file:
        found = similar(file, [*map(named, like)], [*map(named, unlike)], k)
    if json:
        print(orjson.dumps([asdict(one) for one in found]).decode())
        return
    for number, one in enumerate(found, 1):
        vectors = "" if one.vectors is None else f", vectors {one.vectors:.3f}"
        print(printable(f"{number}. {', '.join(one.names)}  {one.score:.3f} (words {one.words:.3f}{vectors})"))
    if not found:
        print("nothing was found")


def _where(hit: Hit) -> str:
    page = f", page {hit.page}" if hit.page else ""
    path = " > ".join(hit.path)
    date = f", {hit.dated}" if hit.dated else ""
    return f"{hit.names[0]}{page}, {hit.start}-{hit.end}{date}" + (f" ({path})" if path else "")


def _scorer(model: str) -> Scorer:
    """A model of ours: a cross-encoder, a chat model that is asked for yes or no, an embedder; or what answers at URL#MODEL."""
    url, _, name = model.partition("#")
    if "://" in url:
        from myna.provider.http_score import HttpScorer

        if not name:
            raise MynaError(f"--rerank {model}: name the model: {url}#MODEL")
        return HttpScorer(url, name, os.environ.get("MYNA_API_KEY"))
    from myna.provider.either import load_either

    return cast(Scorer, load_either(model))  # whatever we load scores, each in its own way
