"""How fast an engine runs here, beside what the machine's memory allows."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch

from myna.engine.engine import Engine
from myna.records import Sampling

PROMPT = 512
CONTEXT = 128
BATCHES = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second; for decode also the bytes read per step, and the share of the read bandwidth that makes."""

    what: str
    batch: int
    tokens_per_second: float
    bytes_per_step: int = 0
    bandwidth_share: float = 0.0


def read_bandwidth(size: int = 1 << 30, rounds: int = 5) -> float:
    """Bytes per second that plain reads of main memory reach with all of torch's threads: the best of a few rounds."""
    block = torch.ones(size // 8, dtype=torch.int64)  # 1 GiB: far more than any cache
    return size / min(_seconds(block.sum) for _ in range(rounds))


def measure(engine: Engine, weight_bytes: int, kv_bytes_per_token: int, *, answer: int = 32) -> Iterator[Speed | float]:
    """First the bandwidth in bytes/s, then one Speed after another. Runs on an engine that nobody else is using."""
    yield (bandwidth := read_bandwidth())
    _run(engine, 1, 8, 4)  # warm up
    rates = [PROMPT / _seconds(lambda k=k: _run(engine, 1, PROMPT, 1, salt=k)) for k in range(3)]
    yield Speed("prefill", 1, median(rates))
    for batch in (b for b in BATCHES if b <= engine.scheduler.max_running):
        first = _seconds(lambda batch=batch: _run(engine, batch, CONTEXT, 1, salt=10 + batch))
        whole = _seconds(lambda batch=batch: _run(engine, batch, CONTEXT, 1 + answer, salt=100 + batch))
        step = (whole - first) / answer
        read = weight_bytes + batch * (CONTEXT + answer // 2) * kv_bytes_per_token
        yield Speed("decode", batch, batch / step, read, read / step / bandwidth)


def _run(engine: Engine, batch: int, prompt: int, answer: int, salt: int = 0) -> None:
    """Greedy answers of exactly `answer` tokens. Prompts differ in their first token, so the prefix cache finds nothing."""
    prompts = [[(7 * k + 31 * salt + i) % (engine.vocab - 1) + 1 for i in range(prompt)] for k in range(batch)]
    engine.generate(prompts, Sampling(temperature=0.0, max_tokens=answer, ignore_eos=True))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
