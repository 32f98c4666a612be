"""kill -9 at every point of a flow of six steps with writes: nothing is done twice, and every run ends or asks."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent / "killed_flow.py"
VALUE = "2 mails to 王; 2 mails to Li"


def killed(folder: Path, *how: object) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, HERE, folder, *map(str, how)], capture_output=True, text=True, encoding="utf-8", timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, *rest = (json.loads(line) for line in done.stdout.splitlines())
    assert first["points"] > 60
    return rest


def hold(runs: list[dict[str, Any]]) -> None:
    for one in runs:
        assert (one["outcome"], one["value"]) == ("done", VALUE), one
        assert sorted(line.rsplit(" ", 1)[0] for line in one["writes"]) == ["book", "mail Li", "mail 王", "order 问"], (
            one
        )
        assert one["twice"] == [], one
        assert max(Counter(one["reads"]).values()) <= 1 + len(one["kills"]), one


def test_killed_at_points_of_its_journal_it_does_nothing_twice(folder: Path) -> None:
    hold(killed(folder, 5))


@pytest.mark.slow
def test_killed_at_every_point_of_its_journal_it_does_nothing_twice(folder: Path) -> None:
    runs = killed(folder, 1)
    hold(runs)
    asked = [one for one in runs if one["asked"]]
    assert {path for one in asked for path in one["asked"]} == {"order", "mail", "mail#2"}
    assert len(asked) < len(runs) / 2, "most kills need nobody"


@pytest.mark.slow
def test_killed_again_while_it_is_resumed_it_does_nothing_twice(folder: Path) -> None:
    hold(killed(folder, 1000, "pairs"))
