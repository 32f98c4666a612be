"""myna plan: figures before anything starts, errors that say what to change."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from myna.commands import plan
from myna.commands.plan import Machine
from myna.records import DataError, MynaError
from myna.train.config import Lora
from myna.train.plan import Adapters, Profile, Work
from myna.train.profile import find_profile, read_profile
from myna.train.shape import shape_spec

PROFILE = Profile(machine="NVIDIA X1", precision="float32", flops=1e11, bandwidth=1e10, layer=1e-6, rest=1e-6, update=1e-9,
                  base=300 << 20, slack=2.0, memory=16 << 30)  # fmt: skip


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    (tmp_path / "profile.json").write_text(json.dumps(asdict(PROFILE)))
    return tmp_path / "profile.json"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("MYNA_HOME", str(tmp_path / "home"))


def test_a_plan_says_what_a_run_takes(profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prices.json").write_text('{"nvidia x1": 3.6}')
    plan.run(depth=2, vocab=512, tokens="100M", machine=Machine(profile=profile, price=str(tmp_path / "prices.json")))
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    spec = shape_spec(2, vocab=512, context=512)
    assert rows["parameters"].startswith(f"{spec.parameters():,}; {512 * 128 / spec.parameters():.0%}")
    assert rows["steps"].startswith("12,208 of 16 rows of 512 tokens")
    assert rows["time"].startswith("5.1 min")
    assert rows["money"].startswith("0.31 at 3.6 an hour")
    assert rows["fits"].startswith("yes")


def test_what_does_not_fit_is_an_error_with_three_ways_out(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MynaError, match="does not fit"):
        plan.run(depth=12, context=1024, machine=Machine(profile=profile, memory="4G"))
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("To fit")]
    assert len(told) == 3
    assert "--run.micro" in told[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 0}, "--depth N"),
        ({"depth": 2, "model": "x"}, "--depth N"),
        ({"tokens": "many"}, "--tokens many"),
        ({"machine": {"memory": "-1"}}, "--memory -1"),
        ({"machine": {"price": "nowhere.json"}}, "nowhere.json"),
        ({"steps": plan.Steps(precision="bfloat16")}, "measured with float32"),
        ({"steps": plan.Steps(micro=99)}, "only 16 rows"),
        ({"lora": Lora(rank=8)}, "beside a model that there is"),
        ({"lora": Lora(base="nf4")}, r"lora\.base: nothing is adapted"),
        ({"lora": Lora(start="runs/a/model", rank=4)}, r"lora\.rank: .* has its own"),
    ],
)
def test_what_cannot_be_planned_is_named(change: dict[str, Any], words: str, profile: Path) -> None:
    machine = Machine(profile=profile, **change.get("machine", {}))
    with pytest.raises(MynaError, match=words):
        plan.run(**{"depth": 2} | change | {"machine": machine})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "{}", "[1]", json.dumps(asdict(PROFILE) | {"layer": 0})])
def test_a_profile_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DataError, match=r"bad\.json: no machine profile"):
        read_profile(tmp_path / "bad.json")


def test_a_machine_is_measured_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myna.train.profile.ROUNDS", 1)
    work = Work(spec=shape_spec(2, vocab=300, context=32), context=32, tokens=1000, rows=2, micro=2)
    first, measured = find_profile(work)
    assert measured
    assert min(first.flops, first.bandwidth, first.layer, first.rest, first.update) > 0
    again, measured = find_profile(work)
    assert not measured
    assert again.layer == first.layer
    assert find_profile(work, again=True)[1]
    other = Work(spec=shape_spec(3, vocab=300, context=32), context=32, tokens=1000, rows=2, micro=2)
    assert find_profile(other)[1]
    last = Lora(rank=2, targets=("model.layers.1.mlp.*",))  # a layer that what is timed has not
    adapters = Adapters(lora=last, precision="float32", trained=1, inner=6, frozen=1, decoded=0)
    assert find_profile(replace(work, adapters=adapters))[1]
