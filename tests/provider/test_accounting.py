"""Tokens and money of a run are the sum of what its server says it counted, to the token: whatever failed, was cached, was tried
again or said its usage twice. A call of which the server said nothing is unknown, and never nought."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from myna.apps.prompt import Prompt, ask
from myna.apps.prompt.ask import Refused
from myna.provider import complete
from myna.provider.budget import Budget, Budgeted, BudgetExceeded, Limits
from myna.provider.http import Http
from myna.provider.traced import Traced
from myna.records import Conversation, MynaError, Sampling, Usage
from myna.trace import Prices, Trace
from myna.trace.prices import Price
from myna.trace.read import runs, total


@dataclass(frozen=True)
class Turn:
    """What the server does with a request, and what it counts."""

    how: str
    prompt: int
    completion: int
    cached: int

    @property
    def usage(self) -> dict[str, object]:
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion,
                "total_tokens": self.prompt + self.completion, "prompt_tokens_details": {"cached_tokens": self.cached}}  # fmt: skip

    @property
    def told(self) -> bool:
        """Whether its usage reaches the client."""
        return self.how in ("last", "every chunk", "twice", "told then cut")

    @property
    def admitted(self) -> bool:
        return self.how not in ("429", "500")

    def events(self, text: str) -> Iterator[dict[str, object]]:
        every = {"usage": self.usage} if self.how == "every chunk" else {}
        half = {"choices": [{"index": 0, "delta": {"content": text[:2]}}]}
        yield half | ({"usage": {**self.usage, "completion_tokens": 1}} if every else {})
        if self.how == "cut":
            return
        if self.how == "told then cut":
            yield {"choices": [], "usage": self.usage}
            return
        yield {"choices": [{"index": 0, "delta": {"content": text[2:]}}]} | every
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]} | every
        for _ in range({"last": 1, "twice": 2}.get(self.how, 0)):
            yield {"choices": [], "usage": self.usage}


@dataclass
class Served:
    """Turns to come, and those that were taken."""

    turns: list[Turn]
    text: str = "okay"
    taken: list[Turn] = field(default_factory=list)


@contextmanager
def server(served: Served) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            turn = served.turns[len(served.taken) % len(served.turns)]
            served.taken.append(turn)
            self.send_response(200 if turn.admitted else int(turn.how))
            self.send_header("content-type", "text/event-stream" if turn.admitted else "application/json")
            self.end_headers()
            with suppress(BrokenPipeError):
                if not turn.admitted:
                    self.wfile.write(json.dumps({"error": {"message": "no"}, "usage": turn.usage}).encode())
                    return
                for event in turn.events(f"{served.text} {len(served.taken)}"):
                    self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                if turn.how not in ("cut", "told then cut"):
                    self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as http:
        threading.Thread(target=http.serve_forever, args=(0.005,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/v1"
        http.shutdown()


def counted(turns: list[Turn]) -> Usage:
    known = [turn for turn in turns if turn.told]
    return Usage(*(sum(getattr(turn, name) for turn in known) for name in ("prompt", "completion", "cached")))


PRICE = Price("m", input=3.0, cached=0.3, output=15.0)


def money(turns: list[Turn]) -> float:
    return sum(((t.prompt - t.cached) * 3.0 + t.cached * 0.3 + t.completion * 15.0) / 1e6 for t in turns if t.told)


turns = st.builds(
    lambda how, prompt, completion, share: Turn(how, prompt, completion, int(prompt * share)),
    st.sampled_from(["last", "every chunk", "twice", "none", "cut", "told then cut", "429", "500"]),
    st.integers(1, 10_000),
    st.integers(0, 5_000),
    st.sampled_from([0.0, 0.5, 1.0]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(turns, min_size=1, max_size=8))
def test_a_runs_tokens_and_money_are_the_servers(script: list[Turn]) -> None:
    served = Served(script)

    async def run(provider: Traced) -> None:
        for k in range(len(script)):
            with provider.trace.span("step", str(k)), suppress(MynaError):
                await complete(provider, Conversation.ask("?"), Sampling(max_tokens=50))

    with server(served) as url, TemporaryDirectory() as folder:
        trace = Trace(Path(folder) / "t.sqlite", Prices((PRICE,)))
        with trace.span("flow", "app"):
            asyncio.run(run(Traced(Http(url, "m"), trace)))
        (flow,) = runs(trace.store)
        trace.close()
    sums = total(flow.spans)
    assert served.taken == script
    assert sums.calls == len(script)
    assert sums.usage == counted(script)
    assert sums.cost == pytest.approx(money(script))
    assert sums.unknown_usage == sums.unknown_cost == sum(not turn.told for turn in script)
    steps = [total(step.spans) for step in flow.below]
    assert sum(one.usage.prompt_tokens for one in steps) == sums.usage.prompt_tokens
    assert sum(one.unknown_usage for one in steps) == sums.unknown_usage


def test_every_attempt_of_a_prompt_is_counted_and_paid(tmp_path: Path) -> None:
    """Three answers that are not what was asked for: three attempts, one of which kept its usage to itself."""
    served = Served(
        [Turn("last", 100, 10, 0), Turn("none", 150, 10, 90), Turn("twice", 210, 10, 140)], text="no json, try"
    )
    prompt = Prompt.parse("---\noutput: {type: object}\nlimits: {calls: 3}\n---\nSay it.\n", "p")
    with server(served) as url:
        trace = Trace(tmp_path / "t.sqlite", Prices((PRICE,)))
        with pytest.raises(Refused):
            asyncio.run(ask(prompt, {}, Http(url, "m"), trace=trace))
    sums = total(runs(trace.store)[0].spans)
    assert sums.calls == len(served.taken) == sums.unknown_usage + 2
    assert sums.usage == Usage(310, 20, 140)


def test_a_budget_counts_what_the_server_counts_and_the_most_it_could_be_where_it_does_not_say() -> None:
    served = Served([Turn("last", 30, 5, 0), Turn("none", 30, 5, 0), Turn("429", 30, 5, 0)])
    budget = Budget(Limits(tokens=100_000, calls=10))

    async def run(url: str) -> list[float]:
        spent = []
        for _ in served.turns:
            with suppress(MynaError):
                await complete(Budgeted(Http(url, "m"), budget), Conversation.ask("?"), Sampling(max_tokens=50))
            spent.append(budget.spent["tokens"])
        return spent

    with server(served) as url:
        told, unknown, refused = asyncio.run(run(url))
    assert told == 35
    assert unknown - told >= 50 + 1  # all that was asked for and the prompt's bytes
    assert refused == unknown
    assert budget.spent["calls"] == 3


def test_what_is_over_is_not_asked_for() -> None:
    served = Served([Turn("last", 30, 5, 0)])
    with server(served) as url, pytest.raises(BudgetExceeded):
        asyncio.run(complete(Budgeted(Http(url, "m"), Budget(Limits(calls=0))), Conversation.ask("?")))
    assert served.taken == []


@pytest.mark.parametrize("lie", [Turn("last", 10, -10_000, 0), Turn("last", -5, 7, 0), Turn("every chunk", 10, 5, 99)])
def test_counts_that_cannot_be_are_unknown_and_give_no_budget_back(lie: Turn, tmp_path: Path) -> None:
    """Below 0, or more cached than asked: each would make a call cost less than nothing."""
    budget = Budget(Limits(tokens=100_000))
    with server(Served([lie])) as url:
        trace = Trace(tmp_path / "t.sqlite", Prices((PRICE,)))
        provider = Budgeted(Traced(Http(url, "m"), trace), budget)
        reply = asyncio.run(complete(provider, Conversation.ask("?"), Sampling(max_tokens=50)))
    assert reply.text
    sums = total(runs(trace.store)[0].spans)
    assert (sums.unknown_usage, sums.unknown_cost, sums.cost) == (1, 1, 0.0)
    assert budget.spent["tokens"] > 50
