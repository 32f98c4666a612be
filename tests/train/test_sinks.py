"""The log's lines elsewhere: what stand-ins of the services are told, and tensorboard for real."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import config, loop

from myna.records import DataError
from myna.train.config import Run
from myna.train.run import begin, configure
from myna.train.sinks import Sinks, check

LOG = [
    {"step": 0, "loss": 2.0, "lr": 0.1, "grad_norm": math.inf},
    {"step": 0, "event": "skipped: the gradient's norm is inf", "rows": ["a:1"]},
    {"step": 1, "eval": {"loss": 1.5, "bits_per_byte": 0.5}},
]


class Service(ModuleType):
    """Stands in for wandb and trackio; breaks at the call `breaks`."""

    def __init__(self, name: str, breaks: str = ""):
        super().__init__(name)
        self.breaks, self.heard = breaks, list[tuple[str, Any, Any]]()

    def _hear(self, what: str, *told: Any) -> None:
        if what == self.breaks:
            raise ConnectionError("nobody there")
        self.heard.append((what, *told))  # type: ignore[arg-type]

    def init(self, **told: Any) -> None:
        self._hear("init", told, None)

    def log(self, figures: dict[str, float], step: int) -> None:
        self._hear("log", figures, step)

    def finish(self) -> None:
        self._hear("finish", None, None)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_services_hear_every_number_at_its_step(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    service = Service(name)
    monkeypatch.setitem(sys.modules, name, service)
    sinks = Sinks([name], tmp_path / "mine", {"optim": {"lr": 0.1}})
    for line in LOG:
        sinks(line)
    sinks.close()
    begun, *logged, ended = service.heard
    assert begun[1]["name"] == "mine"
    assert begun[1]["resume"] == "allow"
    assert begun[1]["config"] == {"optim": {"lr": 0.1}}
    assert logged == [
        ("log", {"train/loss": 2.0, "train/lr": 0.1}, 1),
        ("log", {"eval/loss": 1.5, "eval/bits_per_byte": 0.5}, 1),
    ]
    assert ended[0] == "finish"


def test_a_service_that_fails_is_told_once_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service, well = Service("wandb", breaks="log"), Service("trackio")
    monkeypatch.setitem(sys.modules, "wandb", service)
    monkeypatch.setitem(sys.modules, "trackio", well)
    running = loop(tmp_path, config())
    running.sinks = Sinks(["wandb", "trackio"], tmp_path, {})
    assert running.train()
    assert (
        capsys.readouterr().err.count("wandb fails and is left alone; the run goes on: ConnectionError: nobody there")
        == 1
    )
    steps = [line["step"] for line in running.run.log.lines() if "loss" in line]
    assert steps == [*range(12)]
    assert [step for what, _, step in well.heard if what == "log"] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 12]


def test_a_service_that_does_not_open_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = Service("trackio")
    monkeypatch.setitem(sys.modules, "trackio", first)
    monkeypatch.setitem(sys.modules, "wandb", Service("wandb", breaks="init"))
    with pytest.raises(DataError, match="wandb does not open: ConnectionError: nobody there"):
        Sinks(["trackio", "wandb"], tmp_path, {})
    assert first.heard[-1][0] == "finish"


def test_what_is_not_there_is_said_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # what Python has for a package that cannot be imported
    flags = "--model.depth 1 --model.tokenizer nowhere --data.train nothing".split()
    with pytest.raises(DataError, match=r'wandb is not installed.*pip install "myna\[wandb\]"'):
        begin(configure("pretrain", None, [*flags, "--run.sinks", "wandb", "--run.out", str(tmp_path / "run")]))
    with pytest.raises(DataError, match="'mlflow' is none of tensorboard, wandb, trackio"):
        check(["mlflow"])


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    running = loop(tmp_path, config(run=Run(steps=3, rows=4)))
    running.sinks = Sinks(["tensorboard"], tmp_path, {})
    running.train()
    running.sinks.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, found = file.read_bytes(), {}
    while data:  # a record: its length (8 bytes), a checksum (4), the event, a checksum (4)
        size = int.from_bytes(data[:8], "little")
        event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for line in lines:
        if "lr" in line:
            assert found["train/loss", line["step"] + 1] == pytest.approx(line["loss"])
    assert found["eval/loss", 3] == pytest.approx(lines[-1]["eval"]["loss"])
