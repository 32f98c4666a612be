"""Which parameters change how, and how fast at each step: torch's own AdamW and Muon, and the four schedules in use."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from myna.model import Decoder, Encoder
from myna.train.config import Optim
from myna.train.parallel import share_like, whole

# Never Muon's: it makes a matrix's update orthogonal, which is meant for maps between hidden states (Jordan et al. 2024).
NOT_MUON = ("embed", "head", "places", "kinds", "score", "router", ".loras.")


class Muon(torch.optim.Muon):
    """torch's Muon, of each matrix by itself: `rows` says of which rows a parameter's matrices are. We keep queries, keys and
    values in one parameter, and gate and up; made orthogonal together they learned less than AdamW (docs/experiments.md).

    Matrices that are spread over processes are made whole for their update, one parameter at a time. Of shares torch would take
    norms and products in bfloat16, and the result would depend on how many shares there are. `orders`: how a parameter's rows
    were dealt out to processes that share a layer."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        rows: Mapping[nn.Parameter, Sequence[int]] | None = None,
        orders: Mapping[nn.Parameter, Tensor] | None = None,
        **settings: Any,
    ):
        super().__init__(params, **settings)
        self.rows, self.orders = rows or {}, orders or {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            settings = {name: group[name] for name in self.defaults}
            for p in group["params"]:
                if p.grad is not None:
                    self._step(p, settings)

    def _step(self, p: nn.Parameter, settings: dict[str, Any]) -> None:
        assert p.grad is not None
        kept, order = self.state[p], self.orders.get(p)
        weight, grad = whole(p.detach(), order), whole(p.grad, order)
        momentum = whole(kept["momentum_buffer"], order) if kept else torch.zeros_like(grad)
        rows = list(self.rows.get(p, (len(weight),)))
        matrices = [nn.Parameter(matrix) for matrix in weight.split(rows)]
        muon = torch.optim.Muon(matrices, **settings)
        for matrix, its_grad, its_momentum in zip(matrices, grad.split(rows), momentum.split(rows), strict=True):
            matrix.grad = its_grad
            muon.state[matrix]["momentum_buffer"] = its_momentum
        muon.step()  # what it writes, it writes into weight and momentum
        if isinstance(p, DTensor):
            p.copy_(share_like(weight, p, order))
        kept["momentum_buffer"] = share_like(momentum, p, order)


def make_optimizers(
    model: nn.Module, config: Optim, orders: Mapping[str, Tensor] | None = None
) -> list[torch.optim.Optimizer]:
    """Each trainable parameter in one group of one optimizer; a tied one, once. Matrices decay, vectors do not. `orders` are those
    of World, by name."""
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
        known = _rows(model)
        rows = {p: known[name] for name, p in muon if name in known}
        settings = {"lr": config.lr, "weight_decay": config.weight_decay, "adjust_lr_fn": "match_rms_adamw"}
        dealt = {p: orders[name] for name, p in muon if orders and name in orders}
        found.append(Muon([p for _, p in muon], rows, dealt, **settings))
    return found


def _rows(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Parameter -> rows of each weight in it."""
    decoders = [(name, m) for name, m in model.named_modules() if isinstance(m, Decoder | Encoder)]
    return {f"{at}.{path}".lstrip("."): slot.rows for at, decoder in decoders for path, slot in decoder.spec.slots()}


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
