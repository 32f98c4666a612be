"""What several verbs share: flags, which are the fields of the dataclasses they fill, and printing hostile text."""

import sys
from collections.abc import Mapping
from typing import Annotated

from cyclopts import Parameter
from rich.table import Column, Table
from rich.text import Text

from myna.provider import Provider
from myna.provider.local import Loading
from myna.records import Sampling

SamplingFlags = Annotated[Sampling, Parameter(name="*", group="Sampling")]
LoadingFlags = Annotated[Loading, Parameter(name="*", group="Loading")]


# ESC and its kin move the cursor, set titles and worse, and some characters turn the order of those after them around; a model's words
# do none of that. Line ends and tabs stay.
_CONTROLS = {c: f"\\x{c:02x}" for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}
_CONTROLS |= {c: f"\\u{c:04x}" for c in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))}


def hint(provider: Provider, where: str) -> None:
    """Say, of an endpoint that nobody probed, what would make its answers better."""
    if getattr(provider, "powers", ()) is None:
        print(f"myna: nobody tried what {where} can be held to; `myna probe {where}` does, once", file=sys.stderr)


def spoken(text: str) -> str:
    """What a model says, for the terminal: characters that would control it are shown instead."""
    return text.translate(_CONTROLS)


def printable(text: str, instead: Mapping[str, str] = {}) -> Text:
    """A stranger's text for the terminal: its brackets are no markup, and its control characters move no cursor."""
    return Text("".join(c if c.isprintable() else instead.get(c, _code(ord(c))) for c in text))


def _code(c: int) -> str:
    return f"\\x{c:02x}" if c < 0x100 else f"\\u{c:04x}"


def folded(*columns: str | Column, pad_edge: bool = True) -> Table:
    """A table without lines, whose cells go on in further lines. Left to itself rich cuts a text without blanks, and so Chinese, at the width."""
    made = Table(*columns, box=None, header_style="bold", pad_edge=pad_edge)
    for column in made.columns:
        column.overflow = "fold"
    return made
