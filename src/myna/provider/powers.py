"""What an endpoint does of what may be asked of it, as it was found (probe.py), and where that is kept."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from myna.records import DataError
from myna.records.fields import Fields
from myna.records.form import KINDS, Kind
from myna.records.whole import add


@dataclass(frozen=True, slots=True, kw_only=True)
class Powers:
    """What held when it was tried.

    forms       kinds of Form that an answer kept where its plain answer would not have
    tools       it called a tool when it had to; `arguments`: with arguments that the tool's schema alone explains
    logprobs    it gave log-probabilities, and of how many alternatives
    several     it gave two candidates for one request
    seed        the same seed gave the same answer twice, at temperature 1
    usage       it said how many tokens an answer took
    tried       when, in seconds since 1970; 0 for what needs no trying
    refused     what it refused or got wrong, and how
    """

    forms: tuple[Kind, ...] = ()
    tools: bool = False
    arguments: bool = False
    logprobs: int = 0
    several: bool = False
    seed: bool = False
    usage: bool = False
    tried: float = 0.0
    refused: Mapping[str, str] = field(default_factory=dict)


# Of our own engine: the tests of engine and server hold it to all of this.
OURS = Powers(forms=KINDS, tools=True, arguments=True, logprobs=20, several=True, seed=True, usage=True)


def of(provider: object) -> Powers:
    """What is known of a provider; nothing, where nobody tried."""
    found = getattr(provider, "powers", None)
    return found if isinstance(found, Powers) else Powers()


def endpoint(base_url: str, model: str) -> str:
    """The name under which an endpoint's powers are kept."""
    return f"{base_url.rstrip('/')}#{model}"


def file() -> Path:
    """powers.json in $XDG_CACHE_HOME/myna, else in ~/.cache/myna."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "myna" / "powers.json"


def read(endpoint: str) -> Powers | None:
    """What was found of an endpoint, "http://...#MODEL"; None where nobody tried, or the file is no such file."""
    try:
        return _from(orjson.loads(file().read_bytes())[endpoint])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, DataError):
        return None


def write(endpoint: str, powers: Powers) -> Path:
    """Keep what was found, beside what was found of others; the file. Raises DataError where it cannot be kept."""
    path = file()
    add(path, endpoint, asdict(powers), cache=True)
    return path


def _from(row: Any) -> Powers:
    f = Fields(row)
    forms = f.take("forms", list, default=[])
    return Powers(
        forms=tuple(kind for kind in KINDS if kind in forms),
        tools=f.take("tools", bool, default=False),
        arguments=f.take("arguments", bool, default=False),
        logprobs=f.take("logprobs", int, default=0),
        several=f.take("several", bool, default=False),
        seed=f.take("seed", bool, default=False),
        usage=f.take("usage", bool, default=False),
        tried=float(f.take("tried", int, float, default=0)),
        refused={str(name): str(said) for name, said in f.take("refused", dict, default={}).items()},
    )
