"""What this machine does with a model's shapes: one layer and the ends of the model are trained for a moment and timed.

Kept in the user's cache by machine, shapes and precision. Times are medians, of steps of a model of one layer and one of three
in turns: what the two layers more take is a layer's time, what is left is the time of embedding, head and loss.
"""

import ctypes
import hashlib
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path

import psutil
import torch

from myna.model import Causal, Decoder, available_memory
from myna.model.load import MAKE, TABLES
from myna.model.lora import attach
from myna.model.spec import Spec
from myna.modeldir import cache_dir
from myna.records import DataError
from myna.train.config import Config, Optim
from myna.train.loss import cross_entropy
from myna.train.optim import make_optimizers
from myna.train.peft import choose, fresh
from myna.train.plan import SLACK, Profile, Work, token_flops
from myna.train.trainee import Trainee

MOST = 4096  # tokens of a timed step: enough for the products' full speed
ROUNDS, SECONDS = 9, 20.0  # how often everything is timed, and the time after which that is enough
# A run that starts finds out how fast products are in this many seconds, and on a CPU with this many rows: its products reach
# with 512 what they reach with 4,096 (63 to 88 GFLOP/s against 61 to 68, two shared cores, widths 128 to 512).
TRIED, FEW = 0.1, 512


def find_profile(work: Work, *, again: bool = False) -> tuple[Profile, bool]:
    """(the profile of this machine at the run's shapes, whether it was measured just now). `again` measures in any case."""
    file = cache_dir() / "profiles" / f"{_key(work)}.json"
    if file.is_file() and not again:
        try:
            return replace(read_profile(file), memory=_memory()), False
        except DataError:  # of another version
            pass
    profile = measure_profile(work)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(asdict(profile), indent=2) + "\n")
    partial.replace(file)
    return profile, True


def read_profile(file: Path) -> Profile:
    """A profile that was written down, here or on another machine. Raises DataError."""
    try:
        found = json.loads(file.read_text())
        wanted = {field.name: field.type for field in fields(Profile)}
        if set(found) != set(wanted):
            raise ValueError(f"its keys should be {', '.join(wanted)}")
        if bad := [name for name, kind in wanted.items() if kind is not str and not 0 < float(found[name]) < 1e30]:
            raise ValueError(f"{bad[0]} is {found[bad[0]]!r}; it must be a number above 0")
    except (OSError, ValueError, TypeError) as e:
        raise DataError(f"{file}: no machine profile: {e}") from None
    return Profile(**found)


def measure_profile(work: Work) -> Profile:
    """Takes some seconds, on the GPU if there is one."""
    device = _device()
    base = _base(work, device)
    one, three = (_Timed(_cut(work.spec, layers), work, device) for layers in (1, 3))
    times: dict[str, list[float]] = {name: [] for name in ("one", "three", "update", "product", "copy")}
    product, size = _products(work.spec, work.precision, one.tokens, device)
    read = torch.ones(32 << 20, device=device)
    target = torch.empty_like(read)
    jobs: dict[str, Callable[[], object]] = {
        "one": one.learn, "three": three.learn, "update": three.update, "product": product,
        "copy": lambda: target.copy_(read),
    }  # fmt: skip
    for job in jobs.values():
        job()
    until = time.monotonic() + SECONDS
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            times[name].append(_timed(job, device))
        if time.monotonic() > until:
            break
    took = {name: statistics.median(values) for name, values in times.items()}
    layer = max(took["three"] - took["one"], 0.05 * took["three"]) / 2 / one.tokens
    return Profile(
        machine=_name(device),
        precision=work.precision,
        flops=size / took["product"],
        bandwidth=2 * read.nbytes / took["copy"],
        layer=layer,
        rest=max(took["one"] / one.tokens - layer, 0.02 * layer),
        update=took["update"] / three.parameters,
        base=base,
        slack=1.1 if device.type == "cuda" else SLACK,
        memory=_memory(),
    )


