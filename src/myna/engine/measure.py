"""How fast an engine runs here, beside what the machine's memory allows, and what is spent outside the kernels."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from random import Random
from statistics import median

import torch

from myna.engine.blocks import blocks_for
from myna.engine.engine import Engine
from myna.kernels import library
from myna.model import Decoder
from myna.records import Sampling

PROMPT, CONTEXT, ANSWER, STEPS = 512, 128, 128, 24
BATCHES = (1, 8, 32)
GREEDY = Sampling(temperature=0.0)
READ = 1 << 29  # bytes; far more than any cache
_fresh = count()


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured, with `batch` sequences at once. A field that says nothing about it is 0.

    what                prefill: prompts of `context` tokens; decode: steps after `context` tokens; requests: `batch` of
                        them, 128 tokens in and 128 out, from the first submitted to the last finished
    tokens_per_second   of requests: generated tokens
    decoding            of requests: tokens/s while all of them decode
    bytes_per_token     read from memory for a token, keys and values included
    bandwidth           bytes/s that plain reads reached, the best of some before and after
    bandwidth_share     the part of it that the step reached
    host_share          the part of a step spent outside the forward pass: planning, describing, sampling, settling;
                        0 also where the forward pass is not native
    """

    what: str
    batch: int
    context: int
    tokens_per_second: float
    decoding: float = 0.0
    bytes_per_token: float = 0.0
    bandwidth: float = 0.0
    bandwidth_share: float = 0.0
    host_share: float = 0.0


def measure(engine: Engine, model: Decoder, sampled: Sampling, *, long: int = 0) -> Iterator[Speed]:
    """One Speed after another; runs on an engine that nobody else is using, without a prefix cache.

    sampled   decoding is measured greedily, and once more sampled like this ("decode sampled")
    long      also a prompt of so many tokens, and decoding after it

    Batches that there is no room for are left out. Raises RequestError, before anything is timed, when `long` is too long.
    """
    batches = [batch for batch in BATCHES if fits(engine, batch)]
    if long:
        engine.resolve([0] * long, Sampling(max_tokens=10 * STEPS))
    _decode(engine, 1, 8, GREEDY, steps=2)  # warm up
    yield _prefill(engine, PROMPT, rounds=3)
    for batch in batches:
        yield _decode_beside_reads(engine, model, batch, CONTEXT)
    for batch in batches:
        rate, host = _decode(engine, batch, CONTEXT, sampled)
        yield Speed("decode sampled", batch, CONTEXT, rate, host_share=host)
    for batch in batches[1:]:
        yield _requests(engine, batch)
    if long:
        yield _prefill(engine, long, rounds=1)
        yield _decode_beside_reads(engine, model, 1, long)


def fits(engine: Engine, batch: int) -> bool:
    """Whether so many of the measured requests run at once, from the first token to the last."""
    scheduler = engine.scheduler
    return batch <= min(scheduler.max_running, scheduler.blocks.count // blocks_for(CONTEXT + ANSWER))


def read_bandwidth(rounds: int = 4) -> float:
    """Bytes per second that plain reads of main memory reach with all threads: the best of a few rounds."""
    block, native = _block(), library()
    read = block.sum if native is None else lambda: native.myna_read(block.data_ptr(), READ)
    return READ / min(_seconds(read) for _ in range(rounds))


@cache
def _block() -> torch.Tensor:
    return torch.ones(READ // 8, dtype=torch.int64)


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


def _decode_beside_reads(engine: Engine, model: Decoder, batch: int, context: int) -> Speed:
    before = read_bandwidth()
    rate, host = _decode(engine, batch, context, GREEDY)
    bandwidth = max(before, read_bandwidth())
    a_token = bytes_read(model, batch, context + STEPS // 2) / batch
    return Speed(
        "decode", batch, context, rate, bytes_per_token=a_token, bandwidth=bandwidth,
        bandwidth_share=rate * a_token / bandwidth, host_share=host,
    )  # fmt: skip


def _prefill(engine: Engine, length: int, rounds: int) -> Speed:
    def once() -> float:
        _submit(engine, 1, length, 1, GREEDY)
        return _seconds(lambda: _finish(engine))

    return Speed("prefill", 1, length, length / median(once() for _ in range(rounds)))


def _decode(engine: Engine, batch: int, context: int, sampling: Sampling, steps: int = STEPS) -> tuple[float, float]:
    """Tokens/s and the host's share of steps in which every sequence gets one token: medians."""
    _submit(engine, batch, context, 10 * steps, sampling)
    _until_all_decode(engine)
    spent = []
    for _ in range(steps):
        before = _inside(engine)
        whole = _seconds(engine.step)
        after = _inside(engine)
        spent.append((whole, 0.0 if before is None or after is None else 1 - (after - before) / whole))
    for sequence in [*engine.scheduler.running]:
        engine.cancel(sequence.request.id)
    return batch / median(whole for whole, _ in spent), median(host for _, host in spent)


def _requests(engine: Engine, batch: int) -> Speed:
    started = time.perf_counter()
    _submit(engine, batch, CONTEXT, ANSWER, GREEDY)
    _until_all_decode(engine)
    left = sum(ANSWER - sequence.generated for sequence in engine.scheduler.running)
    seconds = _seconds(lambda: _finish(engine))
    total = time.perf_counter() - started
    return Speed("requests", batch, CONTEXT, batch * ANSWER / total, decoding=left / seconds)


def _submit(engine: Engine, batch: int, length: int, answer: int, sampling: Sampling) -> None:
    """Queue requests whose prompts no other request shares, and which end after `answer` tokens."""
    sampling = sampling.resolve(Sampling(seed=0, max_tokens=answer, ignore_eos=True))
    for _ in range(batch):
        prompt = Random(next(_fresh)).choices(range(engine.vocab), k=length)
        engine.submit(prompt, sampling, lambda update: False)


def _until_all_decode(engine: Engine) -> None:
    while engine.scheduler.waiting or any(s.generated == 0 for s in engine.scheduler.running):
        engine.step()


def _finish(engine: Engine) -> None:
    while not engine.idle:
        engine.step()


def _inside(engine: Engine) -> float | None:
    """Seconds of forward passes so far; None where they are not native, and nothing tells them from the rest."""
    native = getattr(engine.runner, "native", None)
    return None if native is None else native.seconds


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
