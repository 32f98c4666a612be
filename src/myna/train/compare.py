"""Runs side by side: what was set differently, what came of it, and which of the figures may be compared at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from myna.records import DataError
from myna.train.report import config_of, said
from myna.train.rundir import RunDir

Json = dict[str, Any]
PLACES = 5  # steps at which losses stand side by side
NEAR = 10  # steps whose mean a training loss is: one step's says little
# Keys that say where and how a run is kept, not what it is.
KEPT = {"run.out", "run.save", "run.keep", "run.sinks", "run.prompts", "model.save"}


@dataclass(frozen=True, slots=True)
class Told:
    """A run as its directory tells it. `losses` are of each step done; `evals` (steps done, figures); `changed`: steps
    from which on its keys or data were others."""

    name: str
    keys: dict[str, str]
    losses: dict[int, float]
    evals: tuple[tuple[int, dict[str, float]], ...]
    tokens: int
    seconds: float
    tokenizer: str
    files: dict[str, str]
    held_out: tuple[str, ...]
    finished: bool
    changed: tuple[int, ...] = ()

    @property
    def steps(self) -> int:
        return max(self.losses, default=0)

    @property
    def best(self) -> tuple[int, dict[str, float]] | None:
        """The evaluation with the lowest loss."""
        found = [one for one in self.evals if math.isfinite(one[1].get("loss", math.nan))]
        return min(found, key=lambda one: one[1]["loss"]) if found else None

    @property
    def last(self) -> float | None:
        return self.near(self.steps)

    def near(self, step: int) -> float | None:
        """The mean training loss of the steps up to this one."""
        found = [
            self.losses[n] for n in range(step - NEAR + 1, step + 1) if math.isfinite(self.losses.get(n, math.nan))
        ]
        return sum(found) / len(found) if found and step in self.losses else None

    def at(self, step: int) -> float | None:
        """The evaluation loss after exactly so many steps."""
        return next((figures.get("loss") for n, figures in self.evals if n == step), None)


def read_run(path: str | Path, name: str = "") -> Told:
    """Raises DataError if there is no run."""
    run = RunDir.open(path)
    config = config_of(run)
    method = str(config.get("method"))
    sections = {section: keys for section, keys in config.items() if isinstance(keys, dict)}
    keys = {f"{section}.{key}": said(value) for section, found in sections.items() for key, value in found.items()}
    lines = [*run.log.lines()]
    steps = [line for line in lines if "loss" in line]
    try:
        data = run.read_json("data.json")
    except (OSError, ValueError) as e:
        raise DataError(f"{run.path / 'data.json'}: cannot be read: {e}") from None
    evals = sections.get("data", {}).get("eval") or ()
    return Told(
        name=name or run.path.resolve().name,
        keys={"method": method, **keys},
        losses={line["step"] + 1: float(line["loss"]) for line in steps},
        evals=tuple((line["step"], line["eval"]) for line in lines if isinstance(line.get("eval"), dict)),
        tokens=sum(line.get("tokens", 0) for line in steps),
        seconds=sum(line.get("seconds", 0.0) for line in steps),
        tokenizer=str(data.get("tokenizer", "")),
        files=data.get("files", {}),
        held_out=tuple(map(str, evals)),
        finished=(run.path / "model").is_dir(),
        changed=tuple(run.changed),
    )


def read_runs(paths: Sequence[str | Path]) -> list[Told]:
    """Runs with names that tell them apart: as much of the end of each path as it takes."""
    full = [Path(path).resolve().parts for path in paths]
    if len({*full}) < len(full):
        raise DataError("a run is named twice")
    size = next(n for n in range(1, max(map(len, full)) + 1) if len({parts[-n:] for parts in full}) == len(full))
    return [read_run(path, str(Path(*parts[-size:]))) for path, parts in zip(paths, full, strict=True)]


def differing(runs: Sequence[Told]) -> dict[str, list[str]]:
    """Key -> each run's value, where they are not all the same; "" where a run's method has no such key."""
    names = dict.fromkeys(key for run in runs for key in run.keys)
    found = {name: [run.keys.get(name, "") for run in runs] for name in names if name not in KEPT}
    return {name: values for name, values in found.items() if len({*values}) > 1}


def side_by_side(runs: Sequence[Told]) -> dict[int, list[float | None]]:
    """Training losses at steps that every run has done."""
    shared = min(run.steps for run in runs)
    places = sorted({max(1, round(shared * n / PLACES)) for n in range(1, PLACES + 1)}) if shared else []
    return {step: [run.near(step) for run in runs] for step in places}


def evaluated_together(runs: Sequence[Told]) -> dict[int, list[float | None]]:
    """Evaluation losses after as many steps."""
    shared = sorted(set.intersection(*({step for step, _ in run.evals} for run in runs)))
    kept = shared[:: max(1, len(shared) // PLACES)] if shared else []
    return {step: [run.at(step) for run in runs] for step in dict.fromkeys([*kept, *shared[-1:]])}


def warnings(runs: Sequence[Told]) -> list[str]:
    """What may not be compared, a sentence each."""
    found = [
        f"{run.name} was changed after step {', '.join(map(str, run.changed))}: its keys here are those it has since then."
        for run in runs
        if run.changed
    ]
    if not same_method(runs):
        found.append("The methods differ: each has a loss of its own, and none says anything about another's.")
    if not same_tokenizer(runs):
        found.append("The tokenizers differ: a token is not the same piece of text, so compare bits per byte alone.")
    if len({_hashes(run, held=False) for run in runs}) > 1:
        found.append("The training data differ: a lower training loss may be an easier text.")
    if len({_hashes(run, held=True) for run in runs}) > 1:
        found.append("The evaluation data differ: evaluations are not comparable, not even in bits per byte.")
    if len({run.keys.get("run.seed") for run in runs}) == 1 and len(runs) > 1:
        found.append("One seed each: small differences may be chance.")
    return found


def same_tokenizer(runs: Sequence[Told]) -> bool:
    return len({run.tokenizer for run in runs}) == 1


def same_method(runs: Sequence[Told]) -> bool:
    return len({run.keys["method"] for run in runs}) == 1


def to_json(runs: Sequence[Told]) -> Json:
    """All of it, for programs. What is no number is null."""
    return {
        "runs": [
            {
                "name": run.name,
                "finished": run.finished,
                "steps": run.steps,
                "tokens": run.tokens,
                "seconds": run.seconds,
                "tokens_per_second": run.tokens / run.seconds if run.seconds else None,
                "loss": run.last,
                "best": {"step": run.best[0], **_plain(run.best[1])} if run.best else None,
            }
            for run in runs
        ],
        "differing": differing(runs),
        "losses": {str(step): values for step, values in side_by_side(runs).items()},
        "evaluations": {str(step): _none(values) for step, values in evaluated_together(runs).items()},
        "warnings": warnings(runs),
    }


def _hashes(run: Told, held: bool) -> tuple[str, ...]:
    """Of the files of evaluation, or of the others; where they lie does not matter."""
    return tuple(
        sorted(
            digest
            for file, digest in run.files.items()
            if any(Path(file).is_relative_to(h) for h in run.held_out) == held
        )
    )


def _plain(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _none(values: Sequence[float | None]) -> list[float | None]:
    return [value if value is not None and math.isfinite(value) else None for value in values]
