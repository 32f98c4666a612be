"""The loop's laws: what is divided, what is clipped, and that a run which was killed is the run that was not."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import config, loop, method, trainee

from myna.data import collate
from myna.records import MynaError
from myna.train import checkpoint
from myna.train.config import Optim, Run
from myna.train.loop import Loop
from myna.train.method import Tensors

RUN = Run(steps=12, rows=4, evaluate=4, save=4)


def lines(path: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in found]


def weights(of: Loop) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in of.model.named_parameters()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_learns(tmp_path: Path) -> None:
    of = loop(tmp_path, config(run=Run(steps=60, rows=8, evaluate=30)))
    assert of.train()
    losses = [line["loss"] for line in lines(tmp_path) if "loss" in line]
    assert losses[0] == pytest.approx(3.6, abs=0.4)  # log 37
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "optim", [Optim(lr=1e-2, warmup=2, ema=0.9), Optim(kind="muon", lr=1e-2, warmup=2)], ids=lambda o: o.kind
)
@pytest.mark.parametrize("stop", [1, 4, 7, 11])
def test_killed_and_resumed_is_never_stopped(tmp_path: Path, optim: Optim, stop: int) -> None:
    """Bit for bit: weights, moments, running mean and log."""
    told = config(optim=optim, run=replace(RUN, save=3))
    whole = loop(tmp_path / "whole", told)
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole.train()

    class Killed(Exception):
        pass

    killed = loop(tmp_path / "cut", told)
    step = killed._step

    def until() -> dict[str, Any]:
        if killed.state.step == stop:
            raise Killed
        return step()

    killed._step = until  # type: ignore[method-assign]
    with pytest.raises(Killed):
        killed.train()
    again = loop(tmp_path / "cut", told)
    if found := checkpoint.latest(tmp_path / "cut"):
        again.resume(*found[:2])
    else:
        again.run.log.cut(0)
    assert again.state.step == (stop // 3) * 3 or again.state.step == (stop // 4) * 4
    again.train()
    assert same(weights(again), weights(whole))
    moments = [checkpoint.moments_of(of.model, of.optimizers) for of in (again, whole)]
    assert moments[0]
    assert same(*moments)
    assert same(again.average, whole.average)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_another_seed_is_another_run_and_the_same_the_same(tmp_path: Path) -> None:
    runs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        of = loop(tmp_path / name, config(run=replace(RUN, seed=seed)))
        of.train()
        runs.append(weights(of))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_change_nothing_though_their_targets_are_uneven(tmp_path: Path, micro: int) -> None:
    made = []
    for size in (0, micro):
        of = loop(
            tmp_path, config(run=replace(RUN, steps=3, micro=size, evaluate=0, save=0), optim=Optim(lr=1e-3, clip=0))
        )
        line = of._step()
        made.append((line["loss"], line["grad_norm"], line["supervised"], weights(of)))
    assert made[0][0] == pytest.approx(made[1][0], abs=1e-6)
    assert made[0][1] == pytest.approx(made[1][1], rel=1e-5)
    assert made[0][2] == made[1][2]


def test_the_loss_is_the_mean_over_what_is_supervised(tmp_path: Path) -> None:
    of = loop(tmp_path, config())
    rows = of.method.rows(0)
    batch = Tensors.of(collate(rows, of.method.context), torch.device("cpu"))
    with torch.no_grad():
        logits = of.trainee.decoder.logits(of.trainee.decoder(batch.ids, batch.positions, batch.memory))
    told = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
    assert of._step()["loss"] == pytest.approx(float(told), abs=1e-6)


def test_a_gradient_beyond_the_clip_is_scaled_to_it(tmp_path: Path) -> None:
    of = loop(tmp_path, config(optim=Optim(lr=0.0, clip=0.01)))
    seen = []
    of.optimizers[0].register_step_pre_hook(
        lambda *_: seen.append(float(torch.nn.utils.get_total_norm([p.grad for p in of.trained.values()])))
    )
    assert of._step()["grad_norm"] > 0.1
    assert seen[0] == pytest.approx(0.01, rel=1e-4)


def test_a_step_that_is_not_a_number_changes_nothing_and_five_end_the_run(tmp_path: Path) -> None:
    of = loop(tmp_path, config())
    loss = of.method.compute  # type: ignore[attr-defined]
    bad = {2, 4, 5, 6, 7, 8}

    def broken(batch: Tensors) -> Any:
        found = loss(batch)
        return replace(found, loss=found.loss * float("nan")) if of.state.step in bad else found

    object.__setattr__(of.method, "compute", broken)
    for _ in range(2):
        of._step()
    before = weights(of)
    of._step()
    assert same(before, weights(of))
    assert of.state.skipped == 1
    of._step()
    assert not same(before, weights(of))
    with pytest.raises(MynaError, match="5 steps in a row, the last step 8"):
        of.train()
    assert sum("skipped" in line.get("event", "") for line in lines(tmp_path)) == 6


def test_evaluating_changes_neither_weights_nor_training(tmp_path: Path) -> None:
    runs = []
    for name, every in (("often", 1), ("never", 0)):
        (tmp_path / name).mkdir()
        of = loop(tmp_path / name, config(run=replace(RUN, evaluate=every)))
        of.train()
        runs.append(weights(of))
    assert same(*runs)


def test_patience_ends_a_run_that_no_longer_gets_better(tmp_path: Path) -> None:
    of = loop(tmp_path, config(optim=Optim(lr=0.0), run=replace(RUN, evaluate=1, patience=2)))
    assert not of.train()
    assert of.state.step == 3
    assert "stopped: no better" in [line["event"] for line in of.run.log.lines() if "event" in line][-1]
    before = weights(of)
    assert not of.train()  # as a run that is resumed: it goes no further
    assert of.state.step == 3
    assert all(torch.equal(a, b) for a, b in zip(before.values(), weights(of).values(), strict=True))


def test_the_running_mean_is_what_is_evaluated(tmp_path: Path) -> None:
    of = loop(tmp_path, config(optim=Optim(lr=1e-2, ema=0.5)))
    first = weights(of)
    of._step()
    now = weights(of)
    with of.averaged():
        for name, mean in weights(of).items():
            torch.testing.assert_close(mean, (first[name] + now[name]) / 2)
    assert same(now, weights(of))


def test_every_trained_weight_has_a_gradient_after_one_step(tmp_path: Path) -> None:
    of = loop(tmp_path, config())
    seen: list[float] = []
    of.optimizers[0].register_step_pre_hook(
        lambda *_: seen.extend(0.0 if p.grad is None else float(p.grad.norm()) for p in of.trained.values())
    )
    of._step()
    assert len(seen) == len(of.trained)
    assert min(seen) > 0
    assert method(trainee(), config()).steps == 12
