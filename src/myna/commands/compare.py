"""myna compare: training runs side by side."""

from collections.abc import Sequence
from datetime import timedelta
from json import dumps
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from myna.commands.options import printable
from myna.records import DataError
from myna.train.compare import (
    Told,
    differing,
    evaluated_together,
    read_runs,
    same_method,
    same_tokenizer,
    side_by_side,
    to_json,
    warnings,
)


def run(*runs: Path, json: bool = False) -> None:
    """What training runs were told differently, what came of it at equal steps and at the end, and what may not be compared.

    Parameters
    ----------
    runs
        Run directories, two or more.
    json
        Everything as JSON, for programs.
    """
    if len(runs) < 2:
        raise DataError("compare which runs? myna compare RUN RUN")
    told = read_runs(runs)
    if json:
        print(dumps(to_json(told), indent=1, ensure_ascii=False))
        return
    table = Table(Column(""), *(Column(printable(one.name)) for one in told), box=None, header_style="bold")
    for title, rows in _sections(told):
        table.add_row(title, style="bold", end_section=False)
        for name, values in rows.items():
            table.add_row(printable(f"  {name}"), *map(printable, values))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for sentence in warnings(told):
        console.print(f"\n{sentence}", style="yellow", end="")
    console.print()


def _sections(told: Sequence[Told]) -> list[tuple[str, dict[str, list[str]]]]:
    """Title -> row -> a value for each run."""
    found = [
        ("set differently", differing(told)),
        ("training loss after so many steps", {f"{n:,}": [*map(_said, row)] for n, row in side_by_side(told).items()}),
        ("evaluation loss", {f"{n:,}": [*map(_said, row)] for n, row in evaluated_together(told).items()}),
        ("in all", _totals(told)),
    ]
    if not same_tokenizer(told) or not same_method(told):  # a loss says nothing of another kind of loss
        found = [found[0], found[3]]
    return [(title, rows) for title, rows in found if rows]


def _totals(told: Sequence[Told]) -> dict[str, list[str]]:
    rows = {
        "steps": [f"{one.steps:,}{'' if one.finished else ', not finished'}" for one in told],
        "tokens": [f"{one.tokens:,}" for one in told],
        "time of steps": [str(timedelta(seconds=round(one.seconds))) for one in told],
        "tokens a second": [f"{one.tokens / one.seconds:,.0f}" if one.seconds else "" for one in told],
    }
    if same_tokenizer(told):
        rows["training loss at the end"] = [_said(one.last) for one in told]
    names = dict.fromkeys(name for one in told if one.best for name in one.best[1] if name != "bytes_per_token")
    for name in names if same_tokenizer(told) else [n for n in names if n == "bits_per_byte"]:
        rows[f"best evaluation: {name.replace('_', ' ')}"] = [_best(one, name) for one in told]
    return rows


def _best(one: Told, name: str) -> str:
    return f"{_said(one.best[1].get(name))} at {one.best[0]:,}" if one.best else ""


def _said(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
