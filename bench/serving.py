"""Concurrent streams through the server, over real sockets, beside the same work straight on the engine, in turn.

    python bench/serving.py [MODEL] [--streams 32] [--rounds 5] [--precision auto]

Both do the same: so many requests at once, 128 random tokens in and 128 out, greedy. The server is a process of its own
(`myna serve`); the client is this one, asynchronous, and does as little as can be, as its work takes time from the same
processors. So the processor time of both, the client and the server's event loop, is said beside the ratio.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from random import Random
from statistics import median
from threading import Semaphore

from myna.engine.engine import Update
from myna.engine.loop import Loop
from myna.engine.measure import ANSWER, CONTEXT
from myna.modeldir import DEFAULT
from myna.provider.local import Loading, load
from myna.records import Sampling

_fresh = count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    local = load(args.model, Loading(precision=args.precision))
    command = [sys.executable, "-m", "myna", "serve", args.model, "--port", "0", "--precision", args.precision]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        port = announced_port(server)
        one_round(local.loop, server.pid, port, args.streams)  # warm up
        rounds = [one_round(local.loop, server.pid, port, args.streams) for _ in range(args.rounds)]
    finally:
        server.terminate()
        local.close()
    direct, served, events, client = (median(r[i] for r in rounds) for i in range(4))
    tokens, a_token = args.streams * ANSWER, 1e6 / (args.streams * ANSWER)
    print(f"{args.model}: {args.streams} streams, {CONTEXT} tokens in and {ANSWER} out, {args.rounds} rounds, medians")
    print(
        f"HTTP / engine {median(r[0] / r[1] for r in rounds):.3f} ({tokens / served:.1f} / {tokens / direct:.1f} tokens/s)"
    )
    print(f"processor time a token: event loop {events * a_token:.0f}, client {client * a_token:.0f} microseconds")


def announced_port(server: "subprocess.Popen[str]") -> int:
    assert server.stderr is not None
    seen = []
    for line in server.stderr:
        seen.append(line)
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    sys.exit("the server did not start:\n" + "".join(seen))


def one_round(loop: Loop, pid: int, port: int, streams: int) -> tuple[float, float, float, float]:
    """Seconds on the engine and through the server; seconds of processor time of its event loop, and of the client."""
    direct = straight(loop, streams)
    events, client = loop_time(pid), time.thread_time()
    served = asyncio.run(through(port, streams, loop.engine.vocab))
    return direct, served, loop_time(pid) - events, time.thread_time() - client


def loop_time(pid: int) -> float:
    """Seconds of processor time of a process's first thread."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def prompt(vocab: int) -> list[int]:
    """Ids that no other prompt of either side begins with."""
    return Random(next(_fresh)).choices(range(vocab), k=CONTEXT)


def straight(loop: Loop, streams: int) -> float:
    sampling = Sampling(temperature=0.0, max_tokens=ANSWER, ignore_eos=True)
    prompts = [prompt(loop.engine.vocab) for _ in range(streams)]
    finished = Semaphore(0)

    def listen(update: Update) -> bool:
        if update.finish_reason is not None:
            finished.release()
        return False

    started = time.perf_counter()
    for ids in prompts:
        loop.submit(ids, sampling, listen)
    for _ in prompts:
        finished.acquire()
    return time.perf_counter() - started


async def through(port: int, streams: int, vocab: int) -> float:
    bodies = [
        {"prompt": prompt(vocab), "max_tokens": ANSWER, "temperature": 0, "ignore_eos": True, "stream": True,
         "stream_options": {"include_usage": True}}
        for _ in range(streams)
    ]  # fmt: skip
    started = time.perf_counter()
    counts = await asyncio.gather(*(stream(port, json.dumps(body).encode()) for body in bodies))
    seconds = time.perf_counter() - started
    if counts != [ANSWER] * streams:
        sys.exit(f"the server answered with {counts} tokens")
    return seconds


async def stream(port: int, body: bytes) -> int:
    """Tokens of the answer, as its last event counts them."""
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    _, answer = await loop.create_connection(lambda: Answer(request, loop.create_future()), "127.0.0.1", port)
    await answer.closed
    found = re.search(rb'"completion_tokens":(\d+)', answer.tail)
    if found is None:
        sys.exit(f"the stream broke: {answer.tail!r}")
    return int(found[1])


class Answer(asyncio.Protocol):
    """Sends a request and keeps the end of what comes back: as little work a token as can be."""

    def __init__(self, request: bytes, closed: "asyncio.Future[None]"):
        self.request, self.closed, self.tail = request, closed, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-1000:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


if __name__ == "__main__":
    main()
