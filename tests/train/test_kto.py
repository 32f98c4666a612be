"""KTO: TRL's values, laws of z and of the two weights, and a run from unpaired answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from given import CPU, answer, batch_of, given, pairs, singles
from tiny import CONTEXT, trainee

from myna.data import Listed
from myna.records import DataError
from myna.train.config import Run
from myna.train.loop import Loop
from myna.train.methods import kto
from myna.train.methods.kto import Mixed, Options
from myna.train.parallel import World
from myna.train.preference import answer_log_probs
from myna.train.reference import log_probs_now
from myna.train.rundir import RunDir


def test_losses_are_trls(monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import defaultdict
    from types import SimpleNamespace

    from trl import KTOTrainer

    log_probs, references = torch.tensor([-3.0, -8, -1, -5]), torch.tensor([-4.0, -6, -1, -2])
    good, kl_now, kl_before = (
        torch.tensor([True, False, True, False]),
        torch.tensor([-2.0, -3]),
        torch.tensor([-5.0, -1]),
    )

    def model(input_ids: Any, **_: Any) -> Any:
        values = kl_now if len(input_ids) == 2 else log_probs
        each = torch.stack([values, torch.zeros(len(values))], 1)
        return SimpleNamespace(log_probs=each, entropy=torch.zeros_like(each), mean_logits=torch.zeros_like(each))

    same = lambda values: values  # noqa: E731
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=SimpleNamespace(device=CPU, gather_for_metrics=same), beta=0.4,
        aux_loss_enabled=False, precompute_ref_logps=True, calculate_KL=True, loss_type="kto", desirable_weight=1.2,
        undesirable_weight=0.7, _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    trainer._compute_kl_logps = lambda model, batch: KTOTrainer._compute_kl_logps(trainer, model, batch)
    shape = lambda n: torch.ones(n, 3, dtype=torch.long)  # noqa: E731
    inputs = {
        "label": good, "input_ids": shape(4), "attention_mask": shape(4), "completion_mask": shape(4), "ref_logps": references,
        "KL_input_ids": shape(2), "KL_attention_mask": shape(2), "KL_completion_mask": shape(2), "ref_KL_logps": kl_before,
    }  # fmt: skip
    theirs = float(KTOTrainer._compute_loss(trainer, model, inputs, False))
    z = max(0.0, float((kl_now - kl_before).mean()))
    assert z == 0.5
    monkeypatch.setattr(kto, "answer_log_probs", lambda *_: (log_probs, torch.ones(4)))
    batch = batch_of(Listed([(answer([1, 2], [3]),) for _ in range(4)]))
    facts = {"score": good.float(), "reference": references, "drift": torch.full((4,), z)}
    object.__setattr__(batch, "facts", facts)
    mine = kto.prospect_loss(trainee(), Options(beta=0.4, desirable=1.2, undesirable=0.7), batch)
    assert float(mine.loss) / mine.units == pytest.approx(theirs, rel=1e-5)


def prepared(path: Path, beta: float = 0.1, steps: int = 12, micro: int = 0) -> tuple[Any, Any]:
    path.mkdir(exist_ok=True)
    setup = given(path, Options(beta=beta), singles(pairs(30)), singles(pairs(10, seed=1)), steps=steps)
    object.__setattr__(setup.config, "run", Run(steps=steps, rows=4, evaluate=4, micro=micro))
    return setup, kto.prepare(setup)


def test_at_first_every_loss_is_a_half_and_nothing_has_drifted(tmp_path: Path) -> None:
    """1 - s(0)."""
    setup, method = prepared(tmp_path)
    line = Loop(setup.trainee, method, setup.config, RunDir(tmp_path), World())._step()
    assert line["loss"] == pytest.approx(0.5, abs=1e-5)
    assert line["kl"] == pytest.approx(0, abs=1e-5)
    assert setup.known["desirable"] == 30


@pytest.mark.parametrize("likelier", [True, False])
def test_z_is_the_mean_over_answers_to_other_prompts_and_never_negative(tmp_path: Path, likelier: bool) -> None:
    setup, method = prepared(tmp_path)
    answers, mixed = singles(pairs(30)), Mixed(singles(pairs(30)), CONTEXT)
    before = log_probs_now(setup.trainee, mixed, setup.config)[:, 0]
    answer_log_probs(setup.trainee.decoder, batch_of(mixed))[0].sum().backward()
    with torch.no_grad():
        weight = setup.trainee.decoder.embed.weight
        weight.add_(weight.grad, alpha=1e-3 if likelier else -1e-3)
    now = log_probs_now(setup.trainee, mixed, setup.config)[:, 0]
    rows = method.rows(0)
    seen = [int(s.facts["number"]) for row in rows for (s,) in row]
    zs = {s.facts["drift"] for row in rows for (s,) in row}
    assert len(seen) > 8
    assert len(zs) == 1
    mean = float(np.mean((now - before)[seen]))
    assert abs(mean) > 0.01
    assert zs.pop() == pytest.approx(mean if likelier else 0.0, rel=1e-4)
    prompt = int(np.argmax(answers[3][0].weights != 0))
    assert mixed[3][0].ids[:prompt].tolist() == answers[3][0].ids[:prompt].tolist()
    assert mixed[3][0].ids[prompt:].tolist() == answers[33][0].ids[answers[33][0].weights != 0].tolist()


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    lines = []
    for micro in (0, 1, 3):
        setup, method = prepared(tmp_path / str(micro), 0.5, micro=micro)
        of = Loop(setup.trainee, method, setup.config, RunDir(tmp_path / str(micro)), World())
        lines.append([of._step() for _ in range(3)][-1])
    for line in lines[1:]:
        for name in ("loss", "kl", "grad_norm", "accuracy"):
            assert line[name] == pytest.approx(lines[0][name], abs=1e-5)


def test_no_gradient_goes_through_z_and_weights_are_of_their_side() -> None:
    of = trainee()
    batch = batch_of(singles(pairs(4)))
    answers = [singles(pairs(4))[i] for i in range(8)]
    for options, good in ((Options(undesirable=0), 1.0), (Options(desirable=0), 0.0)):
        half = batch_of(Listed([(s,) for (s,) in answers if s.facts["score"] == good]))
        gradients = []
        for some in (batch, half):
            of.module.zero_grad()
            known = {"reference": -9.0, "drift": 0.3}
            facts = some.facts | {name: torch.full((some.sequences,), value) for name, value in known.items()}
            object.__setattr__(some, "facts", facts)
            kto.prospect_loss(of, options, some).loss.backward()
            gradients.append(of.decoder.embed.weight.grad.clone())  # type: ignore[union-attr,operator]
        assert gradients[0].abs().max() > 0
        torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_a_long_answer_to_another_prompt_is_cut_at_the_row() -> None:
    long = Listed([(answer(range(20), [1]),), (answer([1], range(20)),)])
    mixed = Mixed(long, CONTEXT)
    assert mixed.lengths.tolist() == [24, 2]
    assert mixed[0][0].supervised == 4
    assert len(mixed[0][0].weights) == 24


def test_no_good_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of 60 answers none is scored above 2\.0"):
        kto.prepare(given(tmp_path, Options(above=2.0), singles(pairs(30))))


def test_a_run_learns_from_single_answers(tmp_path: Path) -> None:
    setup, method = prepared(tmp_path, 0.5, steps=24)
    of = Loop(setup.trainee, method, setup.config, RunDir(tmp_path), World())
    assert of.train()
    evals = [line["eval"] for line in of.run.log.lines() if "eval" in line]
    assert evals[-1]["accuracy"] > 0.8
    assert evals[-1]["margin"] > evals[0]["margin"]


def test_a_run_without_evaluation_rows_ends(tmp_path: Path) -> None:
    setup = given(tmp_path, Options(), singles(pairs(30)), steps=4)
    assert Loop(setup.trainee, kto.prepare(setup), setup.config, RunDir(tmp_path), World()).train()
