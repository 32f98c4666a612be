"""The work that every engine does, and how it says how fast it was. Plain Python: it runs in any peer's environment.

bench/cpu.py gives the sizes on the command line, from myna.engine.measure, so that all engines do the same:
every prompt is random and shares nothing with another, answers have the given length whatever the model says.
"""

import json
import sys
import time
from collections.abc import Callable
from itertools import count
from random import Random
from statistics import median
from typing import NamedTuple

_fresh = count()


class Work(NamedTuple):
    prompt: int  # tokens, of prefill
    context: int  # tokens before the first decode step, and of a request
    answer: int  # tokens a request generates
    steps: int  # decode steps whose median counts
    batches: list[int]  # requests at once
    long: int  # tokens of a long prompt; 0 leaves it out

    @property
    def longest(self) -> int:
        """Tokens that one sequence may have, and some to spare."""
        return max(self.prompt, self.long, self.context + self.answer) + 2 * self.steps + 16


def arguments() -> tuple[str, Work]:
    """The model and the work that this script was started with."""
    return sys.argv[1], Work(**json.loads(sys.argv[2]))


def prompt(length: int, vocab: int) -> list[int]:
    """Token ids that no other prompt begins with."""
    return Random(next(_fresh)).choices(range(vocab), k=length)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def report(what: str, batch: int, context: int, rate: float, decoding: float = 0.0) -> None:
    """One line of JSON, as `myna bench --json` writes it."""
    row = {"what": what, "batch": batch, "context": context, "tokens_per_second": rate, "decoding": decoding}
    print(json.dumps(row), flush=True)


def single(work: Work, prefill: Callable[[int], float], decode: Callable[[int], list[float]]) -> None:
    """Time and report prefill and decode of one sequence. prefill(tokens) and decode(context) give seconds, of steps."""
    prefill(work.prompt), decode(work.context)  # warm up
    report("prefill", 1, work.prompt, work.prompt / median(prefill(work.prompt) for _ in range(3)))
    report("decode", 1, work.context, 1 / median(decode(work.context)))
    if work.long:
        report("prefill", 1, work.long, work.long / prefill(work.long))
        report("decode", 1, work.long, 1 / median(decode(work.long)))


def together(work: Work, answer_all: Callable[[int], tuple[float, float, int]]) -> None:
    """Time and report requests. answer_all(n) gives the seconds until all n are answered, those in which all decoded, and
    how many tokens that made."""
    for size in work.batches:
        whole, decoding, tokens = answer_all(size)
        report("requests", size, work.context, size * work.answer / whole, tokens / decoding)
