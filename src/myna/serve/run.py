"""Running the application: bind, say so, drain on the first signal, stop on the second."""

import asyncio
import math
import os
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from myna.records import MynaError
from myna.serve.app import App
from myna.serve.descriptors import OutOfDescriptors, have_enough
from myna.serve.guard import LOOPBACK
from myna.serve.keys import new_key


def serve(
    app: App, host: str = "127.0.0.1", port: int = 8000, *, started: Callable[[str], None] = lambda url: None
) -> None:
    """Serve until the first SIGINT or SIGTERM, then finish what was accepted and return; a second exits at once.

    started   called with the page's address as soon as it answers there: the port is ours, and the models are loaded. Before
              that /health says that it lives, and all else 503. Port 0 takes a free one
    Raises MynaError when the address cannot be bound, when others can reach it and no key is asked for, or when a model that
    it was started with cannot be loaded.
    """
    if host not in LOOPBACK and not app.desk.keys:
        raise MynaError(
            f"On {host} others reach this server, so it asks for a key: set MYNA_API_KEY, or give --key-file. "
            f"A good key: {new_key()}"
        )
    have_enough(app.desk.limits.max_active)
    listener = _bind(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    Server(config, app, lambda: started(url)).run(sockets=[listener])
    if app.desk.failure:
        raise app.desk.failure


class Server(uvicorn.Server):
    """uvicorn closes its port on the first signal; we keep it open to say 503, until the last answer is out."""

    def __init__(self, config: uvicorn.Config, app: App, started: Callable[[], None]):
        super().__init__(config)
        self._desk = app.desk
        self._started: Callable[[], None] | None = started
        self._deadline = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._desk.draining:
            _say("Stopped at once.")
            os._exit(128 + sig)
        self._desk.draining = True
        self._deadline = time.monotonic() + self._desk.limits.drain
        count = self._desk.active
        waiting = f"Finishing {count} request{'s' if count != 1 else ''}; once more stops at once." if count else "Bye."
        _say(waiting)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(OutOfDescriptors())
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        desk = self._desk
        if self._started and desk.ready and desk.failure is None:
            self._started()
            self._started = None
        if desk.active and time.monotonic() > self._deadline:
            _say(f"{desk.active} requests were not finished in {desk.limits.drain:g} s; stopped.")
            self.should_exit = True
        self.should_exit |= desk.failure is not None or (desk.draining and not desk.active)
        return await super().on_tick(counter)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # What it accepts inherits this. asyncio would set it, but not where the socket does not name its protocol, as here; a
        # reply's body then waits for its head to be acknowledged, 40 ms on a connection that is kept (Nagle, delayed ACK).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OverflowError:
        raise MynaError(f"There is no port {port}; ports go from 1 to 65535, and 0 takes a free one.") from None
    except OSError as e:
        raise MynaError(f"Cannot listen on {host}:{port}: {e}. Try another port: --port {port % 65535 + 1}") from None


def _say(line: str) -> None:
    """Unbuffered: a signal handler may interrupt a print."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())
