"""Runs side by side: what differs, losses at equal steps, and what may not be compared."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from myna.commands.compare import run as compare
from myna.records import DataError
from myna.train.compare import differing, evaluated_together, read_run, read_runs, side_by_side, to_json, warnings
from myna.train.rundir import RunDir


def made(path: Path, *, steps: int = 20, slope: float = 0.1, method: str = "sft", **data: Any) -> Path:
    """A run whose loss after n steps is 5 - slope * n, evaluated at every fifth step."""
    run = RunDir(path)
    path.mkdir(parents=True)
    config = f"method: {method}\ndata:\n  eval: [held]\noptim:\n  lr: {slope}\n  beta1: 0.9\nrun:\n  out: {path}\n  seed: 0\n"
    known = {"tokenizer": "one", "files": {"train.jsonl": "a", "held/rows.jsonl": "b"}, "audits": []} | data
    run.write("config.yaml", config)
    run.write("data.json", json.dumps(known))
    for n in range(steps):
        run.log.append({"step": n, "loss": 5 - slope * (n + 1), "tokens": 100, "seconds": 0.5})
        if n % 5 == 4:
            run.log.append({"step": n + 1, "eval": {"loss": 4 - slope * (n + 1), "bits_per_byte": 2.0}})
    return path


def test_losses_stand_side_by_side_at_steps_that_all_have_done(tmp_path: Path) -> None:
    runs = read_runs([made(tmp_path / "a"), made(tmp_path / "b", steps=10, slope=0.2)])
    assert [*side_by_side(runs)] == [2, 4, 6, 8, 10]
    assert side_by_side(runs)[4] == pytest.approx(
        [5 - 0.1 * 2.5, 5 - 0.2 * 2.5]
    )  # the mean of the steps so far, at most ten
    assert side_by_side(runs)[10] == pytest.approx([5 - 0.1 * 5.5, 5 - 0.2 * 5.5])
    assert evaluated_together(runs) == {5: pytest.approx([3.5, 3.0]), 10: pytest.approx([3.0, 2.0])}


def test_only_keys_that_differ_and_matter_are_told(tmp_path: Path) -> None:
    runs = read_runs([made(tmp_path / "a"), made(tmp_path / "b", slope=0.2)])
    assert differing(runs) == {"optim.lr": ["0.1", "0.2"]}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"tokenizer": "two"}, "bits per byte alone"),
        ({"files": {"train.jsonl": "other", "held/rows.jsonl": "b"}}, "training data differ"),
        ({"files": {"train.jsonl": "a", "held/rows.jsonl": "other"}}, "evaluation data differ"),
        ({"method": "dpo"}, "methods differ"),
    ],
)
def test_what_may_not_be_compared_is_said(tmp_path: Path, other: dict[str, Any], says: str) -> None:
    runs = read_runs([made(tmp_path / "a"), made(tmp_path / "b", **other)])
    found = warnings(runs)
    assert sum(says in sentence for sentence in found) == 1
    assert len(found) == 2  # and that there is one seed


def test_where_a_file_lies_does_not_make_it_another(tmp_path: Path) -> None:
    moved = {"elsewhere/train.jsonl": "a", "held/rows.jsonl": "b"}
    assert not [
        w for w in warnings(read_runs([made(tmp_path / "a"), made(tmp_path / "b", files=moved)])) if "data" in w
    ]


def test_losses_of_other_tokens_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = made(tmp_path / "a"), made(tmp_path / "b", tokenizer="two")
    compare(one, other)
    said = capsys.readouterr().out
    assert "best evaluation: bits per byte" in said
    assert "evaluation: loss" not in said
    assert "training loss" not in said
    compare(one, made(tmp_path / "c"))
    said = capsys.readouterr().out
    assert "3.0000 at 20" not in said
    assert "2.0000 at 20" in said  # the best evaluation
    assert "20, not finished" in said
    assert "200" in said  # tokens a second


def test_programs_are_told_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = made(tmp_path / "x/a"), made(tmp_path / "y/a", slope=math.nan)
    compare(one, other, json=True)
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == to_json(read_runs([one, other]))
    assert [run["name"] for run in found["runs"]] == ["x/a", "y/a"]
    assert found["runs"][0] | {"loss": 0} == {
        "name": "x/a", "finished": False, "steps": 20, "tokens": 2000, "seconds": 10.0, "tokens_per_second": 200.0, "loss": 0,
        "best": {"step": 20, "loss": 2.0, "bits_per_byte": 2.0},
    }  # fmt: skip
    assert found["runs"][1]["best"] is None


def test_what_is_no_pair_of_runs_is_an_error(tmp_path: Path) -> None:
    one = made(tmp_path / "a")
    with pytest.raises(DataError, match="which runs"):
        compare(one)
    with pytest.raises(DataError, match="named twice"):
        compare(one, tmp_path / "." / "a")
    with pytest.raises(DataError, match="holds no run"):
        compare(one, tmp_path)
    (one / "data.json").write_text("{")
    with pytest.raises(DataError, match=r"data\.json: cannot be read"):
        read_run(one)
