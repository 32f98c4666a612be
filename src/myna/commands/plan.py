"""myna plan: what a training run will take, before it starts."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from myna.commands.options import printable
from myna.model.spec import Spec
from myna.records import DataError, MynaError
from myna.train.config import Lora
from myna.train.plan import Adapters, Plan, Profile, Work, changes, multiplied, optimal_tokens, plan, token_flops
from myna.train.rules import check_lora


@dataclass(frozen=True, kw_only=True)
class Steps:
    """How the run steps.

    Attributes
    ----------
    rows
        Rows a step learns from.
    micro
        Rows computed at once; 0 is all of a step's.
    precision
        What products are computed in.
    recompute
        Keep only each layer's input for the way back.
    optimizer
        adamw keeps two numbers for each weight, muon one for those of matrices.
    keep
        Checkpoints kept.
    """

    rows: int = 16
    micro: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    recompute: bool = False
    optimizer: Literal["adamw", "muon"] = "adamw"
    keep: int = 2


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What it runs on.

    Attributes
    ----------
    price
        Of an hour: a number, or a JSON file {"machine": number}.
    memory
        How much there is, as 16G; left out, what is free here.
    profile
        A machine profile measured at these shapes elsewhere, as --measure writes it.
    measure
        Measure this machine again.
    """

    price: str = ""
    memory: str = ""
    profile: Path | None = None
    measure: bool = False


WHOLE = Lora()  # no adapters: all weights are trained


def run(
    *,
    depth: int = 0,
    model: str = "",
    tokenizer: str = "",
    vocab: int = 8192,
    context: int = 512,
    experts: int = 0,
    tokens: str = "",
    steps: Annotated[Steps, Parameter(name="*", group="Steps")] = Steps(),
    lora: Annotated[Lora, Parameter(name="lora", group="Adapters")] = WHOLE,
    machine: Annotated[Machine, Parameter(name="*", group="Machine")] = Machine(),
) -> None:
    """Parameters, FLOPs, time, memory, disk and money of a training run, from what this machine was measured to do; and what
    to change where it does not fit. Of a run as `myna train` would begin it: myna train METHOD ... --plan.

    Parameters
    ----------
    depth
        Of a new model: layers, from which all sizes follow.
    model
        A model directory or a pulled model to train on, instead of a new one.
    tokenizer
        Of a new model: the directory whose vocabulary it has.
    vocab
        Of a new model without a tokenizer: how many tokens.
    context
        Tokens in a row.
    experts
        Of a new model: experts in each layer, of which a token sees two.
    tokens
        How many tokens to train on: 5000000, 5M, 1.5B. Left out, the compute-optimal 20 for each parameter.
    """
    spec = _spec(depth, model, tokenizer, vocab, context, experts)
    count = _number(tokens, "tokens", 1000) if tokens else optimal_tokens(spec)
    told = replace(steps, micro=steps.micro or steps.rows)
    check_lora(lora)
    adapters = _adapters(model, lora) if lora.adapts else None
    show(Work(spec=spec, context=context, tokens=count, adapters=adapters, **asdict(told)), machine)


def show(work: Work, machine: Machine) -> None:
    """The plan, on the terminal. MynaError if it does not fit, after what would."""
    from myna.train.profile import find_profile, read_profile

    found = read_profile(machine.profile) if machine.profile else find_profile(work, again=machine.measure)[0]
    if found.precision != work.precision:
        raise DataError(
            f"{machine.profile} was measured with {found.precision}, and the run computes in {work.precision}."
        )
    limit = _number(machine.memory, "memory", 1024) if machine.memory else found.memory
    made = plan(work, found)
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(_table(made, found, limit, _price(machine.price, found.machine) if machine.price else None))
    if made.memory.total > limit:
        _advise(screen, work, found, limit)
        raise MynaError(f"it does not fit: {decimal(made.memory.total)} are needed, and there are {decimal(limit)}.")


def _adapters(model: str, lora: Lora) -> Adapters:
    from myna.modeldir import ModelDir, find
    from myna.train.peft import beside

    if not model:
        raise MynaError("--lora.rank: an adapter is trained beside a model that there is: --model NAME.")
    return beside(ModelDir.open(find(model)), lora)


def _spec(depth: int, model: str, tokenizer: str, vocab: int, context: int, experts: int) -> Spec:
    if bool(depth) == bool(model):
        raise MynaError("plan what? --depth N for a new model, or --model NAME for one there is.")
    if model:
        from myna.model import describe
        from myna.modeldir import ModelDir, find

        return describe(ModelDir.open(find(model)))[0]
    from myna.train.shape import shape_spec

    if tokenizer:
        from myna.chat import Tokenizer
        from myna.modeldir import find

        vocab = Tokenizer.load(find(tokenizer)).vocab_size
    return shape_spec(depth, vocab=vocab, context=context, experts=experts)


