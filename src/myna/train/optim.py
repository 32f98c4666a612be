"""Which parameters change how, and how fast at each step: torch's own AdamW and Muon, and the four schedules in use."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from myna.train.config import Optim
from myna.train.parallel import share_like, whole

# Never Muon's: it makes a matrix's update orthogonal, which is meant for maps between hidden states (Jordan et al. 2024).
NOT_MUON = ("embed", "head", "places", "router", ".loras.", "extra_head")


class Muon(torch.optim.Muon):
    """torch's Muon, also for matrices that are spread over processes: they are made whole for their update, one at a time. Of
    shares torch would take norms and products in bfloat16, and the result would depend on how many shares there are."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            settings = {name: group[name] for name in self.defaults}
            for p in group["params"]:
                if isinstance(p, DTensor) and p.grad is not None:
                    self._step_whole(p, settings)
        if not any(isinstance(p, DTensor) for group in self.param_groups for p in group["params"]):
            super().step()

    def _step_whole(self, p: DTensor, settings: dict[str, Any]) -> None:
        one = nn.Parameter(whole(p.detach()).clone())
        assert p.grad is not None
        one.grad = whole(p.grad)
        muon = torch.optim.Muon([one], **settings)
        if kept := self.state[p]:
            muon.state[one]["momentum_buffer"] = whole(kept["momentum_buffer"])
        muon.step()
        p.copy_(share_like(one.detach(), p))
        kept["momentum_buffer"] = share_like(muon.state[one]["momentum_buffer"], p)


def make_optimizers(model: nn.Module, config: Optim) -> list[torch.optim.Optimizer]:
    """Each trainable parameter in one group of one optimizer; a tied one, once. Matrices decay, vectors do not."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    muon = [(n, p) for n, p in named if config.kind == "muon" and p.ndim == 2 and not _kept_from_muon(n)]
    taken = {name for name, _ in muon}
    rest = [(n, p) for n, p in named if n not in taken]
    groups = [
        {"params": [p for _, p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for _, p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=betas, eps=1e-8, fused=True)
    ]
    if muon:
        # Scaled so that an update is as large as AdamW's (Liu et al. 2025, arXiv:2502.16982), one lr serves both.
        found.append(
            Muon([p for _, p in muon], lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    return found


def lr_at(config: Optim, step: int, steps: int) -> float:
    """The learning rate of step `step` of `steps`, counted from 0. The last is the floor, unless there is no decay."""
    warmup = config.warmup if config.warmup >= 1 else config.warmup * steps
    return config.lr * min((step + 1) / (warmup + 1), _fall(config, step, steps, warmup))


def _fall(config: Optim, step: int, steps: int, warmup: float) -> float:
    """The factor that the schedule leaves of lr, from 1 to the floor."""
    begin = {"wsd": (1 - config.decay) * steps, "constant": math.inf}.get(config.schedule, warmup)
    done = min(1.0, max(0.0, (step - begin) / max(steps - 1 - begin, 1e-9)))
    left = (1 + math.cos(math.pi * done)) / 2 if config.schedule == "cosine" else 1 - done
    return config.floor + (1 - config.floor) * left


def set_lr(optimizers: list[torch.optim.Optimizer], lr: float) -> None:
    for group in _groups(optimizers):
        group["lr"] = lr


def _groups(optimizers: list[torch.optim.Optimizer]) -> Iterator[dict[str, object]]:
    return (group for optimizer in optimizers for group in optimizer.param_groups)


def _kept_from_muon(name: str) -> bool:
    return any(part in name for part in NOT_MUON)
