"""Several models in one server: loaded when asked for, unloaded when there is no room, never under somebody's feet."""

import asyncio
import contextvars
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import httpx
import pytest
from live_server import Live, eventually

from myna.provider import Scripted
from myna.records import MynaError, RequestError, Unavailable
from myna.serve import App, Guard, Loadable, open_desk
from myna.serve.account import ACCOUNT, Account
from myna.serve.desk import Desk
from myna.serve.models import Slot

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


class Weights(Scripted):
    """Endless "ok"; knows when it was closed."""

    closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class House:
    """A desk with models of given sizes, and what was loaded of them."""

    def __init__(self, sizes: dict[str, int], **options: Any):
        self.loaded: list[Weights] = []
        self.sizes = sizes
        self.desk: Desk = open_desk(find=self.find, **options)

    def find(self, name: str) -> Loadable:
        if name not in self.sizes:
            raise RequestError(f"no {name}", param="model", code="model_not_found")
        return Loadable(name, lambda: self.load(name), lambda: self.sizes[name])

    def load(self, name: str) -> Weights:
        model = Weights(["ok"] * 99, name=name)
        self.loaded.append(model)
        return model

    @property
    def here(self) -> set[str]:
        return {m.name for m in self.desk.models}

    @property
    def in_memory(self) -> set[str]:
        return {m.name for m in self.loaded if not m.closed}


def play(script: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(script(), 20))  # type: ignore[arg-type]


@contextmanager
def using(desk: Desk, name: str) -> Iterator[None]:
    """What a request does for as long as it runs."""
    token = ACCOUNT.set(account := Account("req-1"))
    try:
        desk.provider(name)
        yield
    finally:
        account.close()
        ACCOUNT.reset(token)


def test_the_least_recently_used_goes_when_there_is_no_room() -> None:
    house = House({"a": 4, "b": 4, "c": 4}, budget=10)

    async def script() -> None:
        models = house.desk.models
        await models.load("a")
        await models.load("b")
        with using(house.desk, "a"):
            pass
        await models.load("c")
        assert house.here == house.in_memory == {"a", "c"}

    play(script)


def test_who_is_pinned_or_in_use_stays_and_the_sum_is_told() -> None:
    house = House({"a": 4, "b": 4, "c": 4}, budget=10)

    async def script() -> None:
        models = house.desk.models
        await models.load("a", pinned=True)
        await models.load("b")
        with using(house.desk, "b"), pytest.raises(Unavailable, match="in use"):
            await models.load("c")
        assert house.here == {"a", "b"}
        await models.load("b", pinned=True)
        with pytest.raises(MynaError, match=r"pinned.*pinned.*models/unload"):
            await models.load("c")
        await models.unload("a")
        await models.load("c")
        assert house.here == {"b", "c"}

    play(script)


def test_a_model_that_is_unloaded_first_finishes_what_it_was_asked() -> None:
    house = House({"a": 1})

    async def script() -> None:
        models = house.desk.models
        await models.load("a")
        with using(house.desk, "a"), using(house.desk, "a"):
            leaving = asyncio.create_task(models.unload("a"))
            await asyncio.sleep(0.02)
            with pytest.raises(Unavailable, match="unloading"):
                house.desk.provider("a")
            assert house.here == {"a"}
        await leaving
        assert house.here == house.in_memory == set()

    play(script)


def test_asking_for_an_unloaded_model_loads_it_once() -> None:
    house = House({"a": 1})

    async def script() -> None:
        models = house.desk.models
        await models.load("a")
        await models.unload("a")
        for _ in range(3):
            with pytest.raises(Unavailable):
                house.desk.provider("a")
        while models.slots["a"].state != "ready":
            await asyncio.sleep(0.001)
        house.desk.provider("a")
        assert len(house.loaded) == 2

    play(script)


def test_who_uses_an_adapter_uses_its_model() -> None:
    model = Slot("model")
    adapter, account = Slot("adapter", parent=model), Account("r")

    def ask() -> None:
        ACCOUNT.set(account)
        adapter.hold()

    contextvars.copy_context().run(ask)
    assert (adapter.uses, model.uses) == (1, 1)
    assert model.used_at > 0
    account.close()
    assert (adapter.uses, model.uses) == (0, 0)


def test_two_who_load_the_same_model_get_the_same_one() -> None:
    house = House({"a": 1})

    async def script() -> None:
        await asyncio.gather(*(house.desk.models.load("a") for _ in range(5)))
        assert len(house.loaded) == 1

    play(script)


def test_a_failure_to_load_is_told_and_the_next_request_tries_again() -> None:
    house = House({"a": 1})

    async def script() -> None:
        models = house.desk.models
        await models.load("a")
        await models.unload("a")
        house.sizes = {}
        with pytest.raises(Unavailable):
            house.desk.provider("a")
        while models.slots["a"].state != "failed":
            await asyncio.sleep(0.001)
        with pytest.raises(MynaError, match="could not be loaded"):
            house.desk.provider("a")
        house.sizes = {"a": 1}
        with pytest.raises(Unavailable):
            house.desk.provider("a")
        while models.slots["a"].state != "ready":
            await asyncio.sleep(0.001)

    play(script)