def _table(made: Plan, profile: Profile, limit: int, price: float | None) -> Table:
    work, spec, need = made.work, made.work.spec, made.memory
    total, table = spec.parameters(), spec.vocab * spec.width
    _, attention = token_flops(spec, work.context)
    active = f", {spec.active_parameters():,} at work on each token" if spec.moe else ""
    optimal = optimal_tokens(spec)
    parts = ("weights", "gradients", "moments", "activations", "logits", "base")
    per_token = f"6 x {multiplied(spec):,}"
    if work.adapters:
        per_token = f"4 x {multiplied(spec):,} frozen, 6 x {work.trained:,} trained"
    rows = [
        ("model", f"{spec.family}: {spec.layers} layers, width {spec.width}, {spec.heads} heads, hidden {spec.hidden}"),
        ("parameters", f"{total:,}{active}; {table / total:.0%} of them embedding{_beside(work)}"),
        ("data", f"{work.tokens:,} tokens, {work.tokens / total:.1f} a parameter (compute-optimal: {optimal:,}, 20 a parameter)"),
        ("steps", f"{work.steps:,} of {work.rows} rows of {work.context} tokens, {work.micro} rows at once"),
        ("FLOPs", f"{made.flops:.3g}: a token takes {per_token} and {attention:,} of attention"),
        ("machine", f"{profile.machine}: {profile.flops / 1e9:,.0f} GFLOP/s in {profile.precision}, {profile.bandwidth / 1e9:,.0f} GB/s"),
        ("time", f"{duration(made.seconds)}: {made.tokens_per_second:,.0f} tokens/s, MFU {made.mfu:.0%}"),
        ("memory", f"{decimal(need.total)} at the peak: " + ", ".join(f"{p} {decimal(getattr(need, p))}" for p in parts)),
        ("fits", f"{'yes' if need.total <= limit else 'NO'}: there are {decimal(limit)}"),
        ("disk", f"{decimal(made.disk)} for checkpoints ({work.keep} kept, the best, and one being written) and the model"),
    ]  # fmt: skip
    if price is not None:
        rows.append(("money", f"{made.seconds / 3600 * price:,.2f} at {price:g} an hour"))
    shown = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows:
        shown.add_row(name, printable(value))
    return shown


def _beside(work: Work) -> str:
    if not work.adapters:
        return ""
    kept = f"kept as {work.adapters.precision}"
    return f"; {work.trained:,} are trained beside them ({work.trained / work.spec.parameters():.2%}), which are {kept}"


def _advise(screen: Console, work: Work, profile: Profile, limit: int) -> None:
    found = changes(work, profile, limit=limit)
    if not found:
        screen.print("Nothing makes it fit: take a machine with more memory, or a smaller vocabulary.")
    for change in found:
        memory, seconds = decimal(change.plan.memory.total), duration(change.plan.seconds)
        screen.print(f"To fit, {change.what}: {change.flags}  ({memory}, {seconds})", markup=False)


def duration(seconds: float) -> str:
    """Seconds as people say it: 48 s, 12 min, 3.5 h, 2.1 days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _number(text: str, name: str, thousand: int) -> int:
    """5000, 5k, 1.5M, 2B or 2G."""
    powers = {"k": 1, "m": 2, "b": 3, "g": 3, "t": 4}
    power = powers.get(text[-1:].lower(), 0)
    try:
        value = float(text[:-1] if power else text) * thousand**power
        if not 1 <= value < 1e18:
            raise ValueError
    except ValueError:
        raise MynaError(f"--{name} {text}: a number, as 5000000, 5M or 1.5B.") from None
    return int(value)


def _price(text: str, machine: str) -> float:
    """Of an hour."""
    try:
        value = float(text)
    except ValueError:
        value = _listed_price(Path(text), machine)
    if not 0 <= value < 1e9:
        raise MynaError(f"--price {text}: a price is 0 or more.")
    return value


def _listed_price(file: Path, machine: str) -> float:
    """Of the entry whose name is part of the machine's."""
    try:
        prices = json.loads(file.read_text())
        found = next((float(prices[name]) for name in prices if name.lower() in machine.lower()), None)
    except (OSError, ValueError, TypeError) as e:
        raise MynaError(f"--price {file}: a number, or a JSON file of machines and prices an hour: {e}") from None
    if found is None:
        raise MynaError(f"{file} has no price for {machine!r}; it has: {', '.join(prices)}.")
    return found
