"""What a check is, and finding one by name."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module

from myna.records import Candidate, Conversation, DataError


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ok`, and a score from 0 to 1 of how well; `reason` is for people."""

    ok: bool
    score: float
    reason: str = ""

    @classmethod
    def of(cls, ok: bool, reason: str = "") -> "Verdict":
        return cls(ok, float(ok), reason)


Check = Callable[[Conversation, Candidate], Verdict]

# Name -> the module that has it.
NAMED = {"exact": "match", "number": "match", "contains": "match"}


def named(name: str) -> Check:
    """The check of this name. Raises DataError with those there are."""
    if name not in NAMED:
        close = get_close_matches(name, NAMED, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise DataError(f"{name!r} is not a check; these are: {', '.join(sorted(NAMED))}.{hint}")
    check: Check = getattr(import_module(f"myna.checks.{NAMED[name]}"), name)
    return check