def test_who_is_not_asked_for_in_a_while_is_unloaded() -> None:
    house = House({"a": 1, "b": 1, "c": 1}, idle=0.05)

    async def script() -> None:
        models = house.desk.models
        await models.load("a")
        await models.load("b", pinned=True)
        await models.load("c")
        keeper = asyncio.create_task(models.keep_house())
        with using(house.desk, "c"):
            while "a" in house.here:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert house.here == {"b", "c"}
        while "c" in house.here:
            await asyncio.sleep(0.01)
        keeper.cancel()

    play(script)


def test_memory_is_summed_while_another_is_loading() -> None:
    """Two at once would each see room for itself."""
    house = House({"a": 6, "b": 6}, budget=10)
    gate = threading.Event()
    load = house.load

    def slowly(name: str) -> Weights:
        assert gate.wait(20)
        return load(name)

    house.load = slowly  # type: ignore[method-assign]

    async def script() -> None:
        both = asyncio.gather(house.desk.models.load("a"), house.desk.models.load("b"))
        await asyncio.sleep(0.02)
        gate.set()
        await both
        assert house.here == {"b"}

    play(script)


# Over HTTP.


def test_models_are_loaded_listed_and_unloaded_over_http() -> None:
    house = House({"a": 7})
    with Live(App(house.desk, Guard())) as server:
        post = lambda path, body: httpx.post(f"{server.url}/v1/{path}", json=body, timeout=20)  # noqa: E731
        assert post("chat/completions", CHAT | {"model": "a"}).status_code == 404
        shown = post("models/load", {"model": "a", "pinned": True}).json()
        assert (shown["id"], shown["state"], shown["pinned"], shown["memory_bytes"]) == ("a", "ready", True, 7)
        assert httpx.get(f"{server.url}/v1/models").json()["data"] == [shown]
        assert post("chat/completions", CHAT | {"model": "a"}).status_code == 200
        assert post("models/unload", {"model": "a"}).json()["state"] == "unloaded"
        assert post("chat/completions", CHAT | {"model": "a"}).status_code == 503
        eventually(lambda: post("chat/completions", CHAT | {"model": "a"}).status_code == 200)


def test_who_asks_for_more_than_there_is_room_for_is_told_the_sum() -> None:
    house = House({"a": 4, "b": 4}, budget=5)
    with Live(App(house.desk, Guard())) as server:
        load = lambda **order: httpx.post(f"{server.url}/v1/models/load", json=order, timeout=20)  # noqa: E731
        assert load(model="a", pinned=True).status_code == 200
        refused = load(model="b")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_room")
        assert "pinned" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"model": 1}', 400), (b'{"model": "none"}', 404),
     (b'{"model": "a", "pinned": "yes"}', 400), (b'{"model": "' + b"a" * 70_000 + b'"}', 413)],
)  # fmt: skip
def test_a_bad_order_is_refused(body: bytes, status: int) -> None:
    with Live(App(House({"a": 1}).desk, Guard())) as server:
        for path in ("load", "unload"):
            if path == "unload" and b"pinned" in body:
                continue
            assert httpx.post(f"{server.url}/v1/models/{path}", content=body).status_code == status


def test_a_model_that_came_loaded_stays(live: Callable[..., Live]) -> None:
    answer = httpx.post(f"{live(['ok']).url}/v1/models/unload", json={"model": "scripted"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


def test_a_request_says_how_long_its_model_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myna.serve.models.LOOK_AFTER", 0.01)
    house = House({"a": 4, "b": 4, "c": 4}, budget=10)

    async def script() -> None:
        models = house.desk.models
        await models.load("a")
        await models.load("b", pinned=True)
        assert models.keep("a", 0)
        assert not models.keep("b", 0)
        assert not models.keep("none", 0)
        keeper = asyncio.create_task(models.keep_house())
        with using(house.desk, "a"):
            await asyncio.sleep(0.1)
            assert house.here == {"a", "b"}  # not under its own request
        while "a" in house.here:
            await asyncio.sleep(0.01)
        assert models.keep("a", 0)  # it is not here, and whoever loads it next decides
        await models.load("a")
        await asyncio.sleep(0.1)
        assert house.here == {"a", "b"}
        assert models.keep("a", math.inf)
        await models.load("c")  # for ever ends where another needs the room
        assert house.here == {"b", "c"}
        keeper.cancel()

    play(script)


def test_ollama_unloads_a_model_and_shows_when_one_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myna.serve.models.LOOK_AFTER", 0.01)
    house = House({"a": 1, "b": 1}, idle=1000.0)
    house.desk.models.add(house.find("a"))
    with Live(App(house.desk, Guard())) as live:
        eventually(lambda: house.desk.ready)

        def goes_in() -> float:
            (row,) = httpx.get(f"{live.url}/api/ps").json()["models"]
            return datetime.fromisoformat(row["expires_at"]).timestamp() - time.time()

        def ask(**more: Any) -> Any:
            return httpx.post(
                f"{live.url}/api/generate", json={"model": "a", "stream": False} | more, timeout=20
            ).json()

        assert ask(prompt="Hi", keep_alive="1h")["done_reason"] == "stop"
        assert 3500 < goes_in() <= 3600
        ask(prompt="Hi")
        assert 900 < goes_in() <= 1000
        ask(prompt="Hi", keep_alive=-1)
        assert goes_in() > 1e9
        assert ask(keep_alive=0)["done_reason"] == "unload"
        eventually(lambda: not house.here)
        assert "is not in memory" in ask(keep_alive=0)["error"]
        assert not house.here
