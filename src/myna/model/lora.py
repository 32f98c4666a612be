"""Low-rank adaptation, the readable truth. Training trains A and B, and m.

    LoRA (Hu et al. 2021)                       y = (W + scale * B A) x
    DoRA (Liu et al. 2024, arXiv:2402.09353)    y = m / n * (W + scale * B A) x, with n = the norm of each row of W + scale * B A

n is a constant to gradients (section 4.3 of the paper, and PEFT). m begins as the norms of W's rows, B as zero: nothing changes.
Our linears fuse q, k, v and gate, up, which adapters name apart: `places` says where each of their modules lies in ours.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.model.decoder import Decoder
from myna.model.families import family
from myna.model.linear import AnyLinear, Linear
from myna.model.load import parts_of
from myna.model.names import Part
from myna.model.read import read_rows
from myna.model.spec import Spec
from myna.modeldir import AdapterDir, LowRank, Stored
from myna.modeldir.adapter import Written
from myna.records import ModelDirError


class Lora(nn.Module):
    """x -> scale * B A x, of the module `name` on disk: rows `start` to `stop` of one of our linears.

    A [rank, K] begins random and B [N, rank] zero, so an adapter that was not trained changes nothing. Both are float32, or
    bfloat16 where both were stored so. `dropout` is of the input, and of training alone. `magnitude` float32 [N] is DoRA's m;
    None is LoRA.
    """

    def __init__(
        self,
        name: str,
        start: int,
        a: Tensor,
        b: Tensor,
        scale: float,
        dropout: float = 0.0,
        magnitude: Tensor | None = None,
    ):
        super().__init__()
        self.name, self.start, self.stop = name, start, start + len(b)
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)
        self.magnitude = None if magnitude is None else nn.Parameter(magnitude)
        self.scale, self.dropout = scale, dropout

    @classmethod
    def fresh(cls, part: Part, rank: int, scale: float, dropout: float = 0.0) -> "Lora":
        """One to be trained, begun as PEFT begins it."""
        rows, columns = part.shape[::-1] if part.turned else part.shape
        a = nn.init.kaiming_uniform_(torch.empty(rank, columns), a=math.sqrt(5))
        return cls(part.name.removesuffix(".weight"), part.start, a, torch.zeros(rows, rank), scale, dropout)

    @property
    def rank(self) -> int:
        return len(self.a)

    @property
    def nbytes(self) -> int:
        return self.a.nbytes + self.b.nbytes + (0 if self.magnitude is None else self.magnitude.nbytes)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> float32 [..., N]"""
        x = F.dropout(x.float(), self.dropout, self.training)
        return F.linear(F.linear(x, self.a.float()) * self.scale, self.b.float())

    def product(self) -> Tensor:
        """scale * B A, float32 [N, K]: what it adds to the weight."""
        return self.scale * (self.b.float() @ self.a.float())

    @torch.no_grad()
    def norms(self, weight: Tensor) -> Tensor:
        """DoRA's n, float32 [N], where the linear's weight is float32 `weight`. Computed anew each time, from B A as it is."""
        with torch.autocast(self.a.device.type, enabled=False):
            return (weight[self.start : self.stop] + self.product()).norm(dim=1)


class Adapted(nn.Module):
    """Any of our linears and what adapters add to its rows. Takes and gives what the linear does."""

    def __init__(self, base: AnyLinear, loras: tuple[Lora, ...]):
        super().__init__()
        self.base = base
        self.loras = nn.ModuleList(loras)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> float32 [..., N]"""
        y: Tensor = self.base(x)
        factors = dora_factors(self.base, [lora for lora in self.loras if isinstance(lora, Lora)])
        for lora, factor in zip(self.loras, factors, strict=True):
            rows = slice(lora.start, lora.stop)
            if factor is None:
                y[..., rows] += lora(x)
            else:  # this sum, and not the product alone, is exactly y where the factor is 1 and B is 0
                plain = y[..., rows] - (0 if self.base.bias is None else self.base.bias[rows])
                y[..., rows] += (factor - 1) * plain + factor * lora(x)
        return y


def dora_factors(base: AnyLinear, loras: Sequence[Lora]) -> list[Tensor | None]:
    """DoRA's m / n of each, float32 [N]; None of LoRA."""
    if all(lora.magnitude is None for lora in loras):
        return [None] * len(loras)
    weight = base.decoded().detach()
    return [None if lora.magnitude is None else lora.magnitude / lora.norms(weight) for lora in loras]


@dataclass(frozen=True, eq=False)
class Adapter:
    """What is added to each linear of a decoder, by its path: "layers.0.attention.qkv"."""

    loras: Mapping[str, tuple[Lora, ...]]

    @property
    def nbytes(self) -> int:
        return sum(lora.nbytes for lora in self)

    def __iter__(self) -> Iterator[Lora]:
        return (lora for loras in self.loras.values() for lora in loras)


def places(spec: Spec) -> dict[str, Part]:
    """What can be adapted: the linears of attention and of MLPs, by their name on disk. Experts cannot."""
    return {
        part.name.removesuffix(".weight"): part
        for part in parts_of(spec)
        if len(part.shape) == 2 and part.path.startswith("layers.")
        if not (".mlp." in part.path and spec.sparse(int(part.path.split(".")[1])))
    }


