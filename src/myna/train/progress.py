"""How far a run is: a bar on a terminal, JSON lines otherwise, on stderr; and what Ctrl-C means to it."""

import json
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from myna.data import Audit
from myna.train.checkpoint import State

EVERY = 5.0  # seconds between JSON lines
RECENT = 20  # steps whose speed is shown
SHOWN = ("loss", "reward", "accuracy", "margin", "grad_norm")  # those that come first are shown on narrow terminals too
FIXED = 62  # columns that the bar needs without figures


class Progress:
    """A context in which steps are shown. `flops`: floating-point operations a second that are all of the machine's, at so many
    for a token; with them, the share that training uses (MFU) is shown."""

    def __init__(self, steps: int, state: State, *, quiet: bool = False, flops: tuple[float, float] | None = None):
        self.steps, self.first, self.skipped = steps, state.step, state.skipped
        self.quiet, self.flops = quiet, flops
        self.started = self.said = time.monotonic()
        self.recent: deque[tuple[float, float]] = deque(maxlen=RECENT)  # tokens and seconds of a step
        self.bar: Any = None

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.table import Column

            figures = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
            columns = (MofNCompleteColumn(), BarColumn(bar_width=None), TimeRemainingColumn(compact=True), figures)
            self.bar = Progress(*columns, console=Console(stderr=True, highlight=False), expand=True)
            self.bar.start()
            self.task = self.bar.add_task("", total=self.steps, completed=self.first)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, line: Mapping[str, Any], state: State) -> None:
        """`line` is the log's, of the step that was just done."""
        if state.skipped > self.skipped:
            self.skipped = state.skipped
            norm = line["grad_norm"]
            self._say(
                f"step {line['step']} is skipped: the gradient's norm is {norm}", event="skipped", step=line["step"]
            )
        self.recent.append((line["tokens"], line["seconds"]))
        if self.bar is not None:
            self.bar.update(self.task, completed=state.step, description=self._figures(line))
        elif not self.quiet and (time.monotonic() - self.said >= EVERY or state.step in (self.first + 1, self.steps)):
            self.said = time.monotonic()
            left = round((self.said - self.started) / (state.step - self.first) * (self.steps - state.step))
            rates = {"rate": round(self.rate)} | ({"mfu": round(self.mfu, 4)} if self.mfu is not None else {})
            figures = {name: _number(line[name]) for name in SHOWN if name in line}
            self._line(event="progress", done=state.step, total=self.steps, **figures, **rates, eta=left)

    @property
    def rate(self) -> float:
        """Tokens a second, of the last steps."""
        return sum(tokens for tokens, _ in self.recent) / max(sum(seconds for _, seconds in self.recent), 1e-9)

    @property
    def mfu(self) -> float | None:
        """The share of what the machine's products reach that training them is (Chowdhery et al. 2022, appendix B)."""
        return self.rate * self.flops[1] / self.flops[0] if self.flops else None

    def evaluated(self, found: Mapping[str, float], step: int, best: bool) -> None:
        said = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in _by_weight(found))
        numbers = {name: _number(value) for name, value in found.items()}
        self._say(f"step {step:,} evaluated: {said}{'  (best so far)' * best}", event="eval", step=step, **numbers)

    def stopping(self) -> None:
        """Ctrl-C was heard. Called from a signal's handler: written past whoever is just writing."""
        said = "the step is finished and saved, then it stops; once more to stop at once"
        if not self.quiet:
            text = f"\r\n{said}\r\n" if self.bar is not None else json.dumps({"event": "stopping", "text": said}) + "\n"
            os.write(sys.stderr.fileno(), text.encode())

    def _figures(self, line: Mapping[str, Any]) -> str:
        """As many as the terminal has room for."""
        ends = [f"{self.rate:,.0f} tokens/s"] + ([f"MFU {self.mfu:.0%}"] if self.mfu is not None else [])
        room = self.bar.console.width - FIXED
        if room < 0:
            ends = []
        parts: list[str] = []
        for name in (name for name in SHOWN if name in line):
            part = f"{name.replace('_', ' ')} {line[name]:.4g}"
            if parts and len(part) + 2 > room:
                break
            parts, room = [*parts, part], room - len(part) - 2
        return "  ".join([*parts, *ends])

    def _say(self, text: str, **event: Any) -> None:
        """A line that stays."""
        if self.bar is not None:
            self.bar.console.print(text, markup=False, soft_wrap=True)
        elif not self.quiet:
            self._line(**event)

    def _line(self, **event: Any) -> None:
        print(json.dumps(event), file=sys.stderr, flush=True)


def tell(event: str, step: int, text: str) -> None:
    """A line on stderr, for people or for programs."""
    print(text if sys.stderr.isatty() else json.dumps({"event": event, "step": step, "text": text}), file=sys.stderr)


def _number(value: float) -> float | None:
    """JSON has no word for what is no number."""
    return round(value, 5) if math.isfinite(value) else None


def _by_weight(found: Mapping[str, float]) -> list[tuple[str, float]]:
    """The loss first."""
    return sorted(found.items(), key=lambda pair: pair[0] != "loss")


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
def interruptible(stopping: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C or SIGTERM only asks, and `stopping` says so: the step is finished and saved. The second stops at once."""
    asked = False

    def ask(number: int, _: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        stopping()

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: nobody presses Ctrl-C here
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
