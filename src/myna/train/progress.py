"""How far a run is: a bar on a terminal, JSON lines otherwise, on stderr; and what Ctrl-C means to it."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from myna.data import Audit
from myna.train.checkpoint import State

EVERY = 5.0  # seconds between JSON lines
SHOWN = ("loss", "accuracy", "reward", "margin", "grad_norm")


class Progress:
    """A context in which steps are shown."""

    def __init__(self, steps: int, state: State, *, quiet: bool = False):
        self.steps, self.first = steps, state.step
        self.quiet = quiet
        self.started = self.said = time.monotonic()
        self.tokens = 0
        self.bar: Any = None

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task("", total=self.steps, completed=self.first)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, line: dict[str, Any], state: State) -> None:
        self.tokens += line["tokens"]
        passed = time.monotonic() - self.started
        rate = self.tokens / max(passed, 1e-6)
        if self.bar is not None:
            parts = [f"{name} {line[name]:.4g}" for name in SHOWN if name in line]
            self.bar.update(self.task, completed=state.step, description="  ".join([*parts, f"{rate:,.0f} tokens/s"]))
        elif not self.quiet and (time.monotonic() - self.said >= EVERY or state.step in (self.first + 1, self.steps)):
            self.said = time.monotonic()
            left = round(passed / (state.step - self.first) * (self.steps - state.step))
            figures = {name: round(line[name], 5) for name in SHOWN if name in line}
            self._line(event="progress", done=state.step, total=self.steps, **figures, rate=round(rate), eta=left)

    def evaluated(self, found: dict[str, float]) -> None:
        figures = {name: round(value, 5) for name, value in found.items()}
        if self.bar is not None:
            self.bar.console.print("eval  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        elif not self.quiet:
            self._line(event="eval", **figures)

    def _line(self, **event: Any) -> None:
        print(json.dumps(event), file=sys.stderr, flush=True)


def show(audits: Iterable[Audit]) -> None:
    """What the data is, before anything is learned from it."""
    if sys.stderr.isatty():
        from rich.console import Console

        for audit in audits:
            Console(stderr=True).print(audit)
    else:
        for audit in audits:
            figures = {name: getattr(audit, name) for name in ("name", "rows", "examples", "tokens", "supervised")}
            print(json.dumps({"event": "data", **figures, "notes": audit.notes()}, ensure_ascii=False), file=sys.stderr)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C or SIGTERM only asks: the step is finished and saved. The second stops at once."""
    asked = False

    def ask(number: int, _: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("\nfinishing the step and saving; once more to stop at once", file=sys.stderr, flush=True)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: nobody presses Ctrl-C here
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
