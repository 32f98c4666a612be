"""myna show: what a model is, and whether it fits here."""

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from myna.commands.options import printable
from myna.modeldir import DEFAULT, Facts, ModelDir, facts, find
from myna.provider.local import Loading


def run(model: str = DEFAULT, /, *, precision: str = "auto", tokens: int = 4096, draft: str | None = None) -> None:
    """What a model is, where it came from, and what it takes in memory; said before anything is loaded.

    Parameters
    ----------
    model
        A pulled model's name, or the path of a model directory.
    precision
        auto, float32, bfloat16, int8, int4, mixed or reference, as for loading.
    tokens
        How long a conversation to reckon with.
    draft
        A model that drafts for this one, as for loading: what both take together.
    """
    from myna.model import available_memory, describe, estimate

    directory = ModelDir.open(find(model))
    about, (spec, _) = facts(directory), describe(directory)
    needs = estimate(directory, precision, kv_tokens=tokens)
    if draft:
        needs = needs.beside(estimate(ModelDir.open(find(draft)), kv_tokens=tokens))
    free = available_memory()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _identity(about, encoder=spec.encoder is not None):
        table.add_row(name, printable(value))
    table.add_row("parameters", f"{spec.parameters():,}" + _active(spec.parameters(), spec.active_parameters()))
    if spec.encoder:
        table.add_row("in memory", f"{needs.precision}: {decimal(needs.weights)} of weights")
        table.add_row("to embed", f"{decimal(needs.total)} at the peak")
    else:
        most = Loading().kv_gb
        table.add_row("in memory", f"{needs.precision}: {decimal(needs.weights)} of weights, {_kv(needs.kv_per_token)}")
        table.add_row(
            "to chat",
            f"{decimal(needs.total)} at the peak with {tokens} tokens; a server adds up to {most:g} GiB of cache",
        )
    verdict = "fits" if needs.total < free else "does NOT fit"
    table.add_row("here", f"{verdict}: {decimal(free)} of memory is free")
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(table)
    for warning in about.warnings:
        screen.print(printable(f"note: {warning}"), style="yellow")


def _identity(about: Facts, *, encoder: bool) -> list[tuple[str, str]]:
    kinds = ", ".join(f"{kind} {decimal(size)}" for kind, size in about.kinds.items())
    packed = ", ".join(f"{precision} {decimal(size)}" for precision, size in about.packed.items())
    lineage = {k: about.lineage.get(k) for k in ("provenance", "date", "parent", "step") if about.lineage.get(k)}
    return [
        ("model", about.name),
        ("path", str(about.path)),
        ("architecture", f"{about.architecture}, {about.layers} layers, vocabulary {about.vocabulary}"),
        ("on disk", f"{decimal(about.nbytes)} as {about.format}: {kinds}"),
        *([("packed", f"{packed}: kept so that the next start is quick")] if packed else []),
        ("context", f"{about.context} tokens"),
        *([] if encoder else [("template", "yes" if about.template else "none: a base model, which continues text")]),
        ("licence", about.licence or "not stated"),
        ("source", about.source or "not recorded"),
        *((k, str(v)) for k, v in lineage.items()),
    ]


def _active(total: int, active: int) -> str:
    return f" ({active:,} of them at work on each token)" if active < total else ""


def _kv(size: int) -> str:
    return f"and {decimal(size)} for each token of context"
