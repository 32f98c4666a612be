"""Silence, slow readers, clients that hang up, and the server's own end."""

import contextlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from itertools import cycle
from typing import Any

import httpx
import pytest
from live_server import Live, eventually

from myna.provider import Scripted
from myna.records import Delta, MynaError, Sampling
from myna.serve import Limits, create_app, serve

Start = Callable[..., Live]
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


def post(live: Live, **options: Any) -> httpx.Response:
    return httpx.post(f"{live.url}/v1/chat/completions", **({"json": CHAT} | options), timeout=20)


def test_silence_is_filled_with_comments_that_clients_skip(live: Start) -> None:
    server = live(Scripted(["ok"], delay=0.2), limits=Limits(keepalive=0.02))
    events = post(server, json=CHAT | {"stream": True}).text.split("\n\n")
    assert ": keepalive" in events
    assert [e for e in events if e.startswith("data: ")][-1] == "data: [DONE]"


PHASES = {
    "before the first word": (Scripted(["never"], delay=3600), {"stream": True}),
    "in mid answer": (Scripted(["word " * 9_999], delay=0.001), {"stream": True}),
    "waiting for the whole": (Scripted(["word " * 9_999], delay=0.001), {}),
    "waiting for the whole, in silence": (Scripted(["never"], delay=3600), {}),
    "with several candidates": (Scripted(cycle(["never"]), delay=3600), {"n": 3}),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_is_gone_closes_the_providers_stream(live: Start, phase: str) -> None:
    provider, options = PHASES[phase]
    server = live(provider)
    with (
        contextlib.suppress(httpx.ReadTimeout),  # a silent answer: the client gives up
        httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=CHAT | options, timeout=httpx.Timeout(20, read=1)
        ) as response,
    ):
        next(response.iter_bytes())
    eventually(lambda: provider.requests[0].outcome == "closed")
    eventually(lambda: server.app.desk.active == 0)


def test_a_slow_reader_holds_the_provider_back(live: Start) -> None:
    """A reader that takes nothing: what was made stays below what the sockets and the feed hold."""
    made = 0

    class Tireless(Scripted):
        async def stream(self, what: Any, sampling: Sampling = Sampling()) -> Any:
            nonlocal made
            yield Delta()
            for made in range(100_000):  # noqa: B007
                yield Delta(text="x" * 1000)
            yield Delta(finish_reason="stop")

    server = live(Tireless())
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=CHAT | {"stream": True}) as response:
        chunks = response.iter_raw()  # kept: httpx closes the connection when this generator is collected
        next(chunks)
        eventually(lambda: made > 50)
        before = -1
        while made != before:  # until it stands still
            before = made
            httpx.get(f"{server.url}/health")
            time.sleep(0.1)
        assert made < 50_000


PROGRAM = """
from itertools import cycle
from myna.provider import Scripted
from myna.serve import Limits, create_app, serve
serve(create_app(Scripted(cycle(["word " * 8]), delay={delay})), port=0, started=lambda url: print(url, flush=True))
"""


def start(delay: float) -> tuple[subprocess.Popen[str], str]:
    program = textwrap.dedent(PROGRAM.format(delay=delay))
    process = subprocess.Popen([sys.executable, "-c", program], text=True, stdout=-1, stderr=-1)
    assert process.stdout
    url = process.stdout.readline().strip()
    return process, url


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_what_was_accepted_and_refuses_what_comes(sent: signal.Signals) -> None:
    process, url = start(delay=0.15)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=CHAT | {"stream": True}, timeout=20) as response:
        chunks = response.iter_text()
        text = next(chunks)
        process.send_signal(sent)
        eventually(lambda: httpx.get(f"{url}/ready").status_code == 503)
        late = httpx.post(f"{url}/v1/chat/completions", json=CHAT)
        text += "".join(chunks)
    assert (late.status_code, late.json()["error"]["code"]) == (503, "not_ready")
    assert "retry-after" in late.headers
    assert text.endswith("data: [DONE]\n\n")
    _, said = process.communicate(timeout=20)
    assert (process.returncode, "Finishing 1 request" in said) == (0, True)


def test_the_second_signal_stops_at_once() -> None:
    process, url = start(delay=3600)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=CHAT | {"stream": True}, timeout=20) as response:
        chunks = response.iter_text()
        next(chunks)
        process.send_signal(signal.SIGINT)
        eventually(lambda: httpx.get(f"{url}/ready").status_code == 503)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, "Stopped at once" in said) == (128 + signal.SIGINT, True)


def test_an_idle_server_ends_at_the_first_signal() -> None:
    process, url = start(delay=0)
    eventually(lambda: _answers(url))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "Bye.\n")


def test_a_port_that_is_taken_is_named() -> None:
    with Live(create_app(Scripted())) as server, pytest.raises(MynaError, match="Try another port"):
        serve(create_app(Scripted()), port=int(server.url.rsplit(":", 1)[1]))
    with pytest.raises(MynaError, match="no port 99999"):
        serve(create_app(Scripted()), port=99999)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
