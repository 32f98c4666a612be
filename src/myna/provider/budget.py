"""What may be spent, and a provider that never spends more.

    budget = Budget(Limits(calls=10, tokens=20_000, seconds=60))
    provider = Budgeted(provider, budget)
    inside = Budget(Limits(calls=3), parent=budget)       # what it spends, its parent has spent, too

A call is made only if all it could take is left, here and in every budget above: what could be is held, and when the call is
over, what it took is spent. So several calls at once exceed nothing together.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from typing import Any

from myna.provider import Provider
from myna.records import Conversation, Delta, Document, MynaError, RequestError, Sampling, Usage
from myna.trace import Prices

AROUND = 32  # tokens that a template may put around a message, and as many at the end; those we know take 3 to 10


class BudgetExceeded(MynaError):
    """A limit would be passed. `limit` is its name: "steps", "calls", "tokens", "cost" or "seconds"."""

    def __init__(self, message: str, *, limit: str):
        super().__init__(message)
        self.limit = limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """None is no limit. Tokens are those of prompts and answers together, of all attempts; cost is in the price file's money;
    seconds are counted from when the budget was made. Raises RequestError for what is no amount: below 0, NaN, or without end."""

    steps: int | None = None
    calls: int | None = None
    tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in names():
            most = getattr(self, name)
            if most is not None and not 0 <= most < math.inf:
                raise RequestError(f"{name}: a limit is 0 or more, not {most}; without one it is left out.", param=name)


class Budget:
    """What is spent of some limits. Used on one event loop."""

    def __init__(self, limits: Limits, *, parent: "Budget | None" = None, clock: Callable[[], float] = time.monotonic):
        self.limits, self.parent, self._clock = limits, parent, clock
        self._began = clock()
        self.spent: dict[str, float] = dict.fromkeys(("steps", "calls", "tokens", "cost"), 0)
        self._held: dict[str, float] = dict(self.spent)

    @property
    def line(self) -> "list[Budget]":
        """This budget and those above it."""
        return [self, *(self.parent.line if self.parent else ())]

    def left(self, name: str) -> float | None:
        """What is left of a limit, here and above; None where there is none."""
        found = [left for one in self.line if (left := one._own(name)) is not None]
        return min(found) if found else None

    def step(self) -> None:
        """One step more. Raises BudgetExceeded, also where the time is over."""
        self.hold(steps=1).settle(steps=1)

    def hold(self, **amounts: float) -> "Held":
        """Lay aside what may be spent. Raises BudgetExceeded, naming the limit, and holds nothing then."""
        if (left := self.left("seconds")) is not None and left <= 0:
            raise self.over()
        for name, amount in amounts.items():
            if (left := self.left(name)) is not None and amount > left:
                why = f"{name}: {_shown(left)} left, and {_shown(amount)} may be needed"
                raise BudgetExceeded(f"{why}; {self.account}.", limit=name)
        return Held(self, amounts)

    def over(self) -> BudgetExceeded:
        """That there is no time left."""
        return BudgetExceeded(f"the time is over; {self.account}.", limit="seconds")

    @property
    def account(self) -> str:
        """What was spent, for people: "spent: 2 calls, 1,204 tokens, 3.1 seconds"."""
        spent = {**self.spent, "seconds": round(self._clock() - self._began, 1)}
        parts = [
            f"{_shown(amount)} {name if amount != 1 else name.removesuffix('s')}"
            for name, amount in spent.items()
            if amount
        ]
        begun = f", and {self._held['calls']:.0f} under way" if self._held["calls"] else ""
        return f"spent: {', '.join(parts) or 'nothing'}{begun}"

    def _own(self, name: str) -> float | None:
        limit = getattr(self.limits, name)
        if limit is None:
            return None
        if name == "seconds":
            return float(limit - (self._clock() - self._began))
        return float(limit - self.spent[name] - self._held[name])


class Held:
    """What is laid aside, until it is settled."""

    def __init__(self, budget: Budget, amounts: dict[str, float]):
        self._budget, self.amounts = budget, amounts
        self._add("_held", amounts, 1)

    def settle(self, **spent: float) -> None:
        """It is over, and this is what it took."""
        self._add("_held", self.amounts, -1)
        self.amounts = {}
        self._add("spent", spent, 1)

    def _add(self, where: str, amounts: dict[str, float], sign: int) -> None:
        for one in self._budget.line:
            for name, amount in amounts.items():
                getattr(one, where)[name] += sign * amount


class Budgeted:
    """`provider`, within `budget`. An answer is cut (max_tokens) where more of it could not be paid for; a call that cannot be
    paid for at all is BudgetExceeded, and is not made.

    A limit on cost needs a price for the model. What a prompt takes is counted by the provider's own tokenizer where it is
    here; elsewhere its bytes are taken, since no token is less than one.
    """

    def __init__(self, provider: Provider, budget: Budget, prices: Prices = Prices()):
        self.inner, self.budget, self._prices = provider, budget, prices

    def __getattr__(self, name: str) -> Any:  # max_len, chat, defaults and the like are the provider's
        return getattr(self.inner, name)

    @property
    def name(self) -> str:
        return self.inner.name

    async def stream(
        self, what: Conversation | Document, sampling: Sampling = Sampling()
    ) -> AsyncGenerator[Delta, None]:
        """See Provider.stream. Raises BudgetExceeded, in mid-answer where the time is over."""
        prompt = await asyncio.to_thread(prompt_at_most, self.inner, what)
        sampling, held = self._hold(prompt, sampling)
        usage: Usage | None = None
        at_most, began = dict(held.amounts), False
        try:
            async with aclosing(self.inner.stream(what, sampling)) as deltas:
                while True:
                    try:
                        async with asyncio.timeout(self.budget.left("seconds")):
                            delta = await anext(deltas, None)
                    except TimeoutError:
                        raise self.budget.over() from None
                    if delta is None:
                        break
                    began, usage = True, delta.usage or usage
                    yield delta
        finally:
            held.settle(**self._took(usage, at_most, began))

    def _hold(self, prompt: int, sampling: Sampling) -> tuple[Sampling, Held]:
        """What the call may take, and how long its answers may be for that."""
        n, tokens, cost = sampling.n or 1, self.budget.left("tokens"), self.budget.left("cost")
        if tokens is None and cost is None:
            return sampling, self.budget.hold(calls=1)
        price = self._prices.of(self.name)
        if cost is not None and price is None:
            raise BudgetExceeded(f"nobody said what {self.name} costs; add it to the price file.", limit="cost")
        rooms = {"max_tokens": float(sampling.max_tokens)} if sampling.max_tokens is not None else {}
        if tokens is not None:
            rooms["tokens"] = (tokens - prompt) // n
        if cost is not None and price is not None and price.output:
            rooms["cost"] = (cost * 1e6 - prompt * max(price.input, price.cached)) // (price.output * n)
        answer = max(int(min(rooms.values(), default=1)), 1)
        amounts: dict[str, float] = {"calls": 1, "tokens": prompt + n * answer}
        if price is not None:
            amounts["cost"] = (prompt * max(price.input, price.cached) + n * answer * price.output) / 1e6
        return (replace(sampling, max_tokens=answer) if rooms else sampling), self.budget.hold(**amounts)

    def _took(self, usage: Usage | None, at_most: dict[str, float], began: bool) -> dict[str, float]:
        if usage is None:  # nobody said: all it could be, if it began at all
            return at_most if began else {"calls": 1}
        cost = self._prices.cost(self.name, usage)
        return {"calls": 1, "tokens": usage.prompt_tokens + usage.completion_tokens, "cost": cost or 0.0}


def prompt_at_most(provider: Provider, what: Conversation | Document) -> int:
    """Tokens that a prompt takes, or more."""
    chat = getattr(provider, "chat", None)
    if chat is not None:
        return len(chat.tokenizer.encode(what.text) if isinstance(what, Document) else chat.render(what).ids)
    if isinstance(what, Document):
        return len(what.text.encode()) + AROUND
    texts = [json.dumps(message.to_json(), ensure_ascii=False) for message in what.messages]
    texts += [json.dumps(tool, ensure_ascii=False) for tool in what.tools]
    return sum(len(text.encode()) + AROUND for text in texts) + AROUND


def names() -> list[str]:
    """The limits there are."""
    return [f.name for f in fields(Limits)]


def _shown(amount: float) -> str:
    return f"{amount:,.6g}"
