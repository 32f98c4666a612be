"""myna list: the models that are here, and those that can be pulled by name."""

from rich.console import Console
from rich.filesize import decimal

from myna.commands.options import folded, printable
from myna.modeldir import CATALOGUE, DEFAULT, list_models


def run() -> None:
    """The models you have, and those you can pull by name."""
    here = list_models()
    screen = Console(highlight=False, soft_wrap=not Console().is_terminal)
    if here:
        table = folded("model", "size", "kind", "source")
        for model in here:
            table.add_row(model.name, decimal(model.nbytes), model.kind, printable(model.source))
        screen.print(table)
    missing = [entry for name, entry in CATALOGUE.items() if name not in {model.name for model in here}]
    for entry in missing:
        default = " (the default)" if entry.name == DEFAULT else ""
        screen.print(f"\n[dim]myna pull[/dim] {entry.name}{default}  {decimal(entry.nbytes)}\n    {entry.about}")
