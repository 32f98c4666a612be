"""What a training run will take, reckoned before it starts: arithmetic over a Spec and a machine's measured speeds.

    FLOPs of a token     6 N + 12 L H D T   (Kaplan et al. 2020; attention as in Chowdhery et al. 2022, appendix B)
                         N: numbers that are multiplied with a token: those it touches, without an embedding that is only looked up;
                         4 N where the weights are frozen, and 6 for each number of the adapters beside them
    compute-optimal      about 20 tokens for each parameter (Hoffmann et al. 2022, "Chinchilla")

Shape letters are those of model/spec.py; T is the context. Memory is counted as this house's loop uses it: float32 weights,
gradients and moments, chunked logits, and what autograd keeps between forward and backward.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from myna.model.spec import Spec
from myna.records import MynaError
from myna.train.config import Lora
from myna.train.loss import rows_at_once

OPTIMAL = 20  # tokens a parameter
FLOAT = 4  # bytes
MOMENTS = {"adamw": 2, "muon": 1}  # numbers kept for each weight; Muon's are for matrices, its embeddings have AdamW's
AGAIN = "compute activations again on the way back"
BOTH = "compute fewer rows at once, and activations again on the way back"
# Bytes a process takes for a byte that autograd keeps, on a CPU: buffers of the products' threads, what the allocator does not
# give back, gradients on their way. Measured: 1.3 with 1.5 million parameters, 1.4 to 1.6 with 11 million (docs/experiments.md).
SLACK = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """What is trained beside frozen weights (train/peft.py).

    lora       how; rank, kind and targets
    precision  what the frozen weights are kept as
    trained    numbers that are trained
    inner      numbers that a token has inside them: the sum of their ranks
    scaled     numbers of a token that DoRA scales: the sum of the rows that it has magnitudes of
    frozen     bytes of the weights beside them
    decoded    bytes at the widest of decoding the largest of those for a product, and of DoRA's norms of its rows; 0 without either
    """

    lora: Lora
    precision: str
    trained: int
    inner: int
    scaled: int = 0
    frozen: int
    decoded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A run. `rows` of `context` tokens make a step, `micro` of them are computed at once. `keep`: checkpoints kept. Without
    `adapters` all weights are trained."""

    spec: Spec
    context: int
    tokens: int
    rows: int = 16
    micro: int = 16
    precision: str = "float32"
    recompute: bool = False
    optimizer: str = "adamw"
    keep: int = 2
    adapters: Adapters | None = None

    def __post_init__(self) -> None:
        for name in ("context", "tokens", "rows", "micro", "keep"):
            if getattr(self, name) < 1:
                raise MynaError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.context > self.spec.max_len:
            raise MynaError(f"context is {self.context}, and the model reaches to {self.spec.max_len} tokens.")
        if self.micro > self.rows:
            raise MynaError(f"micro is {self.micro}: a step has only {self.rows} rows.")
        if self.precision not in ("float32", "bfloat16"):
            raise MynaError(f"precision is {self.precision!r}; it must be float32 or bfloat16.")
        if self.optimizer not in MOMENTS:
            raise MynaError(f"optimizer is {self.optimizer!r}; it must be {' or '.join(MOMENTS)}.")

    @property
    def steps(self) -> int:
        return ceil(self.tokens / (self.rows * self.context))

    @property
    def trained(self) -> int:
        """How many numbers are."""
        return self.adapters.trained if self.adapters else self.spec.parameters()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a machine does, measured at a model's shapes (train/profile.py).

    flops       of its matrix products, per second; bandwidth: bytes/s of plain reads and writes
    layer       seconds a layer takes for a token, forward and backward; rest: the same of embedding, head and loss
    update      seconds an optimizer's step takes for a parameter
    base        bytes of a process that has trained next to nothing
    slack       bytes it takes for a byte that autograd keeps
    memory      bytes there are for it
    """

    machine: str
    precision: str
    flops: float
    bandwidth: float
    layer: float
    rest: float
    update: float
    base: int
    slack: float
    memory: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes at the peak of a step, by what they are for."""

    base: int
    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.base + self.weights + self.gradients + self.moments + self.activations + self.logits


@dataclass(frozen=True, slots=True)
class Plan:
    """FLOPs and seconds of the whole run; `mfu` is the share of the machine's products that training them is; bytes of
    memory, and of disk for checkpoints and the finished model."""

    work: Work
    flops: float
    seconds: float
    mfu: float
    memory: Memory
    disk: int

    @property
    def tokens_per_second(self) -> float:
        return self.work.steps * self.work.rows * self.work.context / self.seconds


