"""No limit is ever passed, whatever the model does and however many calls are made at once."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.provider import Scripted, complete
from myna.provider.budget import Budget, Budgeted, BudgetExceeded, Limits, prompt_at_most
from myna.records import Conversation, Delta, ProviderError, RequestError, Sampling, Usage
from myna.trace import Price, Prices

PRICES = Prices((Price("greedy", 3.0, 15.0, 0.3),))


@dataclass
class Greedy:
    """Says as much as it may, or as it likes; each prompt takes as much as it could. Fails where it is told to."""

    likes: int = 10**9
    fails: bool = False
    tells: bool = True
    name: str = "greedy"
    took: int = 0
    cost: float = 0.0

    async def stream(self, what: Conversation, sampling: Sampling = Sampling()) -> AsyncGenerator[Delta, None]:
        n, prompt = sampling.n or 1, prompt_at_most(self, what)
        said = n * min(self.likes, sampling.max_tokens or 10**9)
        self.took += prompt + said
        self.cost += PRICES.cost("greedy", Usage(prompt, said)) or 0.0
        yield Delta()
        await asyncio.sleep(0)
        if self.fails:
            raise ProviderError("gone")
        for k in range(n):
            yield Delta(k, "x", finish_reason="stop")
        if self.tells:
            yield Delta(usage=Usage(prompt, said))


asks = st.builds(
    lambda text, n, most: (Conversation.ask(text), Sampling(n=n, max_tokens=most)),
    st.text(max_size=40), st.integers(1, 3), st.none() | st.integers(1, 200),
)  # fmt: skip
models = st.builds(Greedy, likes=st.integers(0, 500) | st.just(10**9), fails=st.booleans(), tells=st.booleans())
limits = st.builds(
    lambda calls, tokens, cost: Limits(calls=calls, tokens=tokens, cost=cost),
    st.none() | st.integers(0, 6), st.integers(0, 3000), st.none() | st.floats(0, 0.02),
)  # fmt: skip


@given(models, limits, limits, st.lists(asks, max_size=8), st.booleans())
def test_no_limit_is_passed_here_or_above(
    model: Greedy, own: Limits, above: Limits, asked: list[tuple[Conversation, Sampling]], together: bool
) -> None:
    parent = Budget(above)
    budget = Budget(own, parent=parent)
    provider = Budgeted(model, budget, PRICES)
    calls = 0

    async def one(what: Conversation, sampling: Sampling) -> None:
        nonlocal calls
        try:
            await complete(provider, what, sampling)
        except BudgetExceeded:
            return
        except ProviderError:
            pass
        calls += 1

    async def every() -> None:
        if together:
            await asyncio.gather(*(one(*ask) for ask in asked))
        else:
            for ask in asked:
                await one(*ask)

    asyncio.run(every())
    for limit in (own, above):
        assert limit.calls is None or calls <= limit.calls
        assert limit.tokens is None or model.took <= limit.tokens
        assert limit.cost is None or model.cost <= limit.cost + 1e-12
    assert all(held == pytest.approx(0, abs=1e-9) for one in (budget, parent) for held in one._held.values())
    assert budget.spent["tokens"] >= model.took


def test_what_was_said_is_spent_to_the_token() -> None:
    budget = Budget(Limits(calls=3, tokens=10_000), parent=(parent := Budget(Limits())))
    provider = Budgeted(Scripted(["12345678", "1234"]), budget)
    asyncio.run(complete(provider, Conversation.ask("abcd"), Sampling(n=2)))
    assert budget.spent == parent.spent == {"steps": 0, "calls": 1, "tokens": 1 + 2 + 1, "cost": 0}


def test_an_answer_is_cut_where_more_could_not_be_paid_for() -> None:
    model = Greedy()
    room = 100
    asked = Conversation.ask("你好")
    provider = Budgeted(model, Budget(Limits(tokens=prompt_at_most(model, asked) + room)))
    asyncio.run(complete(provider, asked, Sampling(n=2)))
    assert provider.budget.spent["tokens"] == prompt_at_most(model, asked) + room


def test_a_call_that_cannot_be_paid_for_is_not_made() -> None:
    scripted = Scripted(["a"] * 9)
    with pytest.raises(BudgetExceeded, match="tokens") as e:
        asyncio.run(complete(Budgeted(scripted, Budget(Limits(tokens=20))), Conversation.ask("很长" * 30)))
    assert e.value.limit == "tokens"
    with pytest.raises(BudgetExceeded, match="price file") as e:
        asyncio.run(complete(Budgeted(scripted, Budget(Limits(cost=1.0))), Conversation.ask("a")))
    assert e.value.limit == "cost"
    assert scripted.requests == []


def test_time_ends_an_answer_in_its_middle() -> None:
    scripted = Scripted(["slow " * 1000], delay=0.01)
    with pytest.raises(BudgetExceeded, match="time") as e:
        asyncio.run(complete(Budgeted(scripted, Budget(Limits(seconds=0.1))), Conversation.ask("a")))
    assert e.value.limit == "seconds"
    assert scripted.requests[0].outcome == "closed"


def test_steps_are_counted_and_time_is_looked_at() -> None:
    now = 0.0
    budget = Budget(Limits(steps=2, seconds=10), clock=lambda: now)
    budget.step()
    inside = Budget(Limits(steps=5), parent=budget)
    inside.step()
    with pytest.raises(BudgetExceeded) as e:
        inside.step()
    assert e.value.limit == "steps"
    now = 10.0
    with pytest.raises(BudgetExceeded) as e:
        Budget(Limits(), parent=budget).step()
    assert e.value.limit == "seconds"


@pytest.mark.parametrize("name", ["steps", "calls", "tokens", "cost", "seconds"])
@pytest.mark.parametrize("amount", [-1, -0.001, float("nan"), float("inf"), float("-inf")])
def test_what_is_no_amount_is_no_limit(name: str, amount: float) -> None:
    with pytest.raises(RequestError, match=f"^{name}: a limit is 0 or more, not ") as refused:
        Limits(**{name: amount})  # type: ignore[arg-type]
    assert refused.value.param == name
    assert getattr(Limits(**{name: 0}), name) == 0  # type: ignore[arg-type]


def test_what_was_spent_is_said_when_a_budget_ends_it() -> None:
    now = 0.0
    budget = Budget(Limits(calls=2, seconds=9), clock=lambda: now)
    provider = Budgeted(Scripted(["one", "two", "three"]), budget)
    assert budget.account == "spent: nothing"
    asyncio.run(complete(provider, Conversation.ask("a")))
    now = 1.25
    asyncio.run(complete(provider, Conversation.ask("b")))
    with pytest.raises(
        BudgetExceeded, match=r"^calls: 0 left, and 1 may be needed; spent: 2 calls, \d+ tokens, 1.2 seconds\.$"
    ):
        asyncio.run(complete(provider, Conversation.ask("c")))
    now = 9.0
    with pytest.raises(BudgetExceeded, match=r"^the time is over; spent: 2 calls, \d+ tokens, 9 seconds\.$"):
        budget.step()


def test_a_call_that_the_time_cut_off_is_said_to_be_under_way() -> None:
    provider = Budgeted(Greedy(), Budget(Limits(seconds=0.05)))

    async def slow() -> None:
        async for _ in provider.stream(Conversation.ask("a")):
            await asyncio.sleep(0.1)

    with pytest.raises(BudgetExceeded, match="and 1 under way"):
        asyncio.run(slow())
