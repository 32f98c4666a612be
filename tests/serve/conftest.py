"""A real server, on a free port, over a scripted provider."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn

from myna.provider import Provider, Scripted
from myna.serve import create_app
from myna.serve.app import App


class Live:
    """A server in a thread: its address, its application, and whether it still runs."""

    def __init__(self, app: App):
        self.app = app
        config = uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "Live":
        self._thread.start()
        eventually(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(timeout=10)

    @property
    def url(self) -> str:
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"


def eventually(happens: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until it does; the bound is there to fail, not to measure."""
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    """`live(provider_or_script, **create_app's options)` starts a server that ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(provider: Provider | list[Any], **options: Any) -> Live:
            served = Scripted(provider) if isinstance(provider, list) else provider
            return stack.enter_context(Live(create_app(served, **options)))

        yield start
