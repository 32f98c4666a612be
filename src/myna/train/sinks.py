"""Where the log goes besides log.jsonl: each line to tensorboard, wandb or trackio, under the names they have in the log.

A package that is missing or refuses is an error before the first step. One that fails later is told once and left alone: log.jsonl
has everything, and no run is worth less for a picture of it.
"""

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from myna.records import DataError

Json = dict[str, Any]


class Sink(Protocol):
    """Takes figures at a step; `close` writes what is still held."""

    def __call__(self, figures: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class Sinks:
    """Every sink of a run. `config` is what they show of it."""

    def __init__(self, names: Sequence[str], run: Path, config: Json):
        check(names)
        self.open: dict[str, Sink] = {}
        for name in names:
            try:
                self.open[name] = KINDS[name].open(run, config)
            except Exception as e:
                self.close()
                raise DataError(f"run.sinks: {name} does not open: {type(e).__name__}: {e}") from None

    def __call__(self, line: Json) -> None:
        """A line of the log. Steps count as done: a line of step n is at n + 1, where an evaluation after it is."""
        if isinstance(line.get("eval"), dict):
            figures, step = _figures(line["eval"], "eval/"), line["step"]
        elif "loss" in line:
            figures, step = _figures(line, "train/"), line["step"] + 1
        else:
            return
        for name in [*self.open]:
            self._try(name, lambda sink: sink(figures, step))

    def close(self) -> None:
        for name in [*self.open]:
            self._try(name, lambda sink: sink.close())

    def _try(self, name: str, do: Callable[[Sink], None]) -> None:
        try:
            do(self.open[name])
        except Exception as e:  # whatever another's program raises
            del self.open[name]
            print(
                f"{name} fails and is left alone; the run goes on: {type(e).__name__}: {e}", file=sys.stderr, flush=True
            )


def check(names: Sequence[str]) -> None:
    """Raises DataError for a sink that is not known or not installed."""
    for name in names:
        if name not in KINDS:
            raise DataError(f"run.sinks: {name!r} is none of {', '.join(KINDS)}")
        try:
            importlib.import_module(KINDS[name].package)
        except ImportError as e:
            raise DataError(f'run.sinks: {name} is not installed ({e}): pip install "myna[{name}]"') from None


def _figures(line: Mapping[str, Any], under: str) -> dict[str, float]:
    numbers = {name: value for name, value in line.items() if isinstance(value, int | float) and name != "step"}
    return {under + name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _tensorboard(run: Path, config: Json) -> Sink:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(run / "tensorboard"))

    @dataclass(frozen=True, slots=True)
    class Tensorboard:
        def __call__(self, figures: Mapping[str, float], step: int) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

        def close(self) -> None:
            writer.close()

    return Tensorboard()


def _hosted(package: str) -> Callable[[Path, Json], Sink]:
    """wandb, and trackio which has its interface."""

    def open_(run: Path, config: Json) -> Sink:
        service = importlib.import_module(package)
        name = run.resolve().name
        more = {"id": name, "dir": str(run)} if package == "wandb" else {}
        service.init(project="myna", name=name, config=config, resume="allow", **more)

        @dataclass(frozen=True, slots=True)
        class Hosted:
            def __call__(self, figures: Mapping[str, float], step: int) -> None:
                service.log(dict(figures), step=step)

            def close(self) -> None:
                service.finish()

        return Hosted()

    return open_


@dataclass(frozen=True, slots=True)
class _Kind:
    package: str
    open: Callable[[Path, Json], Sink]


KINDS = {
    "tensorboard": _Kind("tensorboardX", _tensorboard),
    "wandb": _Kind("wandb", _hosted("wandb")),
    "trackio": _Kind("trackio", _hosted("trackio")),
}
