"""Texts of many requests computed together, on a thread of their own. No torch: what computes is a function."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from myna.records import ProviderError, Unavailable

log = logging.getLogger(__name__)


class Sized(Protocol):
    """Something of so many tokens."""

    def __len__(self) -> int: ...


X = TypeVar("X", bound=Sized)
Y = TypeVar("Y")


class _Job(Generic[X, Y]):
    """The texts of one request: those that wait, with their places, shortest first, and the answers there are."""

    def __init__(self, texts: Sequence[X], done: Callable[[list[Y] | Exception], None]):
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        self.waiting = [(i, texts[i]) for i in by_length]
        self.answers: dict[int, Y] = {}
        self.done = done
        self.count = len(texts)

    def take(self, i: int, answer: Y) -> None:
        self.answers[i] = answer
        if len(self.answers) == self.count:
            self.done([self.answers[i] for i in range(self.count)])


class Batches(Generic[X, Y]):
    """`compute` answers several texts at once, of about `budget` tokens together. Requests take turns, a text each, so a
    long list does not keep a short one waiting; like lengths go together.

    At most `most` tokens wait; more are Unavailable, with the time that those before them will take at the pace so far.
    """

    def __init__(self, compute: Callable[[list[X]], Sequence[Y]], *, budget: int, most: int, name: str):
        self._compute, self._budget, self._most, self._name = compute, budget, most, name
        self._changed = threading.Condition()
        self._jobs: deque[_Job[X, Y]] = deque()
        self._queued = 0  # tokens
        self._pace = 0.0  # tokens a second, of the last batches
        self._open = True
        self._thread: threading.Thread | None = None

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait to be computed."""
        return self._queued

    @property
    def is_open(self) -> bool:
        return self._open

    async def run(self, texts: Sequence[X]) -> list[Y]:
        """The answers, in the order of the texts. A task that is cancelled here takes what still waits with it.

        Raises Unavailable when too much waits already, ProviderError when computing failed.
        """
        if not texts:
            return []
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[Y]] = loop.create_future()

        def settle(result: list[Y] | Exception) -> None:
            if not answered.done():
                answered.set_exception(result) if isinstance(result, Exception) else answered.set_result(result)

        def done(result: list[Y] | Exception) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, result)

        job: _Job[X, Y] = _Job(texts, done)
        self._enter(job)
        try:
            return await answered
        finally:
            self._leave(job)

    def close(self) -> None:
        """End the thread after the batch that is being computed. Who still waits hears of it."""
        with self._changed:
            self._open = False
            jobs, self._jobs, self._queued = [*self._jobs], deque(), 0
            self._changed.notify()
        for job in jobs:
            job.done(ProviderError(f"{self._name} was shut down.", status=500))
        if self._thread is not None:
            self._thread.join()

    def _enter(self, job: _Job[X, Y]) -> None:
        tokens = sum(len(text) for _, text in job.waiting)
        with self._changed:
            if not self._open:
                raise Unavailable(f"{self._name} is shut down.")
            if self._queued and self._queued + tokens > self._most:
                wait = math.ceil(self._queued / self._pace) if self._pace else 1
                message = f"{self._queued} tokens wait for {self._name} already."
                raise Unavailable(message, retry_after=max(1, wait), code="queue_full")
            self._jobs.append(job)
            self._queued += tokens
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"batches of {self._name}", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _leave(self, job: _Job[X, Y]) -> None:
        """Whatever still waits of it waits no longer."""
        with self._changed:
            self._queued -= sum(len(text) for _, text in job.waiting) if job in self._jobs else 0
            job.waiting = []
            with suppress(ValueError):
                self._jobs.remove(job)

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            started = time.perf_counter()
            try:
                answers = self._compute([text for _, _, text in batch])
                assert len(answers) == len(batch)
            except Exception as e:  # out of memory, most likely; the thread lives on
                log.exception("%s: a batch of %d texts failed", self._name, len(batch))
                self._fail(batch, ProviderError(f"computing failed: {type(e).__name__}", status=500))
                continue
            tokens = sum(len(text) for _, _, text in batch)
            self._pace = tokens / max(time.perf_counter() - started, 1e-9)
            for (job, i, _), answer in zip(batch, answers, strict=True):
                job.take(i, answer)

    def _fail(self, batch: list[tuple[_Job[X, Y], int, X]], error: Exception) -> None:
        for job in {id(job): job for job, _, _ in batch}.values():
            self._leave(job)
            job.done(error)

    def _next(self) -> list[tuple[_Job[X, Y], int, X]] | None:
        """The next texts to compute, at least one; None when it is over."""
        with self._changed:
            while self._open and not self._jobs:
                self._changed.wait()
            if not self._open:
                return None
            batch: list[tuple[_Job[X, Y], int, X]] = []
            room = self._budget
            while self._jobs and (not batch or len(self._jobs[0].waiting[-1][1]) <= room):
                job = self._jobs.popleft()
                i, text = job.waiting.pop()
                batch.append((job, i, text))
                room -= len(text)
                self._queued -= len(text)
                if job.waiting:
                    self._jobs.append(job)
        return sorted(batch, key=lambda entry: len(entry[2]))
