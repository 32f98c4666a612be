"""Running the application: bind, say so, drain on the first signal, stop on the second."""

import os
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn

from myna.records import MynaError
from myna.serve.app import App
from myna.serve.guard import LOOPBACK


def serve(
    app: App, host: str = "127.0.0.1", port: int = 8000, *, started: Callable[[str], None] = lambda url: None
) -> None:
    """Serve until the first SIGINT or SIGTERM, then finish what was accepted and return; a second exits at once.

    started   called with the page's address as soon as the port is ours; port 0 takes a free one
    Raises MynaError when the address cannot be bound.
    """
    listener = _bind(host, port)
    if host not in LOOPBACK:
        _say(f"Warning: listening on {host}. There are no keys yet: whoever reaches this port can use the model.")
    shown = f"[{host}]" if ":" in host else host
    started(f"http://{shown}:{listener.getsockname()[1]}")
    config = uvicorn.Config(app, lifespan="off", ws="none", log_level="warning", access_log=False, server_header=False)
    Server(config, app).run(sockets=[listener])


class Server(uvicorn.Server):
    """uvicorn closes its port on the first signal; we keep it open to say 503, until the last answer is out."""

    def __init__(self, config: uvicorn.Config, app: App):
        super().__init__(config)
        self._desk = app.desk

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._desk.draining:
            _say("Stopped at once.")
            os._exit(128 + sig)
        self._desk.draining = True
        count = self._desk.active
        waiting = f"Finishing {count} request{'s' if count != 1 else ''}; once more stops at once." if count else "Bye."
        _say(waiting)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        self.should_exit |= self._desk.draining and not self._desk.active
        return await super().on_tick(counter)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OverflowError:
        raise MynaError(f"There is no port {port}; ports go from 1 to 65535, and 0 takes a free one.") from None
    except OSError as e:
        raise MynaError(f"Cannot listen on {host}:{port}: {e}. Try another port: --port {port % 65535 + 1}") from None


def _say(line: str) -> None:
    """Unbuffered: a signal handler may interrupt a print."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())
