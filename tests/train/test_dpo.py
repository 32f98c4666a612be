"""DPO and its variants: TRL's values on the same log-probabilities, closed forms, laws, and a run that is killed and resumed."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from given import batch_of, given, pairs, trl_loss
from tiny import CONTEXT, config, trainee
from torch import Tensor

from myna.data import Listed
from myna.data.pack import pack
from myna.model import Causal
from myna.records import DataError
from myna.train import checkpoint
from myna.train import reference as of_reference
from myna.train.config import Lora, Run
from myna.train.loop import Loop
from myna.train.methods import dpo
from myna.train.methods.dpo import LOSSES, Options
from myna.train.parallel import World
from myna.train.peft import adapt
from myna.train.reference import Referenced, log_probs_now
from myna.train.rundir import RunDir

KINDS = list(LOSSES)


def loss_of(log_probs: Tensor, references: Tensor, tokens: Tensor, options: Options, monkeypatch: Any) -> Any:
    """preference_loss where the model gives these log-probabilities [chosen..., rejected...]."""
    paired = lambda values: values.view(2, -1).T.reshape(-1)  # noqa: E731
    monkeypatch.setattr(dpo, "answer_log_probs", lambda *_: (paired(log_probs), paired(tokens)))
    batch = batch_of(pairs(len(log_probs) // 2))
    object.__setattr__(batch, "facts", {"reference": paired(references)})
    return dpo.preference_loss(trainee(), options, batch)


def some(seed: int = 0, count: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    numbers = [-20 * torch.rand(2 * count, generator=drawn) - 0.1 for _ in range(2)]
    return numbers[0], numbers[1], torch.randint(1, 9, (2 * count,), generator=drawn).float()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        (Options(beta=0.3), {"loss_types": ["sigmoid"], "beta": 0.3}),
        (Options(kind="robust", smoothing=0.2), {"loss_types": ["robust"], "label_smoothing": 0.2}),
        (Options(kind="hinge", beta=0.05), {"loss_types": ["hinge"], "beta": 0.05}),
        (Options(kind="ipo", beta=0.4), {"loss_types": ["ipo"], "beta": 0.4}),
    ],
    ids=lambda o: getattr(o, "kind", ""),
)
def test_losses_are_trls(options: Options, theirs: dict[str, Any], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import DPOTrainer

    found = loss_of(*some(seed), options, monkeypatch)
    assert float(found.loss) / found.units == pytest.approx(trl_loss(DPOTrainer, *some(seed), **theirs), rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_smoothed_and_reference_free_losses_are_trls(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from trl.experimental.cpo import CPOTrainer

    def cpo(values: Tensor, **settings: Any) -> float:
        accelerator = SimpleNamespace(device=torch.device("cpu"))
        trainer = SimpleNamespace(accelerator=accelerator, alpha=0.0, **settings)
        return float(CPOTrainer.cpo_loss(trainer, *values.chunk(2))[0].mean())

    log_probs, references, tokens = some(seed)
    found = loss_of(log_probs, references, tokens, Options(beta=0.2, smoothing=0.3), monkeypatch)
    theirs = cpo(log_probs - references, beta=0.2, loss_type="sigmoid", label_smoothing=0.3)
    assert float(found.loss) / found.units == pytest.approx(theirs, rel=1e-5)
    found = loss_of(log_probs, references, tokens, Options(kind="simpo", beta=2.0, gamma=0.7), monkeypatch)
    theirs = cpo(log_probs / tokens, beta=2.0, loss_type="simpo", simpo_gamma=0.7, label_smoothing=0.0)
    assert float(found.loss) / found.units == pytest.approx(theirs, rel=1e-5)


def test_robust_without_wrong_labels_is_sigmoid() -> None:
    h = torch.linspace(-9, 9, 7)
    torch.testing.assert_close(LOSSES["robust"](h, Options()), LOSSES["sigmoid"](h, Options()))


@pytest.mark.parametrize(
    ("options", "first"),
    [
        (Options(beta=0.3), math.log(2)),
        (Options(smoothing=0.2), math.log(2)),
        (Options(kind="robust", smoothing=0.2), math.log(2)),
        (Options(kind="hinge"), 1.0),
        (Options(kind="ipo", beta=0.3), 1 / (4 * 0.3**2)),
    ],
    ids=lambda o: getattr(o, "kind", ""),
)
def test_the_first_loss_is_known(tmp_path: Path, options: Options, first: float) -> None:
    """The model is its own reference then."""
    setup = given(tmp_path, options, pairs(20), pairs(4, seed=1), steps=12)
    method = dpo.prepare(setup)
    line = Loop(setup.trainee, method, setup.config, RunDir(tmp_path), World())._step()
    assert line["loss"] == pytest.approx(first, abs=1e-5)
    assert line["margin"] == pytest.approx(0, abs=1e-5)
    assert line["kl"] == pytest.approx(0, abs=1e-5)
    assert line["chosen"] < -1


def moved(of: Any, seed: int = 5) -> Any:
    """The trainee after some learning, more or less."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in of.module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=drawn))
    return of


