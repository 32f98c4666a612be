"""What a probe says of a write that was caught in the middle."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Happened:
    """The write did happen, and this is what the step returns."""

    value: Any = None


Probe = Callable[..., Awaitable[Happened | Literal[False] | None]]
"""Asked with a write's own arguments, and with `here().key`, whether it happened: Happened(value); False, it did not; None, it cannot
be known."""