def plan(work: Work, profile: Profile) -> Plan:
    """What `work` takes on that machine. The profile must have been measured at its shapes and precision."""
    spec, step = work.spec, work.rows * work.context
    again = 4 / 3 if work.recompute else 1.0  # a forward more, and a backward costs two
    seconds = work.steps * (step * (spec.layers * profile.layer * again + profile.rest) + work.trained * profile.update)
    flops = work.steps * step * sum(token_flops(spec, work.context, work.trained if work.adapters else None))
    return Plan(
        work, flops, seconds, flops / seconds / profile.flops, memory(work, profile.base, profile.slack), disk(work)
    )


def token_flops(spec: Spec, context: int, beside: int | None = None) -> tuple[int, int]:
    """FLOPs of a token's forward and backward pass: (of products with weights, of attention). `beside`: numbers that are trained
    beside weights that are not."""
    products = 6 * multiplied(spec) if beside is None else 4 * multiplied(spec) + 6 * beside
    return products, 12 * spec.layers * spec.heads * spec.head_dim * context


def multiplied(spec: Spec) -> int:
    """N: the numbers that are multiplied with each token. Vectors are, an embedding that is no head as well is not."""
    return spec.active_parameters() - (0 if spec.tied else spec.vocab * spec.width)


def optimal_tokens(spec: Spec) -> int:
    return OPTIMAL * spec.parameters()


def memory(work: Work, base: int, slack: float = SLACK) -> Memory:
    """Bytes at the peak, which is where the loss is known and nothing was given back, or where all gradients are there."""
    spec, tokens, beside = work.spec, work.micro * work.context, work.adapters
    gradients = work.trained * FLOAT
    table = 0 if beside else spec.vocab * spec.width * FLOAT  # of the head's gradient
    places = min(rows_at_once(spec.vocab), tokens)
    # Values, their gradient, a copy; the gradient of hidden states; that of the head.
    logits = 3 * places * spec.vocab * FLOAT + tokens * spec.width * FLOAT + table
    kept = activations(spec, tokens, precision=work.precision, recompute=work.recompute, beside=beside)
    held = max(table + kept, gradients)  # the head's gradient comes first; the others as activations go
    return Memory(
        base=base,
        weights=gradients + (beside.frozen if beside else 0),
        gradients=gradients,
        moments=moments(work) * FLOAT,
        activations=ceil(slack * max(0, held - gradients)) + (beside.decoded if beside else 0),
        logits=logits,
    )


def activations(
    spec: Spec, tokens: int, *, precision: str = "float32", recompute: bool = False, beside: Adapters | None = None
) -> int:
    """Bytes that autograd keeps of so many tokens until the backward pass; with bfloat16 products also their weights' copies."""
    ends = tokens * (3 * spec.width + spec.head_dim + 2) * FLOAT
    layer = (layer_bytes(spec, precision) - (_spared(spec, precision, beside) if beside else 0)) * tokens
    tables = spec.vocab * spec.width * (1 if spec.tied else 2)
    whole = beside is None or beside.precision == "float32"
    copies = 2 * (spec.parameters() - tables) if precision == "bfloat16" and whole else 0
    if recompute:
        return ends + spec.layers * tokens * spec.width * FLOAT + layer + copies // spec.layers
    return ends + spec.layers * layer + copies


def layer_bytes(spec: Spec, precision: str = "float32") -> int:
    """Bytes that autograd keeps of a layer for each token: the inputs of products and norms, and what attention and the
    activation need on the way back. In bfloat16 is what products and attention take and give; all else is float32."""
    q, kv, half = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim, 4 if precision == "float32" else 2
    norms = 2 * (2 * spec.width + 1) * (2 if spec.post_norms else 1)  # the input of each, as it is and normalised
    kept, products = norms + spec.heads, spec.width + (q + kv) + q  # log-sum-exp; normed, rotated, what was seen
    if spec.qk_norm:
        kept += q + kv + spec.heads + spec.kv_heads
    if spec.qk_norm and half == 2:
        kept += q + kv  # what their norms took, in float32
    products += q + 2 * kv  # queries, keys and values are one tensor
    for times, hidden in _mlps(spec):
        products += times * (4 if spec.gated else 2) * hidden
    products += spec.width
    if spec.moe:  # what each expert gets and gives, and the router's choice
        kept += spec.moe.top_k * (2 * spec.width + 10) + 3 * spec.moe.experts
        products += spec.moe.top_k * spec.width
    return kept * FLOAT + products * half