def referenced(examples: Listed) -> Referenced:
    return Referenced(examples, log_probs_now(trainee(), examples, config()))


@pytest.mark.parametrize("kind", KINDS)
def test_kept_references_are_those_of_a_second_model(kind: Any) -> None:
    """And padding, on either side, and neighbours are nothing."""
    examples, options = pairs(10), Options(kind=kind, beta=0.5)
    of, live = moved(trainee()), trainee().decoder
    rows = pack(examples.lengths, CONTEXT, seed=1, epoch=0)
    assert max(map(len, rows)) > 1
    found = dpo.preference_loss(of, options, batch_of(referenced(examples), rows))
    total = 0.0
    for i in range(10):
        ratios, means = [], []
        for side in examples[i]:
            ids = torch.tensor(side.ids)[None]
            values = []
            for model in (of.decoder, live):
                logits = model.logits(model(ids, torch.arange(ids.shape[1])[None], Causal()))
                every = logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
                values.append(float((every * torch.from_numpy(side.weights[1:])).sum().detach()))
            ratios.append(values[0] - (0 if kind == "simpo" else values[1]))
            means.append(ratios[-1] / side.supervised)
        h = means[0] - means[1] if kind in dpo.PER_TOKEN else ratios[0] - ratios[1]
        total += float(LOSSES[kind](torch.tensor(h), options))
    assert float(found.loss.detach()) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_swapped_pairs_negate_the_margin(kind: Any) -> None:
    examples = pairs(7)
    swapped = Listed([examples[i][::-1] for i in range(7)])
    with torch.no_grad():
        one, other = (
            dpo.preference_loss(moved(trainee()), Options(kind=kind), batch_of(referenced(of)))
            for of in (examples, swapped)
        )
    margin = float(one.stats["margin"][0])
    assert abs(margin) > 0.01
    assert margin == pytest.approx(-float(other.stats["margin"][0]), rel=1e-4)


@pytest.mark.parametrize(("kind", "zero"), [("sigmoid", True), ("hinge", True), ("robust", True), ("simpo", True)])
def test_beta_0_learns_nothing(kind: Any, zero: bool) -> None:
    for beta, nothing in ((0.0, zero), (0.1, False)):
        of = moved(trainee())
        dpo.preference_loss(of, Options(kind=kind, beta=beta), batch_of(referenced(pairs(7)))).loss.backward()
        assert (max(float(p.grad.abs().max()) for p in of.trained().values() if p.grad is not None) == 0) is nothing


