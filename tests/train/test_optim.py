"""Who is changed by which optimizer, how fast when, and torch's own arithmetic."""

import pytest
import torch
from tiny import spec, trainee
from torch import nn

from myna.model import Classifier, Encoder, MoE, Norm
from myna.model.spec import Bidirectional
from myna.train.config import Optim
from myna.train.optim import lr_at, make_optimizers, set_lr


def members(of: nn.Module, config: Optim) -> list[tuple[str, str, float]]:
    names = {p: name for name, p in of.named_parameters()}
    return [
        (names[p], type(optimizer).__name__, group["weight_decay"])
        for optimizer in make_optimizers(of, config)
        for group in optimizer.param_groups
        for p in group["params"]
    ]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [True, False])
def test_each_parameter_is_in_one_group_and_matrices_alone_decay(kind: str, tied: bool) -> None:
    of = trainee(tied=tied, moe=MoE(experts=4, top_k=2, hidden=8, norm_topk=True)).module
    found = members(of, Optim(kind=kind, weight_decay=0.3))  # type: ignore[arg-type]
    assert sorted(name for name, _, _ in found) == sorted(name for name, _ in of.named_parameters())
    shapes = {name: p.ndim for name, p in of.named_parameters()}
    assert all((decay == 0.3) == (shapes[name] > 1) for name, _, decay in found)
    muon = {name for name, by, _ in found if by == "Muon"}
    if kind == "adamw":
        assert not muon
    else:
        assert muon == {n for n, d in shapes.items() if d == 2 and not any(k in n for k in ("embed", "head", "router"))}


def test_tables_and_heads_are_never_muons() -> None:
    """Of a classifier's decoder, and of an encoder: words, places, kinds of tokens, and what answers."""
    bert = spec(norm=Norm("layer"), rope=None, gated=False, kv_heads=2, encoder=Bidirectional(kinds=2, labels=3))
    for of in (Classifier(trainee().decoder, 3), Encoder(bert)):
        muon = {name for name, by, _ in members(of, Optim(kind="muon")) if by == "Muon"}
        assert muon == {n for n, p in of.named_parameters() if p.ndim == 2 and "layers." in n}


def test_what_is_frozen_is_in_no_group() -> None:
    of = trainee().module
    of.get_parameter("embed.weight").requires_grad_(False)
    assert "embed.weight" not in {name for name, _, _ in members(of, Optim())}


@pytest.mark.parametrize("schedule", ["wsd", "cosine", "linear"])
def test_a_schedule_warms_up_and_ends_at_its_floor(schedule: str) -> None:
    config = Optim(lr=2.0, schedule=schedule, warmup=10, floor=0.1, decay=0.2)  # type: ignore[arg-type]
    rates = [lr_at(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(2 / 11)
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == pytest.approx(2, rel=0.02)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.2)
    if schedule == "wsd":
        assert rates[10:80] == [2.0] * 70


def test_a_share_of_warmup_and_a_constant_rate() -> None:
    assert lr_at(Optim(lr=1.0, schedule="constant", warmup=0.1), 99, 100) == 1
    assert lr_at(Optim(lr=1.0, schedule="constant", warmup=0.1), 4, 100) == pytest.approx(5 / 11)
    assert lr_at(Optim(lr=1.0, schedule="linear", warmup=0), 0, 1) == pytest.approx(1)


def test_cosine_is_halfway_down_halfway() -> None:
    assert lr_at(Optim(lr=1.0, schedule="cosine", warmup=0), 50, 101) == pytest.approx(0.5)


def test_branches_of_one_trunk_share_its_rates() -> None:
    """WSD: a run of 200 steps and one of 400 are the same until the shorter decays, so one trunk serves both."""
    config = Optim(lr=1.0, schedule="wsd", warmup=5)
    assert [lr_at(config, step, 200) for step in range(160)] == [lr_at(config, step, 400) for step in range(160)]


def test_adamw_is_torchs() -> None:
    made = []
    for mine in (True, False):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(5, 3))
        module = nn.Module()
        module.weight = weight
        config = Optim(lr=0.1, weight_decay=0.2, beta1=0.8, beta2=0.9)
        optimizers = (
            make_optimizers(module, config)
            if mine
            else [torch.optim.AdamW([weight], lr=0.1, betas=(0.8, 0.9), weight_decay=0.2, fused=True)]
        )
        for _ in range(3):
            (weight**3).sum().backward()
            set_lr(optimizers, 0.1)
            optimizers[0].step()
            optimizers[0].zero_grad()
        made.append(weight.detach())
    assert torch.equal(*made)


def test_muon_changes_each_matrix_as_torchs_does_also_those_we_keep_in_one() -> None:
    """Queries, keys and values; gate and up; of the experts too. Three steps, so that momentum counts."""
    of = trainee(moe=MoE(experts=4, top_k=2, hidden=8, norm_topk=True)).decoder
    rows = {path: slot.rows for path, slot in of.spec.slots()}
    (_, mine) = make_optimizers(of, Optim(kind="muon", lr=0.1, weight_decay=0.2))
    names = {p: name for name, p in of.named_parameters()}
    members = [p for group in mine.param_groups for p in group["params"]]
    apart = {p: [nn.Parameter(one.detach().clone()) for one in p.split(rows[names[p]])] for p in members}
    assert {len(some) for some in apart.values()} == {1, 2, 3}
    oracle = torch.optim.Muon(
        [one for some in apart.values() for one in some], lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw"
    )
    torch.manual_seed(0)
    for _ in range(3):
        for p, some in apart.items():
            p.grad = torch.randn_like(p)
            for one, grad in zip(some, p.grad.split(rows[names[p]]), strict=True):
                one.grad = grad.clone()
        mine.step()
        oracle.step()
    for p, some in apart.items():
        assert torch.equal(p, torch.cat(some))
