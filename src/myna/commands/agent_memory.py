"""myna agent memory: what agents remember, and where on this machine that is."""

import asyncio
import glob
import hashlib
import os
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from cyclopts import App
from rich.console import Console

from myna.apps.agent import Memory
from myna.commands.options import folded, printable
from myna.records import DataError
from myna.records.language import counted

app = App(name="memory", help="What agents remember: list, edit, forget.")


def data_folder() -> Path:
    """$MYNA_AGENTS, else agents in $XDG_DATA_HOME/myna, else in ~/.local/share/myna: runs, approvals, memories."""
    if named := os.environ.get("MYNA_AGENTS"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "myna" / "agents"


def memory_file(agent: Path) -> Path:
    """Of the agent in this file; another file's agent is another one, whatever its name."""
    where = hashlib.sha256(str(agent.resolve()).encode(errors="surrogateescape")).hexdigest()
    return data_folder() / f"{agent.stem}-{where[:12]}.memory.sqlite"


def forget_drawn(documents: Collection[str]) -> int:
    """What agents remember from these documents of an index, by their sha256, is forgotten; how many memories that were."""
    gone = 0
    for file in sorted(data_folder().glob("*.memory.sqlite")):
        with closing(Memory(file)) as memory:
            gone += memory.forget_documents(documents)
    return gone


def _memory_of(agent: str) -> Memory:
    """By the agent's file; by its name, where one agent of that name has a memory. Raises DataError: there is none yet."""
    file = memory_file(Path(agent))
    found = (
        [file] if Path(agent).suffix else [*data_folder().glob(f"{glob.escape(agent)}-{'[0-9a-f]' * 12}.memory.sqlite")]
    )
    if len(found) > 1 and file in found:
        found = [file]
    if len(found) > 1:
        raise DataError(f"{len(found)} agents called {agent!r} remember something; name the file of the one you mean.")
    if not found or not found[0].is_file():
        raise DataError(
            f"{agent}: no such agent remembers anything. It does once it ran with `memory: true` and was told to."
        )
    return Memory(found[0])


@app.command(name="list")
def list_memories(agent: str, /, *, history: bool = False) -> None:
    """What an agent remembers: number, text, subject, source, time; what came after a stranger's text is marked.

    Parameters
    ----------
    agent
        The agent's name, or its file.
    history
        Also what was replaced.
    """
    with closing(_memory_of(agent)) as memory:
        table = folded("id", "text", "about", "from", "when", "")
        for one in memory.all(history=history):
            note = " ".join(
                filter(
                    None,
                    (
                        "tainted" if one.tainted else "",
                        f"after {counted(len(one.documents), 'document')}" if one.documents else "",
                        f"replaced by {one.replaced_by}" if one.replaced_by else "",
                    ),
                )
            )
            table.add_row(
                str(one.id), *(printable(x) for x in (one.text, one.about, one.source[:20])), _when(one.at), note
            )
        Console(highlight=False, soft_wrap=not Console().is_terminal).print(table)


@app.command
def edit(agent: str, id: int, text: str, /) -> None:
    """Put another text in a memory's place; the old one stays as history.

    Parameters
    ----------
    agent
        The agent's name, or its file.
    id
        The memory's number.
    text
        What is true.
    """
    with closing(_memory_of(agent)) as memory:
        print(f"remembered as {asyncio.run(memory.edit(id, text, source='person')).id}")


@app.command
def forget(agent: str, id: int, /) -> None:
    """Forget a memory and all that it replaced, for good.

    Parameters
    ----------
    agent
        The agent's name, or its file.
    id
        The memory's number.
    """
    with closing(_memory_of(agent)) as memory:
        print(f"{memory.forget(id)} forgotten")


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
