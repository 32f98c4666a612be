"""recipes/tiny_life, lived: what a user copies must run, and teach."""

import subprocess
import sys
from pathlib import Path

import pytest

LIFE = Path(__file__).parents[1] / "recipes/tiny_life"


def test_the_world_asks_only_what_can_be_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examination's facts were read, its questions never asked."""
    monkeypatch.syspath_prepend(str(LIFE))
    import json

    import world

    world.write(tmp_path, 3000)
    rows = {
        name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()] for name in ("texts", "chats", "held")
    }
    read = " ".join(row["text"] for row in rows["texts"])
    asked = {row["messages"][0]["content"] for row in rows["chats"]}
    assert len(rows["held"]) == 36
    for row in rows["held"]:
        question, answer = (message["content"] for message in row["messages"])
        assert question not in asked
        assert answer.removesuffix(".") in read


@pytest.mark.slow
def test_a_life_from_words_to_manners(tmp_path: Path) -> None:
    """Two minutes on two cores. Thirty-six questions that nobody asked before; by chance one would be right."""
    done = subprocess.run(
        [sys.executable, str(LIFE / "life.py"), str(tmp_path / "life")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [words for line in done.stdout.splitlines() if (words := line.split())[1:2] == ["right"]]
    right = {stage: int(share.rstrip("%")) for stage, _, share, *_ in lines}
    kind = {stage: int(share.rstrip("%")) for stage, *_, share in lines}
    assert right["read"] <= 10
    assert right["answer"] >= 30
    assert right["liked"] >= right["answer"] - 15
    assert kind["liked"] >= kind["answer"] + 30
    for stage in ("read", "answer", "liked"):
        assert (tmp_path / "life" / stage / "report.html").is_file()
