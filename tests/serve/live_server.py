"""A real server in a thread, for tests: what it needs is a provider, and a free port."""

import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from myna.serve.app import App


class Live:
    """A server in a thread: its address, its application, and whether it still runs."""

    def __init__(self, app: App):
        self.app = app
        config = uvicorn.Config(app, port=0, lifespan="on", ws="none", log_level="warning", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "Live":
        self._thread.start()
        eventually(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
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
