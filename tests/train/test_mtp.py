"""Heads for the tokens after the next: without a say they change nothing, taken away nothing is missing, and what they guess is
what comes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_run import base, files, words  # noqa: F401  (fixtures)
from tiny import CONTEXT, VOCAB, config, examples, method, trainee
from torch import Tensor

from myna.data import collate
from myna.engine.engine import engine_for
from myna.model import Causal, load_model
from myna.model.ahead import FILE, Ahead, read_ahead
from myna.modeldir import ModelDir
from myna.records import DataError, Sampling
from myna.train import checkpoint
from myna.train.config import Config, Lora, Optim, Run
from myna.train.loop import Loop
from myna.train.method import Tensors
from myna.train.methods import mtp
from myna.train.methods.mtp import Options, WithHeads, ahead, losses
from myna.train.parallel import World
from myna.train.run import begin, configure
from myna.train.rundir import RunDir
from myna.train.setup import Setup

CPU = torch.device("cpu")


def run(path: Path, options: Options, steps: int = 12, **optim: Any) -> Loop:
    told = config(options=options, run=Run(steps=steps, rows=4, evaluate=4, save=4), optim=Optim(**{"lr": 1e-2, "warmup": 2} | optim))  # fmt: skip
    setup = Setup(told, trainee(), World(), path)
    setup.kind = lambda: "documents"  # type: ignore[method-assign]
    setup.examples = lambda kind: (examples(60), examples(7, 1))  # type: ignore[method-assign]
    setup.samples = lambda step: []  # type: ignore[assignment]
    setup.__dict__["token_bytes"] = torch.ones(VOCAB)
    path.mkdir(parents=True, exist_ok=True)
    made = mtp.prepare(setup)
    return Loop(setup.trainee, made, told, RunDir(path), World())


def heads_of(loop: Loop) -> Ahead:
    assert isinstance(loop.model, WithHeads)
    return loop.model.heads


def decoder_state(loop: Loop) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in loop.trainee.decoder.state_dict().items()}


def test_heads_without_a_say_change_nothing_bit_for_bit(tmp_path: Path) -> None:
    mine = run(tmp_path / "mtp", Options(weight=0.0))
    mine.train()
    told: Config = replace(mine.config, options=None)
    of = trainee()
    (tmp_path / "plain").mkdir()
    plain = Loop(of, method(of, told), told, RunDir(tmp_path / "plain"), World())
    plain.train()
    for name, tensor in of.decoder.state_dict().items():
        assert torch.equal(decoder_state(mine)[name], tensor), name
    assert not any(p.any() for p in heads_of(mine).parameters())


def test_a_head_learns_the_token_so_many_after_the_next_of_its_own_sequence() -> None:
    rows = [[examples(9)[i] for i in row] for row in ([0], [1], [2, 3], [4, 5])]
    rows = [row for row in rows if sum(len(e[0]) for e in row) <= CONTEXT]
    batch = Tensors.of(collate(rows, CONTEXT), CPU)
    for by in (1, 2):
        targets, weights = ahead(batch, by)
        doc = 0
        for n, row in enumerate(rows):
            at = 0
            for (sequence,) in row:
                for t in range(len(sequence)):
                    there = t + 1 + by < len(sequence) and sequence.weights[t + 1 + by] > 0
                    assert int(targets[n, at + t]) == (int(sequence.ids[t + 1 + by]) if there else -100)
                    assert float(weights[n, at + t]) == (float(sequence.weights[t + 1 + by]) if there else 0)
                at, doc = at + len(sequence), doc + 1


def test_the_loss_is_the_next_tokens_and_the_heads_weighed() -> None:
    of, options = trainee(), Options(heads=2, weight=0.3, decay=0.5)
    of = mtp.with_heads(of, options, "float32")
    assert isinstance(of.module, WithHeads)
    for head in of.module.heads.layers():
        torch.nn.init.normal_(head.weight, std=0.3)
    batch = Tensors.of(collate([[examples(9)[i]] for i in range(9)], CONTEXT), CPU)
    found = losses(of, options, torch.ones(VOCAB), batch)
    hidden = of.decoder(batch.ids, batch.positions, batch.memory)
    truth = torch.zeros(())
    for number in range(3):
        targets, weights = ahead(batch, number) if number else (batch.targets, batch.weights)
        said = hidden if not number else of.module.heads.hidden(hidden, number - 1)
        missed = F.cross_entropy(of.decoder.logits(said).flatten(0, 1), targets.flatten(), reduction="none")
        truth = truth + (1.0, 0.15, 0.075)[number] * (missed * weights.flatten()).sum()
    torch.testing.assert_close(found.loss, truth)
    grads = [torch.autograd.grad(loss, [*of.module.parameters()], retain_graph=True) for loss in (found.loss, truth)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
        assert one.any()


def test_of_a_frozen_model_the_heads_alone_are_learned(tmp_path: Path) -> None:
    loop = run(tmp_path, Options(frozen=True, weight=1.0))
    before = decoder_state(loop)
    loop.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in decoder_state(loop).items())
    assert all(p.any() for p in heads_of(loop).parameters())
    lines = [line for line in loop.run.log.lines() if "ahead_1" in line]
    assert lines[-1]["ahead_1"] < lines[0]["ahead_1"]


def test_killed_and_resumed_is_never_stopped(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", Options())
    whole.train()
    killed = run(tmp_path / "cut", Options())
    for _ in range(6):
        killed._step()
        if killed.state.step == 4:
            killed._save()
    again = run(tmp_path / "cut", Options())
    found = checkpoint.latest(tmp_path / "cut")
    assert found
    again.resume(*found[:2])
    again.train()
    for one, two in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, two)


def tokens_of_a_step(loop: Loop, heads: Ahead | None) -> tuple[float, list[list[int]]]:
    """Greedy, by an engine that always guesses; without prompt lookup."""
    decoder = loop.trainee.decoder.eval()
    engine = engine_for(decoder, kv_tokens=1024, draft_rows=16 if heads else 0, heads=heads)
    if speculator := engine.scheduler.speculator:
        speculator.drafters = [drafter for drafter in speculator.drafters if drafter.name == "heads"]
        speculator.costs.seconds = lambda rows: 1.0  # type: ignore[method-assign]
    found = []
    for start in range(0, VOCAB, 5):
        ids = [start, (start + 3) % VOCAB]
        ((answer,),) = engine.generate([ids], Sampling(temperature=0.0, max_tokens=16))
        found.append([choice.id for choice in answer])
    return sum(map(len, found)) / engine.stats()["steps"], found


def test_trained_heads_guess_and_the_answer_is_the_greedy_one(tmp_path: Path) -> None:
    """Against heads that learned nothing."""
    loop = run(tmp_path, Options(weight=0.5), steps=120)
    for _ in range(120):
        line = loop._step()
    assert line["ahead_1"] < 0.5
    plain, truth = tokens_of_a_step(loop, None)
    random = Ahead(16, 2).requires_grad_(False)
    for head in random.layers():
        torch.nn.init.normal_(head.weight, std=0.3)
    none, said = tokens_of_a_step(loop, random)
    assert said == truth
    some, said = tokens_of_a_step(loop, heads_of(loop).requires_grad_(False))
    assert said == truth
    assert plain == 1
    assert none < 1.3 < 1.5 < some


def test_the_file_without_heads_is_the_plain_model(
    base: Path,  # noqa: F811
    files: dict[str, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    flags = f"--model.start {base / 'model'} --data.train {files['texts']} --data.eval {files['held']} --data.context 48 --run.rows 4"
    ended = begin(configure("mtp", None, [*flags.split(), "--run.steps", "6", "--run.out", str(tmp_path / "run")]))
    assert ended.model
    directory = ModelDir.open(ended.model)
    decoder = load_model(directory, "float32")
    assert read_ahead(directory, decoder.spec.width)
    ids, places = torch.arange(20)[None] % decoder.spec.vocab, torch.arange(20)[None]
    with_heads = decoder.logits(decoder(ids, places, Causal()))
    (ended.model / FILE).unlink()
    (ended.model / "lineage.json").unlink()  # it counts the files
    directory = ModelDir.open(ended.model)
    alone = load_model(directory, "float32")
    assert read_ahead(directory, decoder.spec.width) is None
    assert torch.equal(alone.logits(alone(ids, places, Causal())), with_heads)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(frozen=True, weight=0), "learns nothing"),
    ],
)
def test_what_cannot_be_is_refused_before_data_is_read(tmp_path: Path, options: Options, says: str) -> None:
    with pytest.raises(DataError, match=says):
        mtp.prepare(Setup(config(options=options), trainee(), World(), tmp_path))
    with pytest.raises(DataError, match="no place for them"):
        mtp.prepare(Setup(config(options=Options(), lora=Lora(rank=2)), trainee(), World(), tmp_path))