@pytest.mark.parametrize("kind", ["sigmoid", "robust", "hinge"])
def test_the_same_shift_of_both_answers_changes_nothing(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, references, tokens = some()
    one = loss_of(log_probs, references, tokens, Options(kind=kind), monkeypatch)
    two = loss_of(log_probs + 3, references, tokens, Options(kind=kind), monkeypatch)
    assert float(one.loss) == pytest.approx(float(two.loss), rel=1e-5)


def test_figures_are_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs, references, tokens = torch.tensor([-2.0, -9, -4, -3]), torch.tensor([-3.0, -6, -5, -5]), torch.ones(4)
    found = loss_of(log_probs, references, tokens, Options(beta=0.5), monkeypatch)
    means = {name: float(total) / count for name, (total, count) in found.stats.items()}
    # h = [(−2+3) − (−4+5), (−9+6) − (−3+5)] = [0, −5]
    assert means == pytest.approx({"chosen": -5.5, "rejected": -3.5, "margin": -1.25, "accuracy": 0.0, "kl": -0.25})


def loop(path: Path, kind: Any = "sigmoid", steps: int = 12) -> Loop:
    path.mkdir(exist_ok=True)
    beta = 2.0 if kind == "simpo" else 0.5
    setup = given(path, Options(kind=kind, beta=beta), pairs(40), pairs(20, seed=1), steps=steps)
    return Loop(setup.trainee, dpo.prepare(setup), setup.config, RunDir(path), World())


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_learns_to_prefer_what_is_chosen(tmp_path: Path, kind: Any) -> None:
    of = loop(tmp_path, kind, steps=20)
    assert of.train()
    evals = [line["eval"] for line in of.run.log.lines() if "eval" in line]
    assert evals[-1]["accuracy"] > 0.9
    assert evals[-1]["margin"] > evals[0]["margin"] > 0


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 6, 10])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the references of the first start: they are not computed again, and could not be, as the weights have moved."""
    whole = loop(tmp_path / "whole")
    whole.train()
    killed = loop(tmp_path / "cut")
    step = killed._step

    def until() -> dict[str, Any]:
        if killed.state.step == stop:
            raise Killed
        return step()

    monkeypatch.setattr(killed, "_step", until)
    with pytest.raises(Killed):
        killed.train()
    monkeypatch.setattr(of_reference, "log_probs_now", None)
    again = loop(tmp_path / "cut")
    if found := checkpoint.latest(tmp_path / "cut"):
        again.resume(*found[:2])
    else:
        again.run.log.cut(0)
    again.train()
    for one, two in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, two)
    lines = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in of.run.log.lines()] for of in (again, whole)
    ]
    assert lines[0] == lines[1]


def test_references_of_other_data_or_another_model_are_refused(tmp_path: Path) -> None:
    options = Options()
    dpo.prepare(given(tmp_path, options, pairs(9)))
    dpo.prepare(given(tmp_path, options, pairs(9)))
    for change in ({"ids": lambda of: of.ids[::-1].copy()}, {"weights": lambda of: of.weights[::-1].copy()}):
        made = [tuple(replace(of, **{k: f(of) for k, f in change.items()}) for of in pairs(9)[i]) for i in range(9)]
        with pytest.raises(DataError, match="another model or other data"):
            dpo.prepare(given(tmp_path, options, Listed(made)))
    with pytest.raises(DataError, match="another model or other data"):
        dpo.prepare(given(tmp_path, options, pairs(9), of=moved(trainee())))
    of = adapt(trainee(), Lora(rank=2), seed=0)
    dpo.prepare(given(tmp_path / "adapted", options, pairs(9), of=of))
    for p in of.trained().values():
        torch.nn.init.normal_(p)  # as of one that goes on from an adapter
    with pytest.raises(DataError, match="another model or other data"):
        dpo.prepare(given(tmp_path / "adapted", options, pairs(9), of=of))
    (tmp_path / of_reference.REFERENCE).write_bytes(b"PK cut")
    with pytest.raises(DataError, match=r"reference\.npz cannot be read"):
        dpo.prepare(given(tmp_path, options, pairs(9)))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(kind="ipo", smoothing=0.1), "ipo has none"),
    ],
)
def test_what_has_no_loss_is_refused_before_data_is_read(tmp_path: Path, options: Options, says: str) -> None:
    with pytest.raises(DataError, match=says):
        dpo.prepare(given(tmp_path, options, pairs(2)))


def test_likelihoods_are_without_dropout() -> None:
    of = adapt(trainee(), Lora(rank=4, dropout=0.5), seed=0)
    moved(of)
    of.module.train()
    found = [torch.from_numpy(log_probs_now(of, pairs(9), config())) for _ in range(2)]
    assert torch.equal(*found)


def test_reference_is_independent_of_rows_and_leaves_training_as_it_was() -> None:
    of = trainee()
    of.module.train()
    found = [
        log_probs_now(of, pairs(30), config(run=Run(rows=rows, micro=micro)))
        for rows, micro in ((1, 0), (16, 0), (16, 3))
    ]
    assert of.module.training
    assert found[0].shape == (30, 2)
    for other in found[1:]:
        torch.testing.assert_close(torch.from_numpy(other), torch.from_numpy(found[0]), atol=1e-5, rtol=1e-5)
    assert max(pairs(30).lengths) <= CONTEXT
