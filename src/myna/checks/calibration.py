"""How well a judge agrees with people: computed on rows that they labelled, and kept, so that every verdict of the judge can say so."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import orjson

from myna.records import DataError
from myna.records.fields import Fields
from myna.records.whole import add


@dataclass(frozen=True, slots=True)
class Calibration:
    """On `n` rows that a person and the judge both judged; about `n_failed` more the judge came to no verdict.

    agreement   share of equal labels
    kappa       agreement beyond that of two who label at random, each as often as they do (Cohen 1960); None where both always say
                the same one label
    """

    n: int
    n_failed: int
    agreement: float
    kappa: float | None
    at: float = 0.0


def calibrate(pairs: Iterable[tuple[str, str | None]]) -> Calibration:
    """From (what people said, what the judge said or None where it came to no verdict). Raises DataError where there is no pair."""
    found = [*pairs]
    both = [(person, judge) for person, judge in found if judge is not None]
    if not both:
        raise DataError("there is no row that both a person and the judge judged")
    n = len(both)
    agreement = sum(person == judge for person, judge in both) / n
    people, judges = Counter(person for person, _ in both), Counter(judge for _, judge in both)
    chance = sum(people[label] * judges[label] for label in people) / n**2
    kappa = None if chance == 1 else (agreement - chance) / (1 - chance)
    return Calibration(n, len(found) - n, agreement, kappa, time.time())


def key(model: str, rubric: str, labels: Sequence[str]) -> str:
    """What a calibration is of: another model, rubric or label is another judge."""
    return hashlib.sha256(orjson.dumps([model, rubric, [*labels]])).hexdigest()


def file() -> Path:
    """judges.json in $XDG_DATA_HOME/myna, else in ~/.local/share/myna."""
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "myna" / "judges.json"


def read(key: str) -> Calibration | None:
    """What is kept of a judge; None where nobody compared it, or the file is no such file."""
    path = file()
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        return None
    return _all(path, stamp).get(key)


def write(key: str, found: Calibration) -> Path:
    """Keep it beside those of other judges; the file. Raises DataError where it cannot be kept."""
    path = file()
    add(path, key, asdict(found))
    return path


def said(key: str) -> str:
    """What a verdict's reason says of its judge."""
    if (found := read(key)) is None:
        return "uncalibrated"
    kappa = "" if found.kappa is None else f", kappa {found.kappa:.2f}"
    return f"agrees with people on {found.agreement:.0%} of {found.n} rows{kappa}"


@lru_cache(4)
def _all(path: Path, stamp: int) -> dict[str, Calibration]:
    try:
        rows = orjson.loads(path.read_bytes())
        return {name: _from(row) for name, row in rows.items()}
    except (OSError, orjson.JSONDecodeError, AttributeError, DataError):
        return {}


def _from(row: object) -> Calibration:
    f = Fields(row)
    return Calibration(
        f.take("n", int),
        f.take("n_failed", int),
        float(f.take("agreement", int, float)),
        f.take("kappa", int, float, default=None),
        float(f.take("at", int, float, default=0)),
    )
