"""Distillation's laws: a student that is its teacher has nothing to learn, all of the teacher's tokens are the whole of it,
without a teacher it is plain training; and GKD's divergences as TRL and F.kl_div have them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_grpo import Letters
from tiny import CONTEXT, VOCAB, config, examples, method, trainee
from torch import Tensor

from myna.data import Examples, Listed, Tokenized, collate
from myna.records import Conversation, DataError
from myna.train import checkpoint, loss
from myna.train import teacher as of_teacher
from myna.train.config import Config, Run
from myna.train.loop import Loop
from myna.train.method import Tensors
from myna.train.methods import distill
from myna.train.methods.distill import Distill, Options, divergence
from myna.train.parallel import World
from myna.train.rundir import RunDir
from myna.train.setup import Setup
from myna.train.teacher import IDS, SHARES, Teacher, shares, taught
from myna.train.trainee import Trainee

CPU = torch.device("cpu")
SIZES = torch.ones(VOCAB)


@torch.no_grad()
def sure() -> Trainee:
    """A model with something to say: its probabilities are far from equal."""
    of = trainee(seed=3)
    of.decoder.embed.weight.mul_(20)
    return of


def teacher_of(of: Trainee | None) -> Teacher:
    """None: one that cannot be loaded."""
    made = Teacher(None, VOCAB, CPU, {"weights": "hash"})  # type: ignore[arg-type]
    if of is not None:
        made.__dict__["decoder"] = of.decoder.eval()
    return made


def setup_of(folder: Path, options: Options, of: Trainee, **more: Any) -> Setup:
    return Setup(config(options=options, **more), of, World(), folder)


def kept(run: Path, options: Options, of: Trainee, teacher: Teacher, given: Examples) -> Examples:
    if not options.top_k:
        return given
    return taught(setup_of(run, options, of), teacher, options.top_k, options.temperature, {"train": given})["train"]


def batch_of(given: Examples, count: int) -> Tensors:
    return Tensors.of(collate([[given[i]] for i in range(count)], CONTEXT), CPU)


def gradient(of: Trainee, compute: Callable[[Tensors], Any], batch: Tensors) -> tuple[float, list[Tensor]]:
    of.module.zero_grad(set_to_none=True)
    outcome = compute(batch)
    outcome.loss.backward()
    return outcome.loss.item(), [p.grad.clone() for p in of.module.parameters() if p.grad is not None]


def logits_of(of: Trainee, batch: Tensors) -> Tensor:
    """Of the learned places [N, V], without chunks."""
    hidden = of.decoder(batch.ids, batch.positions, batch.memory)
    return of.decoder.logits(hidden)[batch.targets >= 0]


def by_definition(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """Agarwal et al. 2024, equation 1, on probabilities in float64 [n, m]."""
    t, s = teacher.double(), student.double()
    m = beta * t + (1 - beta) * s
    if beta in (0, 1):
        one, other = (t, s) if beta == 0 else (s, t)
        return F.kl_div(other.log(), one, reduction="none").sum(-1)
    return beta * F.kl_div(m.log(), t, reduction="none").sum(-1) + (1 - beta) * F.kl_div(
        m.log(), s, reduction="none"
    ).sum(-1)


def two_sides() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    one, other = (3 * torch.randn(2, 11, 50)).log_softmax(-1)
    return one, other


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_divergences_are_those_of_the_paper(beta: float) -> None:
    one, other = two_sides()
    found = divergence(one, other, beta)
    torch.testing.assert_close(found.double(), by_definition(one.exp(), other.exp(), beta), atol=1e-5, rtol=1e-4)
    assert (found > 0).all()
    assert divergence(one, one, beta).abs().max() < 1e-6


@pytest.mark.slow  # TRL takes ten seconds to be imported
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_divergences_are_those_of_trl(beta: float) -> None:
    trl = pytest.importorskip("trl.experimental.gkd").GKDTrainer.generalized_jsd_loss
    one, other = two_sides()
    theirs = trl(other[None], one[None], labels=torch.zeros(1, 11, dtype=torch.long), beta=beta)
    assert float(divergence(one, other, beta).mean()) == pytest.approx(float(theirs), rel=1e-4)


@pytest.mark.parametrize("top_k", [0, 1, 5, VOCAB])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(tmp_path: Path, beta: float, top_k: int) -> None:
    options = Options(beta=beta, top_k=top_k, temperature=2.0)
    of, teacher = trainee(), teacher_of(trainee())
    batch = batch_of(kept(tmp_path, options, of, teacher, examples(9)), 9)
    value, grads = gradient(of, Distill(of, teacher, options, SIZES), batch)
    assert abs(value) < 1e-4  # of a sum over some hundred places
    assert grads
    assert max(float(g.abs().max()) for g in grads) < 1e-4
    other = teacher_of(sure())
    batch = batch_of(kept(tmp_path / "other", options, of, other, examples(9)), 9)
    value, grads = gradient(of, Distill(of, other, options, SIZES), batch)
    assert value > 1
    assert max(float(g.abs().max()) for g in grads) > 0.1


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_all_of_a_teachers_tokens_are_the_whole_teacher(tmp_path: Path, beta: float) -> None:
    of, teacher = trainee(), teacher_of(sure())
    whole = Options(beta=beta, top_k=0, temperature=1.5, alpha=0.7)
    value, grads = gradient(of, Distill(of, teacher, whole, SIZES), batch_of(examples(9), 9))
    all_kept = replace(whole, top_k=10 * VOCAB)
    batch = batch_of(kept(tmp_path, all_kept, of, teacher, examples(9)), 9)
    assert batch.numbers[IDS].shape[-1] == batch.numbers[SHARES].shape[-1] == VOCAB
    found, theirs = gradient(of, Distill(of, teacher_of(None), all_kept, SIZES), batch)
    assert found == pytest.approx(value, rel=1e-5)
    for one, two in zip(grads, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize("top_k", [0, 4])
def test_the_loss_is_the_papers_and_chunks_are_the_whole(
    tmp_path: Path, top_k: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """alpha T^2 D - (1 - alpha) log p, weighed, with the tokens that are not kept as one."""
    monkeypatch.setattr(loss, "rows_at_once", lambda vocab: rows)
    monkeypatch.setattr(of_teacher, "rows_at_once", lambda vocab: rows)
    options = Options(alpha=0.3, beta=0.4, temperature=2.0, top_k=top_k)
    of, master = trainee(), sure()
    given = Listed([(replace(examples(9)[i][0], weights=examples(9)[i][0].weights * (1 + i)),) for i in range(9)])
    batch = batch_of(kept(tmp_path, options, of, teacher_of(master), given), 9)
    value, grads = gradient(of, Distill(of, teacher_of(master), options, SIZES), batch)

    def plain(batch: Tensors) -> Any:
        mine, theirs = logits_of(of, batch), logits_of(master, batch).detach()
        t, s = (theirs / 2).softmax(-1), (mine / 2).softmax(-1)
        if top_k:
            best = t.topk(top_k).indices
            t, s = (torch.cat([p.gather(1, best), 1 - p.gather(1, best).sum(1, keepdim=True)], 1) for p in (t, s))
        wanted, weights = batch.targets[batch.targets >= 0], batch.weights[batch.targets >= 0].double()
        hard = F.cross_entropy(mine, wanted, reduction="none").double()
        return type("", (), {"loss": ((0.3 * 4 * by_definition(t, s, 0.4) + 0.7 * hard) * weights).sum()})

    truth, theirs = gradient(of, plain, batch)
    assert value == pytest.approx(truth, rel=1e-4)
    for one, two in zip(grads, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=2e-3, rtol=1e-3)
    with torch.no_grad():
        assert float(Distill(of, teacher_of(master), options, SIZES)(batch).loss) == pytest.approx(truth, rel=1e-4)


def test_shares_are_of_one_whole_however_small_the_rest() -> None:
    logits = torch.tensor([[40.0, 0.0, -60.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    found = shares(logits, torch.tensor([[0, 3], [1, 2]]))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2))
    assert float(found[0, 2]) == pytest.approx(-40, abs=1e-4)


def run(path: Path, options: Options, teacher: Trainee | None, steps: int = 6, of: Trainee | None = None) -> Loop:
    of = of or replace(trainee(), chat=Letters())  # type: ignore[arg-type]
    rows = Run().rows if options.on_policy else 4
    told = config(run=Run(steps=steps, rows=rows, evaluate=4, save=2), options=options)
    setup = setup_of(path, options, of, run=told.run)
    path.mkdir(parents=True, exist_ok=True)
    asked = [Conversation.ask(text) for text in ("abc", "bcd", "cde", "def", "efg")]
    setup.prompts = lambda: (asked, asked[:2])  # type: ignore[method-assign]
    setup.examples = lambda kind: (examples(60), examples(7, 1))  # type: ignore[method-assign]
    setup.known, setup.samples = {"files": {}}, lambda step: []  # type: ignore[assignment]
    setup.__dict__["token_bytes"] = SIZES
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distill, "find_teacher", lambda setup, name: teacher_of(teacher))
        patch.setattr(setup, "kind", lambda: "documents")
        return Loop(of, distill.prepare(setup), setup.config, RunDir(path), World())


def test_without_a_teachers_say_it_is_plain_training_bit_for_bit(tmp_path: Path) -> None:
    mine = run(tmp_path / "distill", Options(alpha=0.0), None)
    mine.train()
    told: Config = replace(mine.config, options=None)
    plain = Loop(trainee(), method(trainee(), told), told, RunDir(tmp_path / "sft"), World())
    plain.method = method(plain.trainee, told)
    (tmp_path / "sft").mkdir()
    plain.train()
    for one, two in zip(mine.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, two)


OWN = Options(on_policy=True, top_k=0, prompts=3, max_tokens=8)


def test_a_student_comes_near_its_teacher(tmp_path: Path) -> None:
    for name, options in (("kept", Options(top_k=5)), ("whole", Options(top_k=0, beta=0.5)), ("own", OWN)):
        loop = run(tmp_path / name, options, sure(), steps=25)
        loop.train()
        lines = [line for line in loop.run.log.lines() if "divergence" in line]
        assert lines[-1]["divergence"] < 0.7 * lines[0]["divergence"], name
        evals = [line["eval"] for line in loop.run.log.lines() if "eval" in line]
        assert evals[-1]["divergence"] < evals[0]["divergence"], name
        assert evals[-1]["bits_per_byte" if name != "own" else "loss"] > 0


def test_on_policy_rows_are_the_students_own_answers_and_prompts_are_not_learned(tmp_path: Path) -> None:
    loop = run(tmp_path, OWN, sure())
    found = [sequence for row in loop.method.rows(0) for (sequence,) in row]
    assert len(found) == 3
    for sequence in found:
        assert sequence.weights[:3].tolist() == [0, 0, 0]
        assert sequence.weights[3:].all()
        batch = Tensors.of(collate([[(Tokenized(sequence.ids, sequence.weights),)]], CONTEXT), CPU)
        said = logits_of(loop.trainee, batch).log_softmax(-1).gather(1, batch.targets[batch.targets >= 0, None])[:, 0]
        torch.testing.assert_close(said.detach(), torch.from_numpy(sequence.numbers["sampled"][3:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [Options(top_k=4, alpha=0.5), OWN], ids=["kept", "own"])
def test_killed_and_resumed_is_never_stopped(tmp_path: Path, options: Options) -> None:
    """What the teacher said is read, not computed again."""
    whole = run(tmp_path / "whole", options, sure())
    whole.train()
    killed = run(tmp_path / "cut", options, sure())
    for _ in range(3):
        killed._step()
        if killed.state.step == 2:
            killed._save()
    again = run(tmp_path / "cut", options, None if options.top_k else sure())
    found = checkpoint.latest(tmp_path / "cut")
    assert found
    again.resume(*found[:2])
    again.train()
    for one, two in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_what_was_kept_of_another_teacher_or_of_other_data_is_refused(tmp_path: Path) -> None:
    options, of, teacher = Options(top_k=4), trainee(), teacher_of(sure())
    kept(tmp_path, options, of, teacher, examples(9))
    kept(tmp_path, options, of, teacher_of(None), examples(9))
    changed = teacher_of(None)
    changed.files = {"weights": "another"}
    for other, given in ((teacher, examples(8)), (changed, examples(9))):
        with pytest.raises(DataError, match="another teacher or other data"):
            kept(tmp_path, options, of, other, given)


def test_an_attempt_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    options, of, teacher = Options(top_k=4), trainee(), teacher_of(sure())
    first = kept(tmp_path / "whole", options, of, teacher, examples(9))
    (tmp_path / "cut/teacher.partial").mkdir(parents=True)
    (tmp_path / "cut/teacher.partial/train.ids.npy").write_bytes(b"half")
    again = kept(tmp_path / "cut", options, of, teacher, examples(9))
    for i in range(9):
        assert np.array_equal(first[i][0].numbers[SHARES], again[i][0].numbers[SHARES])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(on_policy=True, top_k=0, alpha=0.5), "no labels"),
        (Options(on_policy=True), "top_k 0"),
        (Options(), "who teaches"),
    ],
)
def test_what_cannot_be_is_refused_before_data_is_read(tmp_path: Path, options: Options, says: str) -> None:
    with pytest.raises(DataError, match=says):
        distill.prepare(setup_of(tmp_path, options, trainee()))
