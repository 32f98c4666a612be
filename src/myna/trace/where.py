"""Where the trace and the prices of this user are."""

import os
from pathlib import Path


def trace_file() -> Path:
    """$MYNA_TRACE, else trace.sqlite in $XDG_DATA_HOME/myna, else in ~/.local/share/myna."""
    if named := os.environ.get("MYNA_TRACE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "myna" / "trace.sqlite"


def price_file() -> Path:
    """prices.yaml in $XDG_CONFIG_HOME/myna, else in ~/.config/myna. It need not be there."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "myna" / "prices.yaml"
