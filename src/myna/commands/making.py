"""myna data sample, myna data synthesize: rows that a model writes."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Asking:
    """Who is asked, and how.

    Attributes
    ----------
    model
        A pulled model's name, or the path of a model directory.
    temperature
        How freely it draws; 0 always says what is likeliest.
    seed
        Of whatever is drawn.
    eval
        Evaluation files: what stands in them is not asked, and left out.
    """

    model: str = DEFAULT
    temperature: float = 1.0
    seed: int = 0
    eval: tuple[Path, ...] = ()

    def evals(self) -> list[Sourced[Conversation]]:
        return [*Source.of(*self.eval).conversations()]


AskingFlags = Annotated[Asking, Parameter(name="*", group="Asking")]


def sample(
    *files: Path,
    out: Out,
    check: str,
    n: int = 8,
    keep: Literal["best", "all"] = "best",
    max_tokens: int = 256,
    asking: AskingFlags = Asking(),
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
    n
        Answers to each prompt.
    keep
        Of each prompt the best answer that passes, or all that do.
    max_tokens
        The longest answer; one that is cut there is not kept.
    """
    from myna.train.reject import Draw, sample

    draw = Draw(check=check, n=n, keep=keep, temperature=asking.temperature, max_tokens=max_tokens, seed=asking.seed)
    prompts = [*Source.of(*files).conversations()]
    with _progress() as seen:
        found = asyncio.run(sample(load(asking.model, loading), prompts, out, draw, evals=asking.evals(), seen=seen))
    print(orjson.dumps({"out": str(out), **found.to_json()}).decode())


def synthesize(
    *files: Path,
    out: Out,
    rows: int,
    check: str = "",
    max_tokens: int = 512,
    near: float = 0.7,
    asking: AskingFlags = Asking(),
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
    max_tokens
        The longest answer; what is longer is left out.
    near
        How like an earlier task a new one may be, from 0 to 1.
    """
    from myna.train.synthesize import Wish, synthesize

    wish = Wish(
        rows=rows, check=check, temperature=asking.temperature, max_tokens=max_tokens, near=near, seed=asking.seed
    )
    seeds = [one.value for one in Source.of(*files).conversations()]
    with _progress() as seen:
        found = asyncio.run(synthesize(load(asking.model, loading), seeds, out, wish, evals=asking.evals(), seen=seen))
    print(orjson.dumps({"out": str(out), **found.to_json()}).decode())


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)
