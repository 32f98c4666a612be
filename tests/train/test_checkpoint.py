"""A checkpoint is there whole or not at all; a damaged one is known by name; the one before it is taken."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from myna.records import DataError, MynaError
from myna.train import checkpoint
from myna.train.checkpoint import State

WEIGHTS = {"a.weight": torch.randn(3, 4), "b": torch.tensor(2.5)}
MOMENTS = {"a.weight:exp_avg": torch.randn(3, 4), "a.weight:step": torch.tensor(7.0)}


def save(run: Path, step: int, best: int = 0) -> Path:
    return checkpoint.save(run, State(step=step, tokens=step * 10, best_step=best), WEIGHTS, MOMENTS, keep=2)


def names(run: Path) -> list[str]:
    return [place.name for place in checkpoint.steps(run)]


def test_written_and_read_is_the_same(tmp_path: Path) -> None:
    place = save(tmp_path, 3)
    found = checkpoint.latest(tmp_path)
    assert found == (State(step=3, tokens=30), place, [])
    for read, wrote in ((checkpoint.read_weights(place), WEIGHTS), (checkpoint.read_moments(place), MOMENTS)):
        assert read.keys() == wrote.keys()
        assert all(torch.equal(read[name], wrote[name]) for name in wrote)


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = save(tmp_path / "a", 3), save(tmp_path / "b", 3)
    for file in ("weights.safetensors", "optimizer.safetensors", "trainer.json"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_the_oldest_go_but_never_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(tmp_path, step, best=1)
    assert names(tmp_path) == ["step-000001", "step-000003", "step-000004"]
    save(tmp_path, 5, best=5)
    assert names(tmp_path) == ["step-000004", "step-000005"]


def cut(place: Path) -> None:
    file = place / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-5])


def flip(place: Path) -> None:
    file = place / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def lose(place: Path) -> None:
    (place / "weights.safetensors").unlink()


def garble(place: Path) -> None:
    (place / "trainer.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "weights.safetensors is cut short"),
        (flip, "optimizer.safetensors is not what was written"),
        (lose, "weights.safetensors is cut short or missing"),
        (garble, "trainer.json cannot be read"),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_it_taken(tmp_path: Path, damage: Any, says: str) -> None:
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    damage(second)
    found = checkpoint.latest(tmp_path)
    assert found
    assert found[1] == first
    assert says in found[2][0]
    damage(first)
    with pytest.raises(DataError, match="no checkpoint is whole"):
        checkpoint.latest(tmp_path)


def test_a_full_disk_leaves_the_last_good_one_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_safetensors", full)
    with pytest.raises(MynaError, match=r"No space left on device.*myna train --resume"):
        save(tmp_path, 2)
    assert names(tmp_path) == ["step-000001"]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000001"]
    assert checkpoint.latest(tmp_path)


def test_moments_of_another_model_are_refused() -> None:
    module = torch.nn.Linear(2, 2)
    with pytest.raises(DataError, match=r"a moment of a\.weight, which this run does not train"):
        checkpoint.set_moments(module, [torch.optim.AdamW(module.parameters())], MOMENTS)


def test_what_a_killed_save_left_is_no_checkpoint_and_goes_with_the_next(tmp_path: Path) -> None:
    first = save(tmp_path, 1)
    left = first.rename(first.with_name("step-000002.partial"))
    assert checkpoint.latest(tmp_path) is None
    save(tmp_path, 3)
    assert not left.exists()
    assert names(tmp_path) == ["step-000003"]
