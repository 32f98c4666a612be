"""When a server has no file descriptors left."""

import asyncio
import errno
import logging
import re
import resource
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import httpx
import pytest
from live_server import eventually

from myna.serve.descriptors import OWN, OutOfDescriptors, have_enough

PROGRAM = """
import logging, resource
from myna.provider import Scripted
from myna.serve import create_app, serve
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 60))
logging.basicConfig(level=logging.INFO)
serve(create_app(Scripted([])), port=0, started=lambda url: print(url, flush=True))
"""


@pytest.fixture
def limits() -> Iterator[list[tuple[int, int]]]:
    """What getrlimit says, and what setrlimit was told after it."""
    told = [(256, 4096)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: told[-1])
        patch.setattr(resource, "setrlimit", lambda _, pair: told.append(pair))
        yield told


@pytest.mark.parametrize(
    ("now", "then"),
    [((256, 4096), (4096, 4096)), ((256, 1 << 20), (65_535, 1 << 20)), ((256, -1), (65_535, -1)),
     ((4096, 4096), (4096, 4096)), ((1 << 19, 1 << 20), (1 << 19, 1 << 20)), ((-1, -1), (-1, -1))],
)  # fmt: skip
def test_the_limit_is_raised_as_far_as_it_may_be_and_never_lowered(
    limits: list[tuple[int, int]], now: tuple[int, int], then: tuple[int, int]
) -> None:
    limits[:] = [now]
    have_enough(8)
    assert limits[-1] == then


def test_what_does_not_fit_is_said(limits: list[tuple[int, int]], caplog: pytest.LogCaptureFixture) -> None:
    have_enough(4096 - OWN)
    assert not caplog.records
    have_enough(4096 - OWN + 1)
    assert "--max-active" in caplog.text


def test_what_is_no_accept_is_told_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    loop, handler = asyncio.new_event_loop(), OutOfDescriptors()
    handler(loop, {"message": "Task exception was never retrieved", "exception": OSError(errno.EMFILE, "Too many")})
    handler(loop, {"message": "socket.accept() failed", "exception": ValueError("x")})
    assert [record.name for record in caplog.records] == ["asyncio", "asyncio"]
    loop.close()


def test_a_crowd_beyond_the_descriptors_is_a_line_a_second_and_the_server_lives() -> None:
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PROGRAM)], text=True, stdout=-1, stderr=-1)
    assert process.stdout
    assert process.stderr
    url = process.stdout.readline().strip()
    port = int(url.rsplit(":", 1)[1])
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(90)]
    heard = process.stderr.readline() + process.stderr.readline()
    for one in crowd:
        one.close()
    eventually(lambda: httpx.get(f"{url}/health", timeout=20).status_code == 200)
    process.terminate()
    heard += process.communicate(timeout=20)[1]
    assert "--max-active 1024" in heard
    assert "no connection can be accepted: Too many open files" in heard
    assert "Traceback" not in heard
    assert len(re.findall("no connection can be accepted", heard)) <= 5


def test_a_server_that_closed_while_asyncio_waited_to_accept_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    loop, listening = asyncio.new_event_loop(), socket.create_server(("127.0.0.1", 0))
    loop.set_exception_handler(OutOfDescriptors())
    listening.close()
    loop.call_soon(loop._start_serving, asyncio.Protocol, listening)  # type: ignore[attr-defined]
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert not caplog.records


def test_it_is_said_once_a_second(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, handler, now = asyncio.new_event_loop(), OutOfDescriptors(), [10.0]
    monkeypatch.setattr("myna.serve.descriptors.time.monotonic", lambda: now[0])
    with caplog.at_level(logging.ERROR):
        for now[0] in (10.0, 10.1, 10.9, 11.0):
            handler(
                loop, {"message": "socket.accept() out of system resource", "exception": OSError(errno.EMFILE, "No")}
            )
    loop.close()
    assert [re.findall(r"\((\d+) attempts", record.getMessage()) for record in caplog.records] == [["1"], ["3"]]
