"""myna explain: the exact prompt, segment by segment."""

from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from myna.chat import Chat, Segment
from myna.commands.options import folded, printable
from myna.modeldir import DEFAULT, find
from myna.records import Conversation


def run(
    model: str = DEFAULT,
    /,
    *,
    message: Annotated[str, Parameter(name=["--message", "-m"])],
    system: str | None = None,
    ids: bool = True,
) -> None:
    """Show the exact prompt a model would see: its segments, and the tokens of each. No weights are loaded.

    Parameters
    ----------
    model
        A pulled model's name, or the path of a model directory.
    message
        What the user says.
    system
        Instructions for the conversation.
    ids
        Show token ids.
    """
    chat = Chat.load(find(model))
    turns = Conversation.of(("system", system), ("user", message)) if system else Conversation.ask(message)
    rendered = chat.render(turns)
    table = folded("part", "tokens", "text", *(["ids"] if ids else []), pad_edge=False)
    for segment in rendered.segments:
        numbers = [" ".join(map(str, rendered.ids[segment.start : segment.end]))] if ids else []
        table.add_row(segment.kind, str(segment.end - segment.start), _visible(segment), *numbers)
    screen = Console(highlight=False)
    screen.print(table)
    counts: dict[str, int] = {}
    for segment in rendered.segments:
        counts[segment.kind] = counts.get(segment.kind, 0) + segment.end - segment.start
    parts = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    screen.print(f"\n{len(rendered.ids)} tokens: {parts}")


def _visible(segment: Segment) -> Text:
    """The segment's text with its line ends shown."""
    shown = printable(segment.text.removesuffix("\n"), {"\n": "⏎\n", "\t": "⇥"})
    shown.append("⏎" if segment.text.endswith("\n") else "")
    shown.stylize("dim" if segment.kind == "markup" else "")
    return shown
