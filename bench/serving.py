"""Concurrent streams through the server, over real sockets, beside the same work straight on the engine, in turn.

    python bench/serving.py [MODEL] [--streams 32] [--rounds 5] [--precision auto]

Both do the same: so many requests at once, 128 random tokens in and 128 out, greedy. The server is a process of its own
(`myna serve`), the client is this one: plain sockets and no JSON until the last event, as its work is done on the same
processors. Also said is the processor time of the server's event loop, which does not depend on what else runs.
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

from myna.engine.engine import Engine, engine_for
from myna.engine.measure import ANSWER, CONTEXT
from myna.model import load_model
from myna.modeldir import DEFAULT, ModelDir, find
from myna.provider.local import Loading
from myna.records import Sampling

_fresh = count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    how = Loading()
    decoder = load_model(ModelDir.open(find(args.model)), args.precision)
    kv_tokens = int(how.kv_gb * 2**30 / decoder.kv_bytes_per_token)
    engine = engine_for(decoder, kv_tokens=kv_tokens, max_running=how.max_running, draft_rows=how.draft_rows)
    command = [sys.executable, "-m", "myna", "serve", args.model, "--port", "0", "--precision", args.precision]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        port = announced_port(server)
        straight(engine, args.streams), asyncio.run(through(port, args.streams))  # warm up
        rounds = [one_round(engine, server.pid, port, args.streams) for _ in range(args.rounds)]
    finally:
        server.terminate()
    tokens = args.streams * ANSWER
    print(
        f"{args.model}, {args.streams} streams of {CONTEXT} tokens in and {ANSWER} out, {args.rounds} rounds, medians"
    )
    print(
        f"engine {tokens / median(r[0] for r in rounds):.1f} tokens/s, HTTP {tokens / median(r[1] for r in rounds):.1f}"
    )
    print(f"HTTP / engine {median(r[0] / r[1] for r in rounds):.3f}")
    print(f"event loop {median(r[2] for r in rounds) / tokens * 1e6:.0f} microseconds of processor time a token")


def announced_port(server: "subprocess.Popen[str]") -> int:
    assert server.stderr is not None
    seen = []
    for line in server.stderr:
        seen.append(line)
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    sys.exit("the server did not start:\n" + "".join(seen))


def one_round(engine: Engine, pid: int, port: int, streams: int) -> tuple[float, float, float]:
    """Seconds on the engine, seconds through the server, and seconds its event loop computed."""
    direct = straight(engine, streams)
    before = loop_time(pid)
    served = asyncio.run(through(port, streams))
    return direct, served, loop_time(pid) - before


def loop_time(pid: int) -> float:
    """Seconds of processor time of a process's first thread."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def prompt(vocab: int) -> list[int]:
    """Ids that no other prompt of either side begins with."""
    return Random(next(_fresh)).choices(range(vocab), k=CONTEXT)


def straight(engine: Engine, streams: int) -> float:
    prompts = [prompt(engine.vocab) for _ in range(streams)]
    started = time.perf_counter()
    answers = engine.generate(prompts, Sampling(temperature=0.0, max_tokens=ANSWER, ignore_eos=True))
    seconds = time.perf_counter() - started
    assert all(len(answer[0]) == ANSWER for answer in answers)
    return seconds


async def through(port: int, streams: int) -> float:
    bodies = [
        {"prompt": prompt(40_000), "max_tokens": ANSWER, "temperature": 0, "ignore_eos": True, "stream": True,
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
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    tail = b""
    while part := await reader.read(1 << 16):
        tail = (tail + part)[-4096:]
    writer.close()
    found = re.search(rb'"completion_tokens":(\d+)', tail)
    if found is None:
        sys.exit(f"the stream broke: {tail[-1000:]!r}")
    return int(found[1])


if __name__ == "__main__":
    main()
