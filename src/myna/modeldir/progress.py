"""Telling how far a long task is: bars on a terminal, JSON lines otherwise. Always on stderr; stdout is for results."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Advance = Callable[[int], None]

EVERY = 2.0  # seconds between JSON lines


@contextmanager
def progress(what: str, total: int | None, *, done: int = 0) -> Iterator[Advance]:
    """Bytes of `what`, from `done` (what an earlier run left) to `total`. Yields the function to call with each count.

    On a terminal a bar with rate and time left; otherwise one JSON object every two seconds, and one at the end:
    {"event": "progress", "what", "done", "total", "rate" (bytes/s), "eta" (s)}.
    """
    with _bar(what, total, done) if sys.stderr.isatty() else _lines(what, total, done) as advance:
        yield advance


def note(text: str) -> None:
    """One line for whoever watches."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
    else:
        _line(event="note", text=text)


@contextmanager
def _bar(what: str, total: int | None, done: int) -> Iterator[Advance]:
    from rich.console import Console  # here: 60 ms that only a terminal needs
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task(what, total=total, completed=done)
        yield lambda count: bars.advance(task, count)


@contextmanager
def _lines(what: str, total: int | None, done: int) -> Iterator[Advance]:
    start = said = time.monotonic()
    now = done

    def say() -> None:
        rate = (now - done) / max(time.monotonic() - start, 1e-3)
        eta = round((total - now) / rate) if total is not None and rate > 0 else None
        _line(event="progress", what=what, done=now, total=total, rate=round(rate), eta=eta)

    def advance(count: int) -> None:
        nonlocal now, said
        now += count
        if time.monotonic() - said >= EVERY:
            said = time.monotonic()
            say()

    yield advance
    say()


def _line(**event: Any) -> None:
    print(json.dumps(event, ensure_ascii=False), file=sys.stderr, flush=True)
