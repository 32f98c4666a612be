"""What a verb that asks a model may spend: --calls, --tokens, --cost and --seconds, the same everywhere."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from myna.provider import Provider
from myna.provider.budget import Budget, Budgeted, Limits
from myna.provider.traced import Traced
from myna.records import RequestError
from myna.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Spend:
    """What may be spent in all. A call that could pass a limit is not made.

    Parameters
    ----------
    calls
        At most so many model calls.
    tokens
        At most so many tokens, of prompts and answers together.
    cost
        At most so much, in the money of ~/.config/myna/prices.yaml (docs/trace.md).
    seconds
        Give up after so many.
    """

    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None

    def budget(self, calls: int | None = None) -> Budget:
        """It begins now. `calls` is how many the application makes at most. Raises RequestError, naming the flag."""
        for name, value in vars(self).items():
            if value is not None and not value > 0:  # NaN
                raise RequestError(f"--{name} is above 0.", param=name)
        given = [one for one in (calls, self.calls) if one is not None]
        return Budget(Limits(calls=min(given, default=None), tokens=self.tokens, cost=self.cost, seconds=self.seconds))

    def within(self, provider: Provider, trace: Trace, calls: int | None = None) -> Budgeted:
        """`provider`, recorded, within a budget that begins now."""
        return Budgeted(Traced(provider, trace), self.budget(calls), trace.prices)


SpendFlags = Annotated[Spend, Parameter(name="*", group="Budget")]
