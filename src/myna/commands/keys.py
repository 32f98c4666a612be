"""myna keys: who may call a server, and how much each may ask of it."""

from pathlib import Path
from typing import Literal

from rich.console import Console

from myna.commands.options import folded, printable
from myna.records import MynaError
from myna.serve.key_file import LIMITS, add_key, read_key_rows, revoke_key

RESTART = "A server reads the file when it starts: restart one that runs."


def run(
    do: Literal["add", "list", "revoke"],
    file: Path,
    /,
    *,
    name: str | None = None,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
) -> None:
    """Make, show and take back the API keys in a file, for `myna serve --key-file FILE`.

    Parameters
    ----------
    do
        add prints a new key, once, and writes its hash; list shows names and limits; revoke takes a key's line out.
    file
        The key file; add makes it.
    name
        Whose key: what the log calls its caller, and whose files and batches are whose.
    requests_per_minute
        Requests that a new key may make; unset is as many as it likes.
    tokens_per_minute
        Tokens, prompt and answer, that a new key may use; unset is as many as it likes.
    """
    screen = Console(stderr=True, highlight=False, soft_wrap=True)
    if do == "list":
        _show(file)
        return
    if not name:
        raise MynaError(f"Whose key? myna keys {do} {file} --name NAME")
    if do == "add":
        limits = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        print(add_key(file, name, **limits))
        screen.print(f"This is the key of {name!r}; only its hash is kept, in {file}. {RESTART}", markup=False)
        return
    revoke_key(file, name)
    screen.print(f"{name!r} is revoked. {RESTART}", markup=False)


def _show(file: Path) -> None:
    table = folded("name", *(limit.replace("_", " ") for limit in LIMITS), "sha256")
    for row in read_key_rows(file):
        limits = (getattr(row, limit) for limit in LIMITS)
        shown = (f"{limit:g}" if limit is not None else "no limit" for limit in limits)
        table.add_row(printable(row.name), *shown, f"{row.sha256[:12]}…")
    Console(highlight=False, soft_wrap=not Console().is_terminal).print(table)