@torch.inference_mode(False)
def read_adapter(spec: Spec, folder: AdapterDir) -> Adapter:
    """The adapter of a folder for models of this spec. ModelDirError names what has no place in it, what does not fit, and
    what is not finite."""
    there, rename = places(spec), getattr(family(spec.family), "rename", lambda name: name)
    loras: dict[str, list[Lora]] = {}
    for module, low in folder.modules.items():
        part = there.get((rename(f"{module}.weight") or "").removesuffix(".weight"))
        if part is None:
            raise ModelDirError(_no_place(spec, folder, module))
        loras.setdefault(part.path.removesuffix(".weight"), []).append(_read(folder, module, low, part))
    adapter = Adapter({path: tuple(sorted(some, key=lambda one: one.start)) for path, some in loras.items()})
    for lora in adapter:
        lora.requires_grad_(False).eval()
    return adapter


def _no_place(spec: Spec, folder: AdapterDir, module: str) -> str:
    known = sorted({name.rpartition(".")[2] for name in places(spec)})
    return (
        f"{folder.path}: it adapts {module}, which is nothing that can be adapted in this model ({spec.family}, "
        f"{spec.layers} layers): {', '.join(known)}, and of mixtures of experts attention alone. Is it of another model?"
    )


def _read(folder: AdapterDir, module: str, low: LowRank, part: Part) -> Lora:
    rows, columns = part.shape[::-1] if part.turned else part.shape
    if low.a.shape[1] != columns or low.b.shape[0] != rows:
        raise ModelDirError(
            f"{folder.path}: of {module} A reads {low.a.shape[1]} numbers and B makes {low.b.shape[0]}; in this model it reads "
            f"{columns} and makes {rows}. The adapter is of another model."
        )
    a, b = read_rows(low.a, slice(None)), read_rows(low.b, slice(None))
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise ModelDirError(
            f"{folder.path}: {module} has numbers that are infinite or none at all. Was training cut off?"
        )
    dtype = torch.bfloat16 if low.a.kind == low.b.kind == "BF16" else torch.float32
    magnitude = None if low.magnitude is None else _magnitude(folder, module, low.magnitude, rows)
    return Lora(part.name.removesuffix(".weight"), part.start, a.to(dtype), b.to(dtype), low.scale, magnitude=magnitude)


def _magnitude(folder: AdapterDir, module: str, stored: Stored, rows: int) -> Tensor:
    if stored.shape != (rows,):
        raise ModelDirError(
            f"{folder.path}: {module} has {stored.shape[0]} magnitudes, and in this model it makes {rows} numbers. The adapter "
            "is of another model."
        )
    values = read_rows(stored, slice(None))
    if not torch.isfinite(values).all():
        raise ModelDirError(f"{folder.path}: magnitudes of {module} are infinite or none at all. Was training cut off?")
    return values


def written(adapter: Adapter, *, rslora: bool = False) -> dict[str, Written]:
    """What `publish_adapter` takes."""
    alpha = math.sqrt if rslora else float
    return {
        lora.name: Written(
            _numbers(lora.a), _numbers(lora.b), lora.scale * alpha(lora.rank),
            None if lora.magnitude is None else _numbers(lora.magnitude),
        )
        for lora in adapter
    }  # fmt: skip


def _numbers(tensor: Tensor) -> np.ndarray:
    found: np.ndarray = tensor.detach().float().cpu().numpy()
    return found


def attach(decoder: Decoder, adapter: Adapter) -> None:
    """Make the decoder compute with the adapter: its linears at these paths become Adapted, of any precision."""
    for path, loras in adapter.loras.items():
        _set(decoder, path, Adapted(linear_at(decoder, path), loras))


def detach(decoder: Decoder) -> None:
    """The decoder as it was before `attach`."""
    for path, module in [*decoder.named_modules()]:
        if isinstance(module, Adapted):
            _set(decoder, path, module.base)


@torch.no_grad()
def merge(decoder: Decoder, adapter: Adapter) -> None:
    """Make the adapter part of the dense weights, in place. ModelDirError where they are quantized."""
    for path, loras in adapter.loras.items():
        linear = _dense(decoder, path)
        for lora, factor in zip(loras, dora_factors(linear, loras), strict=True):
            rows = linear.weight[lora.start : lora.stop]
            rows.copy_((rows.float() + lora.product()) * (1 if factor is None else factor.unsqueeze(1)))


def kept_copy(decoder: Decoder, adapter: Adapter) -> dict[str, Tensor]:
    """The weights that `merge` will change, by path: for `unmerge`."""
    return {path: _dense(decoder, path).weight.detach().clone() for path in adapter.loras}


@torch.no_grad()
def unmerge(decoder: Decoder, kept: Mapping[str, Tensor]) -> None:
    """The weights as they were, to the byte. To subtract what was added would leave the rounding of both."""
    for path, weight in kept.items():
        _dense(decoder, path).weight.copy_(weight)


def _dense(decoder: Decoder, path: str) -> Linear:
    linear = linear_at(decoder, path)
    if not isinstance(linear, Linear):
        raise ModelDirError(f"{path} is {linear.precision}; merge into float32 or bfloat16 weights.")
    return linear


def linear_at(decoder: Decoder, path: str) -> AnyLinear:
    """The linear of a path, which nothing adapts yet."""
    module = decoder.get_submodule(path)
    assert isinstance(module, AnyLinear), f"{path} is adapted already"
    return module


def _set(decoder: Decoder, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(decoder.get_submodule(owner), name, module)
