"""A crowd of clients, some of whom leave and some of whom talk nonsense, and what they leave behind: it should be nothing.

    python bench/load.py [MODEL] [--clients 64] [--minutes 10] [--cancel 0.2] [--malformed 0.1]

The server is a process of its own (`myna serve`). Prompts are of 3 to 600 words, answers of up to 200 tokens, most of them
streams. Counted: how each request ended; times to the first token and between tokens, as a client sees them; and the server's
blocks, sequences, tasks, file descriptors and memory when all are gone, beside what they were after the first fifth of the
time. Exits 1 if a request got no proper end, or if something was left behind.
"""

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from serving import announced_port

WORDS = (
    "the a sum of all rivers code table light why how explain write list 天空 河流 解释 为什么 list of three".split()
)
NONSENSE: list[dict[str, Any]] = [
    {"content": b"{"}, {"content": b"\xff\xfe"}, {"json": []}, {"json": {}}, {"json": {"messages": "hi"}},
    {"json": {"messages": [{"role": "nobody", "content": "x"}]}}, {"json": {"messages": [], "model": "none"}},
    {"json": {"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}},
    {"json": {"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}},
    {"json": {"messages": [{"role": "user", "content": "word " * 20_000}]}},
    {"json": {"messages": [{"role": "user", "content": "x"}], "logit_bias": {"99999999": 1}}},
]  # fmt: skip
MEMORY_GROWTH = 1.1  # of the resident memory: allocators keep some of what a crowd needed at once


@dataclass
class Seen:
    """What became of the requests, and how long they waited: seconds."""

    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cancel", type=float, default=0.2)
    parser.add_argument("--malformed", type=float, default=0.1)
    args = parser.parse_args()
    command = [sys.executable, "-m", "myna", "serve", args.model, "--port", "0", "--kv-gb", "0.1"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{announced_port(server)}"
        assert server.stderr is not None
        threading.Thread(target=server.stderr.read, daemon=True).start()  # its log, so that it never waits for us
        good = asyncio.run(crowd(args, url, server))
    finally:
        server.terminate()
        server.wait()
    sys.exit(0 if good else 1)


async def crowd(args: argparse.Namespace, url: str, server: "subprocess.Popen[str]") -> bool:
    seen = Seen()
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        await warm_up(client)
    end = time.monotonic() + 60 * args.minutes
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=args.clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300) as client:
        clients = [asyncio.create_task(visit(client, seen, args, random.Random(i), end)) for i in range(args.clients)]
        await asyncio.sleep(12 * args.minutes)
        early = await look(client, server)
        await asyncio.gather(*clients)
    async with httpx.AsyncClient(base_url=url) as client:  # the crowd's connections are closed
        late = await settled(client, server)
    return report(seen, early, late)


async def warm_up(client: httpx.AsyncClient) -> None:
    """Prompts that fill every block once: the system gives its memory when it is first written to, and that is no leak."""
    for i in range(12):
        words = " ".join(random.Random(1000 + i).choices(WORDS, k=400))
        body = {"messages": [{"role": "user", "content": f"{i} {words}"}], "max_tokens": 2}
        (await client.post("/v1/chat/completions", json=body)).raise_for_status()


async def visit(
    client: httpx.AsyncClient, seen: Seen, args: argparse.Namespace, rng: random.Random, end: float
) -> None:
    while time.monotonic() < end:
        kind = rng.random()
        if kind < args.malformed:
            await nonsense(client, seen, rng)
        elif kind < args.malformed + args.cancel:
            task = asyncio.create_task(ask(client, seen, rng))
            done, _ = await asyncio.wait({task}, timeout=rng.expovariate(1.0))
            if not done:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                seen.ended["cancelled by us"] += 1
        else:
            await ask(client, seen, rng)


async def nonsense(client: httpx.AsyncClient, seen: Seen, rng: random.Random) -> None:
    options = rng.choice(NONSENSE)
    answer = await client.post("/v1/chat/completions", **options)
    if 400 <= answer.status_code < 500 and set(answer.json()["error"]) == {"message", "type", "param", "code"}:
        seen.ended[f"nonsense refused ({answer.status_code})"] += 1
    else:
        seen.wrong.append(f"{options} was answered with {answer.status_code}")


async def ask(client: httpx.AsyncClient, seen: Seen, rng: random.Random) -> None:
    words = " ".join(rng.choices(WORDS, k=rng.choice((3, 10, 40, 150, 600))))
    body = {
        "messages": [{"role": "user", "content": words}],
        "max_tokens": rng.randrange(1, 200),
        "stream": rng.random() < 0.7,
    }
    started = last = time.monotonic()
    tokens, text = 0, b""
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for piece in answer.aiter_bytes():
            text += piece
            now = time.monotonic()
            if body["stream"] and b'"content":"' in piece.replace(b'"content":""', b""):
                (seen.between if tokens else seen.first).append(now - (last if tokens else started))
                tokens, last = tokens + 1, now
    if answer.status_code == 429 and answer.headers["retry-after"].isdigit():
        seen.ended["refused: full (429)"] += 1
        await asyncio.sleep(int(answer.headers["retry-after"]))
    elif answer.status_code == 200 and (
        text.endswith(b"data: [DONE]\n\n") if body["stream"] else json.loads(text)["choices"]
    ):
        seen.ended["answered"] += 1
    else:
        seen.wrong.append(f"{answer.status_code} {text[-300:]!r}")


async def look(client: httpx.AsyncClient, server: "subprocess.Popen[str]") -> dict[str, float]:
    """What the server holds now."""
    health = (await client.get("/health")).json()
    metrics = (await client.get("/metrics")).text
    names = ("num_requests_waiting", "num_requests_running", "num_sequences_running", "num_sequences_waiting")
    found = {
        n: _metric(metrics, n) for n in (*names, "num_sequences_held", "num_tokens_waiting", "kv_cache_usage_perc")
    }
    steps, seconds, host = (
        _metric(metrics, f"engine_{n}_total") for n in ("steps", "step_seconds", "step_host_seconds")
    )
    status = Path(f"/proc/{server.pid}/status").read_text()
    return found | {
        "tasks": health["tasks"],
        "active": health["active"],
        "file descriptors": len(os.listdir(f"/proc/{server.pid}/fd")),
        "threads": int(re.search(r"Threads:\s+(\d+)", status)[1]),  # type: ignore[index]
        "resident MB": int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024,  # type: ignore[index]
        "step ms": 1000 * seconds / max(steps, 1),
        "host share": host / max(seconds, 1e-9),
    }


async def settled(client: httpx.AsyncClient, server: "subprocess.Popen[str]") -> dict[str, float]:
    """What it holds when nothing is being answered any more, and closed connections have been noticed."""
    for _ in range(60):
        await asyncio.sleep(0.5)
        found = await look(client, server)
        if not found["active"] and not found["kv_cache_usage_perc"]:
            break
    await asyncio.sleep(6)  # uvicorn keeps idle connections for 5 seconds
    return await look(client, server)


def report(seen: Seen, early: dict[str, float], late: dict[str, float]) -> bool:
    for kind, count in sorted(seen.ended.items()):
        print(f"{count:7} {kind}")
    for name, times in (("first token", seen.first), ("between tokens", seen.between)):
        ranked = sorted(times)
        p50, p99 = (ranked[int(len(ranked) * share)] * 1000 for share in (0.5, 0.99))
        print(f"{name}: p50 {p50:.0f} ms, p99 {p99:.0f} ms, of {len(ranked)}")
    for name in late:
        print(f"{name:24} in the crowd {early[name]:9.2f}   when all are gone {late[name]:9.2f}")
    zero = [n for n in late if n.startswith(("num_", "kv_", "active")) and late[n]]
    left = [f"{n} is {late[n]:g}" for n in zero]
    left += [f"{n} grew" for n in ("tasks", "file descriptors") if late[n] > early[n]]
    left += ["memory grew"] if late["resident MB"] > MEMORY_GROWTH * early["resident MB"] else []
    for problem in [*seen.wrong[:10], *left]:
        print("WRONG:", problem)
    return not seen.wrong and not left


def _metric(text: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^myna:{name}\{{[^}}]*\}} (\S+)$", text, re.M))


if __name__ == "__main__":
    main()
