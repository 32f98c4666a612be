"""myna data sample, myna data synthesize: rows that a model writes."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import orjson
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from myna.commands.options import LoadingFlags
from myna.data import Source
from myna.data.sources import Sourced
from myna.modeldir import DEFAULT
from myna.provider.local import Loading, load
from myna.records import Conversation

Out = Annotated[Path, Parameter(name=("--out", "-o"))]


def sample(
    *files: Path,
    out: Out,
    check: str,
    model: str = DEFAULT,
    n: int = 8,
    keep: Literal["best", "all"] = "best",
    temperature: float = 1.0,
    max_tokens: int = 256,
    seed: int = 0,
    eval: tuple[Path, ...] = (),
    loading: LoadingFlags = Loading(),
) -> None:
    """Answer every prompt n times and keep answers that pass a check, as a file to fine-tune on (best of n, rejection sampling).

    Interrupted, the same command goes on where it was.

    Parameters
    ----------
    files
        Conversations to be answered; an answer that one has already is left out.
    out
        Where to write what is kept.
    check
        What an answer must pass: exact, number or contains, against the row's target.
    model
        Who answers: a pulled model's name, or the path of a model directory.
    n
        Answers to each prompt.
    keep
        Of each prompt the best answer that passes, or all that do.
    eval
        Evaluation files: prompts that stand in them are not asked.
    """
    from myna.train.reject import Draw, sample

    draw = Draw(check=check, n=n, keep=keep, temperature=temperature, max_tokens=max_tokens, seed=seed)
    prompts = [*Source.of(*files).conversations()]
    with _progress() as seen:
        found = asyncio.run(sample(load(model, loading), prompts, out, draw, evals=_evals(eval), seen=seen))
    print(orjson.dumps({"out": str(out), **found.to_json()}).decode())


def synthesize(
    *files: Path,
    out: Out,
    rows: int,
    check: str = "",
    model: str = DEFAULT,
    temperature: float = 1.0,
    max_tokens: int = 512,
    near: float = 0.7,
    seed: int = 0,
    eval: tuple[Path, ...] = (),
    loading: LoadingFlags = Loading(),
) -> None:
    """Have a model write tasks like those in the files, and answer them (self-instruct).

    Interrupted, the same command goes on where it was.

    Parameters
    ----------
    files
        A few conversations that begin with tasks such as you want.
    out
        Where to write the rows.
    rows
        How many.
    check
        Keep rows alone whose two answers agree, as exact, number or contains says.
    model
        Who writes: a pulled model's name, or the path of a model directory.
    near
        How like an earlier task a new one may be, from 0 to 1.
    eval
        Evaluation files: tasks that stand in them are left out.
    """
    from myna.train.synthesize import Wish, synthesize

    wish = Wish(rows=rows, check=check, temperature=temperature, max_tokens=max_tokens, near=near, seed=seed)
    seeds = [one.value for one in Source.of(*files).conversations()]
    with _progress() as seen:
        found = asyncio.run(synthesize(load(model, loading), seeds, out, wish, evals=_evals(eval), seen=seen))
    print(orjson.dumps({"out": str(out), **found.to_json()}).decode())


def _evals(files: tuple[Path, ...]) -> list[Sourced[Conversation]]:
    return [*Source.of(*files).conversations()] if files else []


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)
