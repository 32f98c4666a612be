"""ORPO: TRL's odds, closed forms, and a run that learns without a reference."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from given import batch_of, given, pairs
from tiny import trainee

from myna.train.loop import Loop
from myna.train.methods import orpo
from myna.train.methods.orpo import Options, log_odds
from myna.train.parallel import World
from myna.train.preference import answer_log_probs
from myna.train.rundir import RunDir


def test_odds_are_trls() -> None:
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected = torch.tensor([-0.3, -2.0, -1e-4, -9.0]), torch.tensor([-1.0, -0.7, -5.0, -0.01])
    trainer = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device=torch.device("cpu")))
    theirs = ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)[0]
    mine = 0.3 * torch.nn.functional.logsigmoid(log_odds(chosen) - log_odds(rejected))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("log_p", [-20.0, -5.0, -math.log(2), -0.1, -3e-6])
def test_odds_are_exact_near_both_ends(log_p: float) -> None:
    assert float(log_odds(torch.tensor(log_p))) == pytest.approx(log_p - math.log(-math.expm1(log_p)), rel=1e-5)


def test_odds_of_a_sure_answer_and_their_gradient_are_finite() -> None:
    sure = torch.tensor([0.0, -200.0], requires_grad=True)
    log_odds(sure).sum().backward()
    assert torch.isfinite(log_odds(sure)).all()
    assert torch.isfinite(sure.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_loss_is_likelihood_and_odds(weight: float) -> None:
    batch = batch_of(pairs(5))
    of = trainee()
    with torch.no_grad():
        found, tokens = answer_log_probs(of.decoder, batch)
    total = 0.0
    for i in range(5):
        won, lost = (math.exp(found[2 * i + side] / tokens[2 * i + side]) for side in (0, 1))
        ratio = (won / (1 - won)) / (lost / (1 - lost))
        total += -math.log(won) - weight * math.log(1 / (1 + 1 / ratio))
    assert orpo.odds_loss(of, Options(weight=weight), batch).loss.item() == pytest.approx(total, rel=1e-4)


def test_a_run_learns_both(tmp_path: Path) -> None:
    setup = given(tmp_path, Options(weight=0.5), pairs(40), pairs(20, seed=1), steps=24)
    of = Loop(setup.trainee, orpo.prepare(setup), setup.config, RunDir(tmp_path), World())
    assert of.train()
    evals = [line["eval"] for line in of.run.log.lines() if "eval" in line]
    assert evals[-1]["accuracy"] > 0.9
    assert evals[-1]["chosen"] > evals[0]["chosen"]
    assert not (tmp_path / "reference.npz").exists()