def _spared(spec: Spec, precision: str, beside: Adapters) -> int:
    """Bytes that autograd does not keep of a layer for each token where its weights are frozen, if all its linears have adapters:
    what norms would need for their own gradient, and the MLP's inner one again; less what adapters have inside, and what DoRA
    scales, with and without its factor."""
    hidden = sum(times * size for times, size in _mlps(spec)) if spec.gated else 0
    inner, scaled = beside.inner // spec.layers, beside.scaled // spec.layers
    if precision == "float32":
        return FLOAT * (2 * spec.width + hidden - inner - 2 * scaled)
    return FLOAT * spec.width + 2 * hidden - 10 * inner - 4 * scaled


def moments(work: Work) -> int:
    """Numbers that the optimizer keeps."""
    if work.adapters:
        return 2 * work.trained  # AdamW's, whatever work.optimizer is
    spec = work.spec
    tables = spec.vocab * spec.width * (1 if spec.tied else 2)
    return 2 * tables + MOMENTS[work.optimizer] * (spec.parameters() - tables)


def disk(work: Work) -> int:
    """Bytes of the checkpoints (the best one and one being written too) and of the finished model or adapter, all in float32."""
    checkpoint = (work.trained + moments(work)) * FLOAT
    return (work.keep + 2) * checkpoint + work.trained * FLOAT


def _mlps(spec: Spec) -> list[tuple[int, int]]:
    """(how many a token goes through, their size) of a layer."""
    if spec.moe is None:
        return [(1, spec.hidden)]
    return [(spec.moe.top_k, spec.moe.hidden), *([(1, spec.moe.shared)] if spec.moe.shared else [])]


@dataclass(frozen=True, slots=True)
class Change:
    """Something to do differently, how it is said on the command line, and what comes of it."""

    what: str
    flags: str
    plan: Plan


def changes(work: Work, profile: Profile, *, limit: int, count: int = 3) -> list[Change]:
    """The cheapest changes after which a run needs at most `limit` bytes of memory: first those that change nothing but time,
    by time, then those that make another model, by how little smaller it is."""
    same = [Change(*told, plan(changed, profile)) for told, changed in _same_model(work)]
    fits = sorted((c for c in same if c.plan.memory.total <= limit), key=lambda c: (c.plan.seconds, -c.plan.work.micro))
    found: list[Change] = []
    for (
        change
    ) in fits:  # one of a kind: half of a micro-batch that fits, fits too; both only where the second alone does not
        if not any(c.what == change.what for c in found) and not (
            change.what == BOTH and any(c.what == AGAIN for c in found)
        ):
            found.append(change)
    other = (Change(*told, plan(changed, profile)) for told, changed in _other_model(work))
    for change in other:
        if len(found) >= count:
            break
        if change.plan.memory.total <= limit and not any(c.what == change.what for c in found):
            found.append(change)
    return found[:count]


def _same_model(work: Work) -> Iterator[tuple[tuple[str, str], Work]]:
    """Changes that leave what is learned as it is, to rounding."""
    micros = [m for m in range(work.micro - 1, 0, -1) if work.rows % m == 0]
    for micro in micros:
        yield ("compute fewer rows at once", f"--run.micro {micro}"), replace(work, micro=micro)
    if not work.recompute:
        again = replace(work, recompute=True)
        yield (AGAIN, "--model.recompute true"), again
        for micro in micros:
            flags = f"--model.recompute true --run.micro {micro}"
            yield (BOTH, flags), replace(again, micro=micro)


def _other_model(work: Work) -> Iterator[tuple[tuple[str, str], Work]]:
    """Shorter rows, as many tokens a step; then, of a model that is trained whole, fewer moments and fewer layers."""
    if work.optimizer == "adamw" and not work.adapters:
        yield ("keep one moment of a matrix instead of two", "--optim.kind muon"), replace(work, optimizer="muon")
    for context in (work.context // 2, work.context // 4, work.context // 8):
        if context >= 64:
            rows = work.rows * work.context // context
            flags = f"--data.context {context} --run.rows {rows} --run.micro {work.micro}"
            yield ("see shorter texts", flags), replace(work, context=context, rows=rows)
    for layers in range(work.spec.layers - 1, 0, -1) if not work.adapters else ():
        shallow = replace(work.spec, layers=layers, rules=work.spec.rules[:layers])
        least = replace(work, spec=shallow, micro=1, recompute=True)
        flags = f"--model.depth {layers} --model.recompute true --run.micro 1"
        yield ("make a smaller model", flags), least
