"""What building a structure takes, said before it is built; and the building, a few calls at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import orjson

from myna.provider.budget import Limits
from myna.trace import Prices

Item = TypeVar("Item")
Told = Callable[[int, int], None]  # so many calls are done, of so many
TOGETHER = 4  # calls at once


@dataclass(frozen=True, slots=True)
class Estimate:
    """`calls` exactly, unless documents change meanwhile; tokens at most: a prompt's are counted by the model's own tokenizer
    where it is here, else its bytes are taken, which are three or four times as many."""

    calls: int
    prompt_tokens: int
    answer_tokens: int
    kept: int = 0  # made before, and still right
    dropped: int = 0  # of another model, or of what is no longer so: will go

    @property
    def limits(self) -> Limits:
        """What a budget for the building allows: never more than was said."""
        return Limits(calls=self.calls, tokens=self.prompt_tokens + self.answer_tokens)

    def cost(self, model: str, prices: Prices) -> float | None:
        """At most, in the money of the prices; None where nobody said what the model costs."""
        price = prices.of(model)
        if price is None:
            return None
        dear = max(price.input, price.cached)
        return (self.prompt_tokens * dear + self.answer_tokens * price.output) / 1e6

    def line(self, model: str, prices: Prices) -> str:
        cost = self.cost(model, prices)
        money = f"{cost:.4f} {prices.currency}" if cost is not None else "unknown (no price for it in the price file)"
        return (
            f"{self.calls} calls to {model}, at most {self.prompt_tokens:,} tokens of prompts and {self.answer_tokens:,} of answers; "
            f"cost at most {money}; {self.kept} kept from before, {self.dropped} dropped"
        )


async def each(items: Iterable[Item], work: Callable[[Item], Awaitable[None]], together: int = TOGETHER) -> None:
    """`work` on every item, at most so many at once. The first error ends all."""
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(together)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def size(text: str) -> int:
    """Bytes that a text takes within a request, its quotes included: no model makes more tokens of it."""
    return len(orjson.dumps(text))


def one_line(text: str, most: int) -> str:
    """What a model said, as it is kept: one line, nothing that cannot be seen, at most so many bytes (as `size` counts them), cut
    after a sentence where one ends in the second half."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line.encode("utf-8", "ignore").decode()  # half a surrogate pair is nothing
    if size(line) <= most:
        return line
    low, high = 0, len(line)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(line[:middle]) <= most else (low, middle - 1)
    end = max(line.rfind(mark, low // 2, low) for mark in (". ", "。", "！", "？", "! ", "? "))
    return line[: end + 1] if end > 0 else line[:low]
