"""How fast an engine runs here, beside what the machine's memory allows."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch

from myna.engine.engine import Engine
from myna.model import Decoder
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


def measure(engine: Engine, model: Decoder, bandwidth: float, *, steps: int = 24) -> Iterator[Speed]:
    """One Speed after another, beside a bandwidth in bytes/s. Runs on an engine that nobody else is using."""
    _decode(engine, 1, 8, 2)  # warm up
    yield Speed("prefill", 1, median(PROMPT / sum(_prefill(engine, 1, PROMPT, salt)) for salt in range(3)))
    for batch in (b for b in BATCHES if b <= engine.scheduler.max_running):
        step = median(_decode(engine, batch, CONTEXT, steps))
        read = bytes_read(model, batch, CONTEXT + steps // 2)
        yield Speed("decode", batch, batch / step, read, read / step / bandwidth)


def bytes_read(model: Decoder, batch: int, context: int) -> int:
    """Bytes that one decode step must read: every weight it multiplies with, and the keys and values of the context.

    Of an embedding that is not also the head it reads a row a sequence; of a mixture, at most top_k experts a sequence.
    """
    spec, total = model.spec, 0
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        share = min(1.0, batch * spec.moe.top_k / spec.moe.experts) if spec.moe and ".experts." in name else 1.0
        table = name.startswith(("places.", "rotary.", "local_rotary.")) or (
            name.startswith("embed.") and not spec.tied
        )
        total += 0 if table else int(tensor.nbytes * share)
    return total + batch * context * model.kv_bytes_per_token


def _prefill(engine: Engine, batch: int, length: int, salt: int, answer: int = 1) -> list[float]:
    """Seconds of each step until every prompt is computed. Salted, so that the prefix cache finds nothing."""
    sampling = Sampling(temperature=0.0, max_tokens=answer, ignore_eos=True)
    for k in range(batch):
        prompt = [(7 * k + i) % (engine.vocab - 1) + 1 for i in range(length)]
        engine.submit(prompt, sampling, lambda update: False, salt=f"{batch}/{salt}")
    seconds = [_seconds(engine.step)]
    while engine.scheduler.waiting or any(s.generated == 0 for s in engine.scheduler.running):
        seconds.append(_seconds(engine.step))
    return seconds


def _decode(engine: Engine, batch: int, length: int, steps: int) -> list[float]:
    """Seconds of each of `steps` steps in which every sequence of the batch gets one token."""
    _prefill(engine, batch, length, salt=-1, answer=10 * steps)
    seconds = [_seconds(engine.step) for _ in range(steps)]
    for sequence in [*engine.scheduler.running]:
        engine.cancel(sequence.request.id)
    return seconds


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
