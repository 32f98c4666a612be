"""The line before a model: how long it may be, and what those are told who are sent away."""

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import httpx
import pytest
from live_server import Live, eventually

from myna.provider import Scripted
from myna.records import Delta, MynaError, Sampling, Unavailable, Usage
from myna.serve import Limits
from myna.serve.line import LONGEST_WAIT, Line

Start = Callable[..., Live]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def line_of(places: int, tokens: int = 1000) -> tuple[Line, Clock]:
    clock = Clock()
    return Line("m", Limits(max_queue=places, max_queue_tokens=tokens), clock), clock


def refused(line: Line, tokens: int = 0) -> int:
    with pytest.raises(Unavailable) as e:
        line.check(tokens)
    assert e.value.code == "queue_full"
    return e.value.retry_after


@pytest.mark.parametrize("name", [field.name for field in fields(Limits) if field.name != "drain"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_limit_that_would_refuse_everything_is_none(name: str, value: float) -> None:
    with pytest.raises(MynaError, match="--" + name.replace("_", "-")):
        Limits(**{name: value})  # type: ignore[arg-type]
    assert Limits(drain=0).drain == 0


def test_a_line_takes_as_many_as_it_has_places() -> None:
    line, _ = line_of(2)
    for _ in range(2):
        line.check(0)
        line.enter()
    refused(line)
    line.start()
    line.check(0)
    assert (line.waiting, line.running) == (1, 1)


def test_a_line_is_full_of_tokens_too() -> None:
    line, _ = line_of(9, tokens=100)
    line.check(99)
    refused(line, 100)


def test_the_wait_follows_from_how_fast_the_line_moves_and_who_was_refused_before() -> None:
    line, clock = line_of(10)
    for _ in range(20):
        line.enter()
    for _ in range(10):
        clock.now += 3.0
        line.start()
    assert [refused(line) for _ in range(3)] == [3, 6, 9]
    clock.now += 3.0
    line.give_up()
    line.enter()
    assert refused(line) == 9  # one place was taken by somebody in front


def test_a_line_that_stands_still_is_not_promised_to_move() -> None:
    line, clock = line_of(2)
    for _ in range(4):
        line.enter()
    line.start()
    clock.now += 0.1
    line.start()
    clock.now += 20
    assert refused(line) == 20
    clock.now += 1000
    assert refused(line) == LONGEST_WAIT


def test_hours_without_a_line_are_no_pace() -> None:
    line, clock = line_of(1)
    for _ in range(3):
        clock.now += 3600
        line.enter()
        line.start()
    line.enter()
    assert refused(line) == 1


class Gated(Scripted):
    """Answers when the gate opens, and counts whom it was asked by."""

    gate: threading.Event
    asked: int = 0
    queued_tokens = 0

    async def stream(self, what: Any, sampling: Sampling = Sampling()) -> Any:
        self.asked += 1
        yield Delta()
        while not self.gate.is_set():
            await asyncio.sleep(0.01)
        yield Delta(text="ok", finish_reason="stop", usage=Usage(1, 1))


def gated() -> Gated:
    class One(Gated):
        gate = threading.Event()

    return One()


def test_over_http_the_next_one_is_refused_before_the_model_hears_of_it(live: Start) -> None:
    provider = gated()
    server = live(provider, limits=Limits(max_queue=3))

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/chat/completions", json=CHAT, timeout=20)

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ask, i) for i in range(3)]
        eventually(lambda: provider.asked == 3)
        refused = [ask(i) for i in range(5)]
        provider.gate.set()
        assert [w.result().status_code for w in waiting] == [200] * 3
    assert {(r.status_code, r.json()["error"]["code"]) for r in refused} == {(429, "queue_full")}
    assert all(1 <= int(r.headers["retry-after"]) <= LONGEST_WAIT for r in refused)
    assert provider.asked == 3
    assert ask(0).status_code == 200


def test_what_waits_may_have_so_many_tokens_together(live: Start) -> None:
    provider = gated()
    provider.gate.set()
    server = live(provider, limits=Limits(max_queue_tokens=100))
    provider.queued_tokens = 100
    full = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT)
    provider.queued_tokens = 99
    assert (full.status_code, httpx.post(f"{server.url}/v1/chat/completions", json=CHAT).status_code) == (429, 200)


def test_one_request_of_many_prompts_is_one_admission(live: Start) -> None:
    """Else it could never be admitted, and would be told to come back for ever."""
    provider = gated()
    provider.gate.set()
    server = live(provider, limits=Limits(max_queue=2))
    assert httpx.post(f"{server.url}/v1/completions", json={"prompt": ["a"] * 5}).status_code == 200


def test_too_many_requests_at_once_are_refused_unread(live: Start) -> None:
    provider = gated()
    server = live(provider, limits=Limits(max_active=1))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(httpx.post, f"{server.url}/v1/chat/completions", json=CHAT, timeout=20)
        eventually(lambda: provider.asked == 1)
        second = httpx.post(f"{server.url}/v1/chat/completions", content=b"{")
        provider.gate.set()
        assert first.result().status_code == 200
    assert (second.status_code, second.json()["error"]["code"]) == (429, "queue_full")


def test_the_line_is_empty_when_all_are_gone(live: Start) -> None:
    server = live(Scripted(["a", ValueError("broken"), ("half", ValueError("broken"))]))
    for _ in range(3):
        httpx.post(f"{server.url}/v1/chat/completions", json=CHAT | {"stream": True})
    (model,) = server.app.desk.models
    eventually(lambda: (model.waiting, model.running) == (0, 0))
