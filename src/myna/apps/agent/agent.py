"""What an agent is, what a run of it says as it goes, and how it ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from myna.apps.agent.bound import ANSWER
from myna.apps.agent.memory import Memory
from myna.apps.agent.session import Session
from myna.apps.tools import Outcome, Tool
from myna.provider.budget import Limits
from myna.records import Message, MynaError, Sampling, ToolCall, Usage

Reason = Literal["done", "steps", "calls", "tokens", "cost", "seconds", "stalled", "approval", "length", "error"]
"""done: it answered. steps, calls, tokens, cost, seconds: a limit. stalled: it goes round in circles. approval: calls wait for
somebody. length: its answer was cut at max_tokens. error: the provider failed, as often as it may."""
Speech = Literal["native", "bound", "react"]

STEPS, CALLS, SECONDS = 20, 40, 600.0  # where nobody says otherwise


@dataclass(frozen=True)
class Agent:
    """
    name          for people; of a helper, its tool's: letters, digits, _ and -
    instructions  its system prompt
    tools         what it may call
    limits        steps are turns of the model; calls are requests to it, those that failed and those of helpers included. What is
                  None of steps, calls and seconds is STEPS, CALLS, SECONDS
    sampling      how each turn is sampled
    speech        native: the endpoint's own tool calls; bound: each turn is one, the answer too; react: as text; None: see speech.py
    stall         so many repetitions of the same steps, or empty answers, end it; at least 2
    about         what it is for, as a helper of another
    helpers       agents that it may call, as tools
    plan          whether it has the tools of plan.py
    memory        what it remembers beyond a session
    window        tokens that a request and its answer may have together; the model's own if None
    """

    name: str
    instructions: str
    tools: tuple[Tool, ...] = ()
    limits: Limits = Limits()
    sampling: Sampling = Sampling()
    speech: Speech | None = None
    stall: int = 3
    about: str = ""
    helpers: tuple["Agent", ...] = ()
    plan: bool = False
    memory: Memory | None = None
    window: int | None = None

    def __post_init__(self) -> None:
        if self.stall < 2:
            raise MynaError(f"the agent {self.name!r}: stall is {self.stall}; a step is repeated when it is made twice")
        if self.speech == "bound" and ANSWER in [
            *(tool.name for tool in self.tools),
            *(one.name for one in self.helpers),
        ]:
            raise MynaError(
                f"the agent {self.name!r}: with speech bound it answers by {ANSWER!r}, so no tool of its own is called that"
            )

    @property
    def bounds(self) -> Limits:
        """Its limits, with what holds where it says nothing."""
        own = self.limits
        return Limits(
            steps=STEPS if own.steps is None else own.steps,
            calls=CALLS if own.calls is None else own.calls,
            tokens=own.tokens,
            cost=own.cost,
            seconds=SECONDS if own.seconds is None else own.seconds,
        )

    @property
    def max_calls(self) -> int:
        """Requests to a model that a run makes at most, whatever happens."""
        return self.bounds.calls or 0


@dataclass(frozen=True, slots=True)
class Said:
    """A turn of the model's, and what it took; None where nobody said."""

    step: int
    message: Message
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Retried:
    """The provider failed, and is asked again after so many seconds."""

    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Compacted:
    """So many messages more are told in short: in `text`, which the model wrote, or, where it failed, which lists them. Tokens of
    the request before and after; `cut`: characters left out of its texts because even so it did not fit."""

    messages: int
    before: int
    after: int
    text: str
    by: Literal["model", "list"]
    cut: int = 0


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    detail    of the reason, in a sentence; "" for done
    answer    the last text; of a tainted run with its links and images made harmless, but for addresses of the user's own words
    links     what was made harmless in it
    messages  the whole conversation, as it was said and with every link that is in it: every call has its result, except those that
              wait
    outcomes  of all calls of this run, in order
    waiting   calls that wait for an approval: decide, and run the session again
    spent     steps, calls, tokens, cost and seconds, of all runs of the session and of its helpers
    tainted   a stranger's text is in the conversation
    """

    reason: Reason
    detail: str
    answer: str
    links: tuple[str, ...]
    messages: tuple[Message, ...]
    outcomes: tuple[Outcome, ...]
    waiting: tuple[ToolCall, ...]
    spent: Mapping[str, float]
    tainted: bool
    session: Session = field(repr=False)


Event = Said | Retried | Compacted | Outcome | Ended
