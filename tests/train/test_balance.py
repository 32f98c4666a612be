"""Mixtures of experts in training: what a balanced choice changes and what not, and that tokens are counted once."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONTEXT, config, method, spec, trainee
from torch import Tensor

from myna.data import collate
from myna.model import MoE
from myna.model.mlp import Mlp
from myna.model.moe import Experts
from myna.train import checkpoint
from myna.train.balance import FADE, Balance
from myna.train.config import Config, Model, Optim, Run
from myna.train.loop import Loop
from myna.train.method import Tensors
from myna.train.parallel import World
from myna.train.rundir import RunDir
from myna.train.trainee import Trainee, recompute

CPU = torch.device("cpu")
MIXED = MoE(experts=4, top_k=2, hidden=8, norm_topk=True)


def experts(seed: int = 0, **more: Any) -> Experts:
    torch.manual_seed(seed)
    moe = replace(MIXED, **more)
    made = Experts(spec(moe=moe), moe)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return made


def mixed(seed: int = 0) -> Trainee:
    of = trainee(seed, moe=MIXED)
    for layer in of.decoder.modules():
        if isinstance(layer, Experts):
            torch.nn.init.normal_(layer.router.weight, std=0.5)
    return of


def loop(path: Path, of: Trainee, steps: int = 12, rate: float = 0.01, **run: Any) -> Loop:
    told = config(model=Model(balance=rate), run=Run(**{"steps": steps, "rows": 4, "evaluate": 4, "save": 4} | run))
    path.mkdir(exist_ok=True)
    return Loop(of, method(of, told), told, RunDir(path), World())


@pytest.mark.parametrize("norm", [True, False])
def test_a_bias_changes_who_is_chosen_and_never_what_an_answer_weighs(norm: bool) -> None:
    made, x = experts(norm_topk=norm), torch.randn(50, 16)
    seen: list[Tensor] = []
    made.chose = seen.append
    plain = made(x)
    made.bias = torch.tensor([0.0, 0.0, 5.0, 5.0])
    other = made(x)
    assert seen[0].unique().tolist() == [0, 1, 2, 3]
    assert seen[1].unique().tolist() == [2, 3]
    gates = made.router(x).softmax(-1)
    for chosen, out in zip(seen, (plain, other), strict=True):
        weights = gates.gather(1, chosen)
        weights = weights / weights.sum(1, keepdim=True) if norm else weights
        by_hand = [
            sum(w * made.experts[int(e)](row[None])[0] for w, e in zip(ws, es, strict=True))
            for row, ws, es in zip(x, weights, chosen, strict=True)
        ]
        torch.testing.assert_close(out, torch.stack(by_hand), atol=1e-5, rtol=1e-4)
    made.bias = torch.full((4,), 0.3)
    assert torch.equal(made(x), plain)


def test_the_gradient_knows_nothing_of_the_bias() -> None:
    made, x = experts(), torch.randn(50, 16)
    made.bias = torch.zeros(4)
    assert not any("bias" in name for name, _ in made.named_parameters())
    assert "bias" not in made.state_dict()
    made(x).square().sum().backward()
    grads = [made.router.weight.grad]
    made.router.weight.grad, made.bias = None, None
    made(x).square().sum().backward()
    grads.append(made.router.weight.grad)
    one, other = (grad for grad in grads if grad is not None)
    assert torch.equal(one, other)


def test_equal_experts_are_one_mlp_all_experts_alike_liked_are_their_mean_and_order_is_nothing() -> None:
    made, x = experts(), torch.randn(30, 16)
    shuffled = torch.randperm(30)
    torch.testing.assert_close(made(x[shuffled]), made(x)[shuffled])
    every = experts(top_k=4)
    torch.nn.init.zeros_(every.router.weight)
    mean = torch.stack([expert(x) for expert in every.experts]).mean(0)
    torch.testing.assert_close(every(x), mean, atol=1e-5, rtol=1e-4)
    for expert in made.experts[1:]:
        assert isinstance(expert, Mlp)
        expert.load_state_dict(made.experts[0].state_dict())
    torch.testing.assert_close(made(x), made.experts[0](x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("micro", [0, 1])
def test_each_token_is_counted_once_and_padding_never(tmp_path: Path, again: bool, micro: int) -> None:
    of = mixed()
    if again:
        recompute(of.decoder)
    made = loop(tmp_path, of, micro=micro)
    found: list[Tensor] = []
    step = made.balance.step

    def looked(*done: int, learned: bool) -> dict[str, float]:
        found.append(made.balance.counts.clone())
        return step(*done, learned=learned)

    made.balance.step = looked  # type: ignore[assignment]
    line = made._step()
    assert found[0].sum(1).tolist() == [2 * line["tokens"]] * 2  # dropless: every token, top_k times
    rows = made.method.rows(0)
    batch = Tensors.of(collate(rows, CONTEXT), CPU)
    assert (batch.docs < 0).any()
    truth = torch.zeros_like(found[0])
    first = mixed()
    real = (batch.docs >= 0).flatten()

    def count(row: Tensor, chosen: Tensor) -> None:
        row += torch.bincount(chosen[real].flatten(), minlength=4)

    for row, layer in zip(truth, (m for m in first.decoder.modules() if isinstance(m, Experts)), strict=True):
        layer.chose = partial(count, row)
    first.decoder(batch.ids, batch.positions, batch.memory)
    assert torch.equal(found[0], truth)
    assert line["load"] == pytest.approx(float((truth.amax(1) / truth.float().mean(1)).max()))


def test_evaluation_is_not_counted(tmp_path: Path) -> None:
    made = loop(tmp_path, mixed())
    made.model.eval()
    with torch.no_grad():
        made.method.loss(Tensors.of(collate(made.method.eval_rows(), CONTEXT), CPU))
    made.model.train()
    assert not made.balance.counts.any()


def test_biases_move_against_the_load_by_the_rate() -> None:
    balance = Balance(mixed().decoder, 0.25, World())
    balance.counts.copy_(torch.tensor([[10, 2, 4, 4], [5, 5, 5, 5]]))
    line = balance.step(1, 100)
    assert balance.biases.tolist() == [[-0.25, 0.25, 0.25, 0.25], [0, 0, 0, 0]]
    assert line == {"load": 2.0, "balance": 0.25}
    assert not balance.counts.any()
    balance.counts.copy_(torch.tensor([[0, 0, 0, 20], [20, 0, 0, 0]]))
    balance.step(2, 100, learned=False)
    assert balance.biases[0, 0] == -0.25


def test_biases_fade_before_the_end_and_the_model_that_is_left_has_none(tmp_path: Path) -> None:
    made = loop(tmp_path, mixed(), steps=20)
    sizes = []
    for _ in range(20):
        made._step()
        sizes.append([float(layer.bias.abs().max()) for layer in made.balance.layers if layer.bias is not None])
    assert min(sizes[15]) > 0
    assert sizes[-1] == [0.0, 0.0]
    assert made.balance.biases.any()
    assert not made.balance.drop()
    half = int(20 * (1 - FADE / 2)) - 1
    raw = made.balance.biases
    assert max(sizes[half]) < float(raw.abs().max())


@pytest.mark.parametrize("stop", [5, 6, 11])
def test_killed_and_resumed_is_never_stopped(tmp_path: Path, stop: int) -> None:
    whole = loop(tmp_path / "whole", mixed())
    whole.train()
    killed = loop(tmp_path / "cut", mixed())
    for _ in range(stop):
        killed.note(killed._step())
        if killed.state.step % 4 == 0:
            killed._save()
    again = loop(tmp_path / "cut", mixed())
    found = checkpoint.latest(tmp_path / "cut")
    assert found
    again.resume(*found[:2])
    again.train()
    assert torch.equal(again.balance.biases, whole.balance.biases)
    for one, two in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_frozen_router_is_left_as_it_is_and_a_dense_model_has_nothing_to_balance(tmp_path: Path) -> None:
    of = mixed()
    for layer in of.decoder.modules():
        if isinstance(layer, Experts):
            layer.router.requires_grad_(False)
    made = loop(tmp_path, of)
    line = made._step()
    assert line["load"] >= 1
    assert all(layer.bias is None for layer in made.balance.layers)
    assert "load" not in loop(tmp_path, trainee())._step()


def loads(path: Path, rate: float, seed: int) -> list[float]:
    """Of 300 steps of a mixture of 8."""
    of = trainee(seed, moe=MoE(experts=8, top_k=2, hidden=16, norm_topk=True))
    told: Config = config(
        model=Model(balance=rate), optim=Optim(lr=3e-3, warmup=10), run=Run(steps=300, rows=16, evaluate=0)
    )
    path.mkdir()
    made = Loop(of, method(of, told, seed), told, RunDir(path), World())
    return [made._step()["load"] for _ in range(300)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_experts_are_balanced_and_without_biases_they_are_not(tmp_path: Path, seed: int) -> None:
    with_biases, without = loads(tmp_path / "with", 0.01, seed), loads(tmp_path / "without", 0.0, seed)
    late = slice(200, 240)  # before biases fade
    means = [sum(found[late]) / 40 for found in (with_biases, without)]
    print(f"\nseed {seed}: max/mean load {means[0]:.2f} with biases, {means[1]:.2f} without; first steps "
          f"{sum(without[:5]) / 5:.2f}; at the end {sum(with_biases[-5:]) / 5:.2f} with, {sum(without[-5:]) / 5:.2f} without")  # fmt: skip
    assert means[0] < 1.3 < means[1]