class _Timed:
    """A model that learns from random tokens, as the loop would."""

    def __init__(self, spec: Spec, work: Work, device: torch.device):
        with device:
            self.model = _decoder(spec, work)
        rows = max(1, min(work.micro, MOST // work.context))
        self.tokens = rows * work.context
        self.parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.ids = torch.randint(spec.vocab, (rows, work.context), device=device)
        self.positions = torch.arange(work.context, device=device).expand(rows, -1)
        self.weights = torch.ones(rows, work.context, device=device)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=work.precision == "bfloat16")
        self.optimizers = make_optimizers(self.model, Optim(kind="muon" if work.optimizer == "muon" else "adamw"))

    def learn(self) -> None:
        for p in self.model.parameters():
            p.grad = None
        with self.autocast:
            hidden = self.model(self.ids, self.positions, Causal())
            loss = cross_entropy(self.model, hidden, self.ids, self.weights)
        loss.backward()

    def update(self) -> None:
        """What the loop does with summed gradients: divide, measure, change."""
        grads = [p.grad for p in self.model.parameters() if p.grad is not None]
        torch._foreach_div_(grads, 2.0)
        float(torch.nn.utils.get_total_norm(grads))
        for optimizer in self.optimizers:
            optimizer.step()


def _decoder(spec: Spec, work: Work) -> Decoder:
    """With adapters as the run has them in any of its layers, beside weights kept as its own are, whatever numbers they are."""
    if work.adapters is None:
        return Decoder(spec, max_len=work.context)
    make, table = MAKE[work.adapters.precision], TABLES.get(work.adapters.precision)
    model = Decoder(spec, make, work.context, table=table).requires_grad_(False)
    meant = choose(work.spec, work.adapters.lora.targets)  # perhaps of layers that this one has not
    ends = sorted({re.split(r"\.\d+\.", part.name.removesuffix(".weight"), maxsplit=1)[1] for part in meant})
    attach(model, adapter := fresh(model, replace(work.adapters.lora, targets=tuple(ends)), seed=0))
    for lora in adapter:
        lora.requires_grad_(True)
    return model


def _products(spec: Spec, precision: str, rows: int, device: torch.device) -> tuple[Callable[[], object], int]:
    """All products of a layer with so many rows, forward, and how many FLOPs they are."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    q, kv = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    hidden = spec.moe.hidden * spec.moe.top_k if spec.moe else spec.hidden
    shapes = [
        (spec.width, q + 2 * kv),
        (q, spec.width),
        (spec.width, (2 if spec.gated else 1) * hidden),
        (hidden, spec.width),
    ]
    pairs = [
        (torch.randn(rows, k, device=device, dtype=dtype), torch.randn(n, k, device=device, dtype=dtype))
        for k, n in shapes
    ]
    return lambda: [torch.nn.functional.linear(x, w) for x, w in pairs], sum(2 * rows * k * n for k, n in shapes)


def machine_and_token(trainee: Trainee, config: Config) -> tuple[float, float] | None:
    """FLOPs a second of this machine's products at the run's shapes, the best of some tries; and FLOPs of training on a token,
    where a frozen weight costs two thirds of a trained one. None for an encoder, which plan.py does not reckon."""
    if not isinstance(trainee.model, Decoder):
        return None
    spec, run, context = trainee.model.spec, config.run, config.data.context
    rows = min((run.micro or run.rows) * context, FEW if trainee.device.type == "cpu" else MOST)
    product, size = _products(spec, config.model.precision, rows, trainee.device)
    times, until = [_timed(product, trainee.device)], time.monotonic() + TRIED
    while len(times) < ROUNDS and time.monotonic() < until:
        times.append(_timed(product, trainee.device))
    trained = sum(p.numel() for p in trainee.trained().values())
    whole = trained >= spec.parameters()
    return size / min(times), sum(token_flops(spec, context, None if whole else trained))


def _timed(job: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    job()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _cut(spec: Spec, layers: int) -> Spec:
    """The spec with so many layers, all like its first."""
    moe = replace(spec.moe, dense=frozenset()) if spec.moe else None
    return replace(spec, layers=layers, rules=spec.rules[:1] * layers, moe=moe)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _base(work: Work, device: torch.device) -> int:
    """Bytes this process has after training next to nothing: torch's optimizers alone bring 75 MB of code. On a GPU nothing
    worth counting."""
    small = replace(_cut(work.spec, 1), vocab=64, width=64, heads=1, kv_heads=1, head_dim=64, hidden=64, moe=None)
    tiny = _Timed(small, replace(work, spec=small, micro=1, rows=1, adapters=None), device)
    tiny.learn()
    tiny.update()
    with suppress(
        OSError, AttributeError
    ):  # of a model that was loaded to be planned glibc keeps much; other libraries do not
        ctypes.CDLL(None).malloc_trim(0)
    return 1 << 20 if device.type == "cuda" else int(psutil.Process().memory_info().rss)


def _memory() -> int:
    """Bytes there are for a run that has not started; the rest of this process goes when it ends."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return available_memory() + int(psutil.Process().memory_info().rss)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _key(work: Work) -> str:
    """Whatever the times depend on."""
    spec = replace(work.spec, layers=1, rules=work.spec.rules[:1])
    told = (_name(_device()), torch.__version__, repr(spec), work.context, min(work.micro, MOST // work.context))
    beside = work.adapters and (work.adapters.lora, work.adapters.precision)
    return hashlib.sha256(repr((*told, work.precision, work.optimizer, beside)).encode()).hexdigest()[:20]
