"""What one HTTP request turned out to be: written while it is served, read by the log, and charged to who sent it."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from myna.serve.keys import Caller


@dataclass(slots=True)
class Account:
    """One request, from its arrival to its last byte.

    caller      whose key it came with; None where no keys are asked for
    background  it is a line of a batch: answered when nobody else waits, outside of the queue's limits
    outcome     how its last answer ended: a finish_reason, "cancelled", or "failed"; "" where nothing was generated
    """

    id: str
    caller: Caller | None = None
    background: bool = False
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    outcome: str = ""
    arrived: float = field(default_factory=time.monotonic)
    first_token: float | None = None  # seconds after its arrival
    at_end: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """Give back what the request held."""
        while self.at_end:
            self.at_end.pop()()


ACCOUNT: ContextVar[Account | None] = ContextVar("account", default=None)
