"""Several processes that train one model together: torchrun starts them, torch's FSDP2 spreads the model over them.

Each holds a share of every weight, gradient and moment, and computes a share of each micro-batch's rows. Weights are made
whole a block at a time, for as long as the block computes; gradients are summed (Zhao et al. 2023, arXiv:2304.11277). The
loop divides once by the step's units, so how many processes there are changes nothing but rounding.
"""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm

from myna.model import Decoder, Encoder
from myna.records import DataError, MynaError
from myna.train.tensor_parallel import split

# One process may tokenize or write for hours while the others wait. That a process is gone is noticed at once, without this.
PATIENCE = timedelta(hours=12)

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class World:
    """This process among those that train one model. What is said to be for all must be called by all, in the same order."""

    rank: int = 0
    size: int = 1
    tensor: int = 1  # neighbours that compute each layer together, and so the same rows; see tensor_parallel.py
    orders: dict[str, Tensor] = field(default_factory=dict)  # in which rows of a weight were dealt out to them

    @property
    def part(self) -> int:
        """Which of `parts` shares of the rows this process computes."""
        return self.rank // self.tensor

    @property
    def parts(self) -> int:
        return self.size // self.tensor

    def sharing(self, tensor: int) -> "World":
        """The same with so many neighbours that compute each layer together."""
        return World(self.rank, self.size, tensor)

    @property
    def is_main(self) -> bool:
        """The one that writes and shows."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes; for all."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def sum_rows(self, values: Sequence[float]) -> list[float]:
        """Each value, which belongs to the rows that a process computes, summed over all rows; for all."""
        return self.sum(values if self.rank % self.tensor == 0 else [0.0] * len(values))

    def norm(self, tensors: Iterable[Tensor]) -> float:
        """The norm of all numbers of tensors of which each process holds a share; for all."""
        by_copies = defaultdict(list)
        for tensor in tensors:
            by_copies[self._copies(tensor)].append(share(tensor))
        squares = [float(get_total_norm(shares)) ** 2 / copies for copies, shares in by_copies.items()]
        return math.sqrt(self.sum([sum(squares)])[0])

    def _copies(self, tensor: Tensor) -> int:
        """How many processes hold the same share."""
        if not isinstance(tensor, DTensor):
            return self.size
        sizes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)
        return self.size // math.prod(size for size, placement in sizes if not placement.is_replicate())

    def any(self, value: bool) -> bool:
        """Whether it is true of one; for all."""
        return self.sum([float(value)])[0] > 0

    def exchange(self, value: A) -> list[A]:
        """What each process has, by rank: numbers and records, not what is on a GPU; for all."""
        found: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(found, value)
        return found

    def each(self, items: Sequence[A], work: Callable[[Sequence[A]], Sequence[B]]) -> list[B]:
        """What `work` makes of every item, of which each process does its share; for all."""
        mine = items[self.rank :: self.size]
        found: dict[int, B] = {}
        for rank, done in enumerate(self.exchange(work(mine) if mine else [])):
            found |= zip(range(rank, len(items), self.size), done, strict=True)
        return [found[number] for number in range(len(items))]

    @contextmanager
    def first(self) -> Iterator[None]:
        """A context that the main process goes through before the others, which then find what it made. Where it fails, it
        tells why, and the others end without a word."""
        if not self.is_main and self.any(False):
            raise SystemExit(2)
        failed = True
        try:
            yield
            failed = False
        finally:
            if self.is_main:
                self.any(failed)

    def spread(self, module: nn.Module, model: Decoder | Encoder, send: str = "float32") -> None:
        """Leave of a module's weights, those of the model in it among them, this process's share, in place; for all. Weights
        travel as `send`, gradients in float32."""
        if self.size == 1:
            return
        device = next(module.parameters()).device.type
        everyone = over_rows = init_device_mesh(device, (self.size,))
        if self.tensor > 1:
            grid = init_device_mesh(device, (self.parts, self.tensor), mesh_dim_names=("rows", "tensor"))
            over_rows, prefix = grid["rows"], next(name for name, part in module.named_modules() if part is model)
            orders = split(model, grid["tensor"])
            self.orders.update({f"{prefix}.{path}".lstrip("."): order for path, order in orders.items()})
        beside = [child for child in module.children() if child is not model] if module is not model else []
        apart = [part for child in beside for part in child.modules() if part._parameters]
        for part in model.layers:
            _spread(part, over_rows, 1, send)
        for part in (model, *apart):  # computed alike by all that share a layer, so their gradients come several times
            _spread(part, everyone, self.tensor, send)
        if whole := [name for name, p in module.named_parameters() if not isinstance(p, DTensor)]:
            raise MynaError(
                f"{whole[0]} cannot be spread over {self.size} processes; train it in one, without torchrun"
            )

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors whole, on the CPU, where is_main; nothing elsewhere. One is gathered at a time; for all."""
        found = {}
        for name, tensor in tensors.items():
            one = whole(tensor.detach(), self._order(name, tensor))
            if self.is_main:
                found[name] = one if self.size == 1 else one.cpu()
        return found

    @contextmanager
    def gathered(self, module: nn.Module) -> Iterator[None]:
        """The module's weights whole, on the CPU, where is_main: to be written, not to compute with; for all."""
        kept: list[tuple[nn.Module, str, nn.Parameter, str]] = []
        for path, part in module.named_modules():
            for name, p in part._parameters.items():
                kept += [(part, name, p, f"{path}.{name}")] if p is not None else []
        for part, name, p, path in kept:
            one = whole(p.detach(), self._order(path, p))
            if self.is_main and self.size > 1:
                part._parameters[name] = nn.Parameter(one.cpu(), requires_grad=p.requires_grad)
        try:
            yield
        finally:
            for part, name, p, _ in kept:
                part._parameters[name] = p

    def dealt(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors as they are on disk, with their rows in the order in which they are spread."""
        return {name: t if (order := self._order(name, t)) is None else t[order] for name, t in tensors.items()}

    def _order(self, name: str, tensor: Tensor) -> Tensor | None:
        """Of a parameter, its running mean "ema:NAME" or a moment "NAME:moment"; numbers that stand alone have none."""
        return next((self.orders[part] for part in name.split(":") if tensor.ndim and part in self.orders), None)


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun made this process part of; ALONE without one. MynaError if another process is lost."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    _start()
    world = World(dist.get_rank(), size)
    try:
        yield world
    except RuntimeError as e:
        if isinstance(e, dist.DistError) or "gloo" in str(e).lower():
            raise MynaError(
                f"process {world.rank} of {size} has lost another one, which says why above. When that is mended, go on "
                f"from the last checkpoint with --resume. ({str(e).splitlines()[0]})"
            ) from None
        raise
    finally:
        dist.destroy_process_group()


def _start() -> None:
    if not torch.cuda.is_available():
        dist.init_process_group("gloo", timeout=PATIENCE)
        return
    place, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if place >= there:
        raise DataError(f"process {place + 1} on this machine has no GPU: there are {there}. --nproc-per-node {there}")
    torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)


def whole(tensor: Tensor, order: Tensor | None = None) -> Tensor:
    """All of a tensor, of which each process may hold a share, its rows dealt out in this order; for all."""
    found = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return found if order is None else found[order.argsort().to(found.device)]


def share(tensor: Tensor) -> Tensor:
    """What of it this process holds; to write there is to write into the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def share_like(value: Tensor, like: Tensor, order: Tensor | None = None) -> Tensor:
    """A whole tensor, which every process has, spread as `like` is: the inverse of `whole`."""
    value = value if order is None else value[order.to(value.device)]
    if not isinstance(like, DTensor):
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def settle(module: nn.Module) -> None:
    """Put the shares back in the place of weights that computing without gradients left whole, so that what is written into
    them counts, and named_parameters() gives what the optimizer knows."""
    for part in _spread_parts(module):
        part.reshard()


def summing(module: nn.Module, now: bool) -> None:
    """Whether the next gradients are summed over processes, or kept, whole, until some are."""
    for part in _spread_parts(module):
        part.set_requires_gradient_sync(now, recurse=False)


@contextmanager
def standing(module: nn.Module) -> Iterator[None]:
    """All weights whole at once in every process, so that each may compute by itself; for all."""
    parts = [*_spread_parts(module)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not parts[0], recurse=False)
            part.reshard()


def _spread(part: nn.Module, mesh: DeviceMesh, times: int, send: str) -> None:
    """Over the processes of a mesh. Its gradient is their sum, not their mean, over how many times each row is among them."""
    kind = torch.bfloat16 if send == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=kind, reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(part, mesh=mesh, mp_policy=policy)
    assert isinstance(part, FSDPModule)
    part.set_gradient_divide_factor(times)
    part.set_force_sum_reduction_for_comms(True)


def _spread_parts(module: nn.Module) -> Iterator[FSDPModule]:
    return (part for part in module.modules() if isinstance(part, FSDPModule))
