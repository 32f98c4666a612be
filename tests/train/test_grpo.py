"""GRPO's laws: what gives no gradient, what changes nothing, and that sampler and trainer are of one mind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CONTEXT, VOCAB, trainee
from torch import Tensor

from myna.chat import Rendered
from myna.checks import Verdict, blocking, named
from myna.data import Tokenized, collate
from myna.records import Candidate, Conversation, DataError, Unjudged, jsonl
from myna.train import checkpoint
from myna.train.config import Config, Data, Lora, Model, Optim, Run
from myna.train.loop import Loop
from myna.train.method import Tensors
from myna.train.methods import grpo
from myna.train.methods.grpo import Grpo, Options
from myna.train.parallel import World
from myna.train.peft import adapt
from myna.train.reference import Reference
from myna.train.rundir import RunDir
from myna.train.setup import Setup
from myna.train.trainee import Trainee

CPU = torch.device("cpu")


class Letters:
    """Stands in for a tokenizer and its template: token n is chr(n + 97); an answer ends with token 0."""

    stop_ids = frozenset({0})

    def __init__(self) -> None:
        self.tokenizer = self

    def render(self, conversation: Conversation) -> Rendered:
        ids = tuple(ord(c) - 97 for c in conversation.messages[0].text)
        return Rendered(ids, (0,) * len(ids), ())

    def decode(self, ids: Any, *, starts: bool = True) -> str:
        return "".join(chr(i + 97) for i in ids)


def some_answers(
    rewards: list[float], scale: bool, seed: int = 0, shift: float = 0.0, factor: float = 1.0
) -> list[Any]:
    drawn = np.random.default_rng(seed)
    scores = np.array(rewards) * factor + shift
    advantages = scores - scores.mean()
    if scale and scores.std():
        advantages = advantages / scores.std()
    examples = []
    for reward, advantage in zip(scores, advantages, strict=True):
        size = int(drawn.integers(6, 12))
        weights = np.r_[np.zeros(3), np.ones(size - 3)].astype(np.float32)
        ids = drawn.integers(0, VOCAB, size)
        numbers = {"sampled": drawn.random(size).astype(np.float32)}
        examples.append((Tokenized(ids, weights, numbers, {"advantage": advantage, "reward": reward}),))
    return examples


def gradient(of: Trainee, options: Options, examples: list[Any], **numbers: Any) -> tuple[float, list[Tensor]]:
    batch = Tensors.of(collate([[e] for e in examples], CONTEXT), CPU)
    for name, value in numbers.items():
        batch.numbers[name] = value(batch)
    of.module.zero_grad(set_to_none=True)
    outcome = Grpo(of, options)(batch)
    (outcome.loss / outcome.units).backward()
    return float(outcome.loss.detach()) / outcome.units, [
        p.grad.clone() for p in of.module.parameters() if p.grad is not None
    ]


OBJECTIVES = ["grpo", "dapo", "dr_grpo", "gspo"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_equal_rewards_give_no_gradient(objective: Any) -> None:
    loss, grads = gradient(trainee(), Options(objective=objective), some_answers([1.0, 1.0, 1.0], True))
    assert loss == 0
    assert grads
    assert not any(g.any() for g in grads)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_neither_shift_nor_scale_of_rewards_matters(objective: Any) -> None:
    rewards = [0.0, 1.0, 0.0, 1.0]
    _, plain = gradient(trainee(), Options(objective=objective), some_answers(rewards, True))
    _, other = gradient(trainee(), Options(objective=objective), some_answers(rewards, True, shift=5, factor=3))
    for one, two in zip(plain, other, strict=True):
        torch.testing.assert_close(one, two)
    assert max(float(g.abs().max()) for g in plain) > 1e-4


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_on_policy_the_gradient_is_reinforce(objective: Any) -> None:
    """-sum A log pi, averaged as the objective averages."""
    of, examples = trainee(), some_answers([0.0, 1.0, 0.5], False)
    options = Options(objective=objective, max_tokens=10)
    _, grads = gradient(of, options, examples)
    of.module.zero_grad(set_to_none=True)
    total, tokens = torch.zeros(()), 0
    for (sequence,) in examples:
        batch = Tensors.of(collate([[(sequence,)]], CONTEXT), CPU)
        said = of.decoder.logits(of.decoder(batch.ids, batch.positions, batch.memory)).log_softmax(-1)[0]
        mine = said[2 : len(sequence) - 1].gather(1, batch.ids[0, 3 : len(sequence), None]).sum()
        by = len(sequence) - 3 if objective in ("grpo", "gspo") else 1
        total, tokens = total - sequence.facts["advantage"] * mine / by, tokens + len(sequence) - 3
    (total / {"dapo": tokens, "dr_grpo": 30}.get(objective, 3)).backward()
    for one, p in zip(grads, of.module.parameters(), strict=True):
        torch.testing.assert_close(one, p.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("sign", "moves"), [(1.0, False), (-1.0, True)])
def test_a_ratio_beyond_the_clip_gives_no_gradient_where_it_would_go_further(sign: float, moves: bool) -> None:
    of = trainee()
    examples = some_answers([1.0], False)
    examples = [(replace(e, facts={"advantage": sign, "reward": 1.0}),) for (e,) in examples]

    def far_below(batch: Tensors) -> Tensor:  # the ratio is e^3
        hidden = of.decoder(batch.ids, batch.positions, batch.memory)
        said = of.decoder.logits(hidden).log_softmax(-1).gather(-1, batch.targets.clamp_min(0)[..., None])[..., 0]
        return said.detach() - 3

    _, grads = gradient(of, Options(), examples, old=far_below)
    assert (max(float(g.abs().max()) for g in grads) > 0) is moves


def test_kl_to_the_start_is_never_negative_and_zero_at_the_start() -> None:
    of = trainee()
    reference = Reference(of)
    examples = some_answers([1.0, 1.0], True)
    batch = Tensors.of(collate([[e] for e in examples], CONTEXT), CPU)
    batch.numbers["reference"] = reference.log_probs(batch)
    assert float(Grpo(of, Options(beta=0.5))(batch).stats["kl"][0]) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for p in of.module.parameters():
            p.add_(0.05 * torch.randn_like(p))
    assert float(Grpo(of, Options(beta=0.5))(batch).stats["kl"][0]) > 1e-3


def test_the_reference_of_adapters_is_the_model_without_them() -> None:
    of = adapt(trainee(), Lora(rank=2), seed=0)
    reference = Reference(of)
    for p in of.trained().values():
        torch.nn.init.normal_(p, std=0.3)
    batch = Tensors.of(collate([[e] for e in some_answers([1.0, 0.0], True)], CONTEXT), CPU)
    with torch.no_grad():
        plain = Reference(trainee()).log_probs(batch)
        with_adapters = of.decoder(batch.ids, batch.positions, batch.memory)
        torch.testing.assert_close(reference.log_probs(batch), plain)
        assert torch.equal(of.decoder(batch.ids, batch.positions, batch.memory), with_adapters)


def run(path: Path, steps: int = 6, of: Trainee | None = None, precision: str = "float32", **options: Any) -> Loop:
    """Whoever answers with more of token 1 ("b") gets more."""
    of = of or replace(trainee(), chat=Letters())  # type: ignore[arg-type]
    settings = Options(**{"prompts": 3, "group": 4, "max_tokens": 8, "check": "contains"} | options)
    config = Config(
        method="grpo",
        model=Model(precision=precision),  # type: ignore[arg-type]
        data=Data(context=16, train=("x",)),
        optim=Optim(lr=1e-2, schedule="constant", warmup=0, weight_decay=0),
        run=Run(steps=steps, save=2, evaluate=3),
        options=settings,
    )
    setup = Setup(config, of, World(), path)
    asked = [Conversation.ask(text, target="b") for text in ("abc", "bcd", "cde", "def", "efg")]
    setup.prompts = lambda: (asked, asked[:2])  # type: ignore[method-assign]
    path.mkdir(exist_ok=True)
    return Loop(of, grpo.prepare(setup), config, RunDir(path), World())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_and_trainer_agree_and_the_ratio_is_one(tmp_path: Path, temperature: float) -> None:
    line = run(tmp_path, temperature=temperature)._step()
    assert line["sampler_gap"] < 1e-5
    assert line["clipped"] == 0
    assert line["loss"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_ratio_to_the_weights_that_drew_is_one_in_the_precision_of_training(tmp_path: Path, precision: str) -> None:
    line = run(tmp_path, updates=2, precision=precision)._step()
    assert line["clipped"] == 0
    assert line["loss"] == pytest.approx(0, abs=1e-5)


def test_what_was_said_of_answers_is_without_dropout(tmp_path: Path) -> None:
    of = adapt(replace(trainee(), chat=Letters()), Lora(rank=2, dropout=0.5), seed=0)  # type: ignore[arg-type]
    for p in of.trained().values():
        torch.nn.init.normal_(p, std=0.3)
    rollouts = run(tmp_path, of=of, updates=2, beta=0.1).method.rollouts  # type: ignore[attr-defined]
    examples = rollouts.examples(rollouts.round(0, 3), scale=True)
    one, two = (rollouts._log_probs(examples, old=True) for _ in range(2))
    assert sorted(one) == ["old", "reference"]
    for name, values in one.items():
        assert np.array_equal(values, two[name])
    assert of.module.training


def test_rewards_rise(tmp_path: Path) -> None:
    of = run(tmp_path, steps=30, prompts=5, group=8)
    lines = [of._step() for _ in range(30)]
    assert lines[0]["reward"] < 0.5
    assert np.mean([line["reward"] for line in lines[-3:]]) > 0.8


@pytest.mark.parametrize(("updates", "beta", "stop"), [(1, 0.0, 3), (3, 0.1, 4), (3, 0.1, 5)])
def test_killed_and_resumed_is_never_stopped(tmp_path: Path, updates: int, beta: float, stop: int) -> None:
    whole = run(tmp_path / "whole", updates=updates, beta=beta)
    whole.train()
    killed = run(tmp_path / "cut", updates=updates, beta=beta)
    for _ in range(stop):
        killed._step()
        if killed.state.step % 2 == 0:
            killed._save()
    again = run(tmp_path / "cut", updates=updates, beta=beta)
    found = checkpoint.latest(tmp_path / "cut")
    assert found
    again.resume(*found[:2])
    again.train()
    for one, two in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, two)
    for name in ("round-000000.jsonl", "round-000001.jsonl"):
        assert (tmp_path / "cut/rollouts" / name).read_bytes() == (tmp_path / "whole/rollouts" / name).read_bytes()


def test_a_round_that_was_half_written_when_the_run_was_killed_is_drawn_again(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    whole.train()
    folder = tmp_path / "cut/rollouts"
    folder.mkdir(parents=True)
    for name in ("round-000001.jsonl.partial", "round-000001.partial"):
        (folder / name).write_text('{"messages": [{"ro')
    again = run(tmp_path / "cut")
    again.train()
    for one, two in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in (tmp_path / "whole/rollouts").iterdir())


def test_a_guard_with_its_arguments_is_a_reward(tmp_path: Path) -> None:
    """The same check and the same arguments as a prompt file writes them: here answers become short."""
    spec = "[contains, {length: {most: 3}}]"
    of = run(tmp_path, steps=30, prompts=5, group=8, check=spec)
    lines = [of._step() for _ in range(30)]
    assert np.mean([line["reward"] for line in lines[-3:]]) > np.mean([line["reward"] for line in lines[:3]]) + 0.15
    answered = [*jsonl.read(tmp_path / "rollouts/round-000000.jsonl", Conversation)]
    guard = blocking(named(spec))
    for row in answered:
        assert [one.score for one in row.candidates] == [guard(row, one).score for one in row.candidates]


def test_an_answer_without_a_verdict_is_in_no_group(tmp_path: Path) -> None:
    rollouts = run(tmp_path).method.rollouts  # type: ignore[attr-defined]
    rewards = iter([1.0, None, 0.0, None, None, 1.0, None, None])

    async def shy(conversation: Conversation, candidate: Candidate) -> Verdict:
        if (reward := next(rewards)) is None:
            raise Unjudged("the judge said nothing")
        return Verdict(reward > 0, reward)

    rollouts.check = blocking(shy)
    answered = rollouts.round(0, 2)
    assert [one.score for row in answered for one in row.candidates] == [1, None, 0, None, None, 1, None, None]
    found = [sequence.facts for (sequence,) in rollouts.examples(answered, scale=False)]
    assert found == [
        {"advantage": 0.5, "reward": 1},
        {"advantage": -0.5, "reward": 0},
        {"advantage": 0, "reward": 1},
    ]
    silent = [replace(row, candidates=tuple(replace(one, score=None) for one in row.candidates)) for row in answered]
    with pytest.raises(DataError, match="no verdict about any of the answers"):
        rollouts.examples(silent, scale=False)


def test_a_group_of_one_is_refused_and_so_is_a_prompt_that_leaves_no_room(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 2"):
        run(tmp_path, group=1)
    with pytest.raises(DataError, match="3 tokens of prompt and 14 of answer do not fit"):
        run(tmp_path, max_tokens=14)


def test_prompt_tokens_are_not_learned(tmp_path: Path) -> None:
    of = run(tmp_path)
    for row in of.method.rows(0):
        for (sequence,) in row:
            assert sequence.weights[:3].tolist() == [0, 0, 0]
            assert sequence.weights[3:].all()


def test_the_sampler_is_compared_with_the_weights_that_drew_alone(tmp_path: Path) -> None:
    of = run(tmp_path, updates=2)
    lines = [of._step() for _ in range(4)]
    assert ["sampler_gap" in line for line in lines] == [True, False, True, False]
    assert all(line.get("sampler_gap", 0) < 1e-5 for line in lines)
