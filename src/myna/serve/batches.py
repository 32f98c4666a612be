"""Batches: each line of a file answered as a request of its own would be, behind everybody who waits for an answer.

A line is done when its answer is on the disk. A server that was killed goes on with the lines that are not, so none is lost,
and what was computed but not written is computed again, so none is there twice.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

from myna.provider.wire.batch import read_line, write_answer
from myna.records import Json, RequestError, Unavailable
from myna.serve.store import ENDED, ROOM_AFTER, Batch, Store, append, needing_room, read_lines

log = logging.getLogger("myna.serve")
WIDTH = 32  # lines being answered at once
MAX_LINES = 50_000  # OpenAI's
ERRORS_SHOWN = 20
WINDOW = 24 * 3600  # seconds a batch may take
BUSY = frozenset({429, 503})  # not now: a line waits, and is asked again

P = ParamSpec("P")
# (endpoint, body, whose batch) -> (status, request id, body)
Ask = Callable[[str, bytes, str], Awaitable[tuple[int, str, bytes]]]


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line of the input is; a file may be larger than memory."""

    custom_id: str
    offset: int
    length: int


class Batches:
    """Works on one batch after the other, oldest first. `ask` answers a line; `stopping` says to begin no more lines."""

    def __init__(self, store: Store, ask: Ask, stopping: Callable[[], bool]):
        self.store = store
        self._ask, self._stopping = ask, stopping
        self._live: dict[str, Batch] = {}
        self._come = asyncio.Event()

    def add(self, batch: Batch) -> None:
        """To be worked on. It is saved already."""
        self._live[batch.id] = batch
        self._come.set()

    async def one(self, id: str, owner: str) -> Batch:
        """As it is now. What is being worked on knows more than the disk, and is looked at first: it may end while the disk is read.
        Raises RequestError where this owner has none."""
        live = self._live.get(id)
        return live if live and live.owner == owner else await asyncio.to_thread(self.store.batch, id, owner)

    async def all_of(self, owner: str) -> list[Batch]:
        """Each as it is now, oldest first."""
        live = dict(self._live)
        return [live.get(b.id, b) for b in await asyncio.to_thread(self.store.batches) if b.owner == owner]

    async def run(self) -> None:
        """For ever. Begins with what a server before this one left."""
        for batch in await asyncio.to_thread(self.store.batches):
            if batch.status not in ENDED:
                self._live.setdefault(batch.id, batch)
        while True:
            self._come.clear()
            for batch in [*self._live.values()]:
                if await self._bring_on(batch):
                    del self._live[batch.id]
            with suppress(TimeoutError):
                await asyncio.wait_for(self._come.wait(), ROOM_AFTER if self._live else None)

    async def cancel(self, id: str, owner: str) -> Batch:
        """Begin no more of its lines; those that are done stay done."""
        batch = await self.one(id, owner)
        if batch.status in ENDED:
            raise RequestError(f"{batch.id} is {batch.status} already.", param="batch_id")
        batch.reach("cancelling")
        await _on_disk(self.store.save, batch)
        return batch

    async def _bring_on(self, batch: Batch) -> bool:
        """Whether it has ended, and the disk knows. On a full disk it pauses, and its errors say so."""
        try:
            if batch.status not in ENDED:  # else it could only not be saved
                await self._work_or_fail(batch)
            await _on_disk(self.store.save, batch)
        except Unavailable as e:
            log.error("%s pauses: %s", batch.id, e)
            if batch.status not in ENDED:
                batch.errors = [_error(e, None)]
            return False
        return batch.status in ENDED

    async def _work_or_fail(self, batch: Batch) -> None:
        try:
            await self._work(batch)
        except Unavailable:
            raise
        except Exception as e:  # a bug of ours: the next batch may do better
            log.exception("%s failed", batch.id)
            failure = RequestError(f"The server failed: {type(e).__name__}.", code="internal_error")
            batch.errors = [_error(failure, None)]
            batch.reach("failed")

    async def _work(self, batch: Batch) -> None:
        if batch.status == "finalizing":  # killed at the last moment: all lines are done and counted
            batch.errors = []
            await self._finish(batch)
            return
        try:
            path = await asyncio.to_thread(self.store.content, batch.input_file_id, batch.owner)
            lines, batch.errors = await asyncio.to_thread(_check, path, batch.endpoint)
        except RequestError as e:
            lines, batch.errors = [], [_error(e, None)]
        if batch.errors:
            batch.reach("failed")
            return
        if batch.status == "validating":
            batch.reach("in_progress")
        batch.total = len(lines)
        good, bad = await asyncio.to_thread(self.store.answered, batch)
        batch.completed, batch.failed = len(good), len(bad)
        await _on_disk(self.store.save, batch)
        await self._answer(batch, path, [line for line in lines if line.custom_id not in good | bad])
        await self._finish(batch)

    def _goes_on(self, batch: Batch) -> bool:
        """Whether another of its lines may begin."""
        return batch.status == "in_progress" and not self._stopping() and time.time() <= batch.expires_at

    async def _answer(self, batch: Batch, path: Path, lines: list[Line]) -> None:
        waiting = iter(lines)

        async def worker() -> None:
            for line in waiting:
                while self._goes_on(batch) and not await self._answer_line(batch, path, line):
                    await asyncio.sleep(1)
                if not self._goes_on(batch):
                    return

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(WIDTH, len(lines))):
                    workers.create_task(worker())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _answer_line(self, batch: Batch, path: Path, line: Line) -> bool:
        """Whether it is done; False where the server was too busy for it."""
        _, body = read_line(await asyncio.to_thread(_read_at, path, line), batch.endpoint)
        status, request_id, answer = await self._ask(batch.endpoint, body, batch.owner)
        if status in BUSY:
            return False
        output, errors = self.store.results(batch)
        row = write_answer(f"batch_req_{secrets.token_hex(12)}", line.custom_id, request_id, status, answer)
        await _on_disk(append, output if status == 200 else errors, row)
        batch.completed += status == 200
        batch.failed += status != 200
        return True

    async def _finish(self, batch: Batch) -> None:
        """Publish what there is, unless it is to go on when the server is started again."""
        done = batch.completed + batch.failed == batch.total
        if not done and batch.status == "in_progress" and time.time() <= batch.expires_at:
            return
        last = "cancelled" if batch.status == "cancelling" else "completed" if done else "expired"
        if last == "completed":
            batch.reach("finalizing")
            await _on_disk(self.store.save, batch)
        await _on_disk(self.store.finish, batch)
        batch.reach(last)
        log.info("%s is %s: %d answered, %d failed", batch.id, last, batch.completed, batch.failed)


async def _on_disk(do: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """On a thread. Raises Unavailable where the disk is full."""
    with needing_room():
        await asyncio.to_thread(do, *args, **kwargs)


def new_batch(order: Json, owner: str) -> Batch:
    now = int(time.time())
    return Batch(
        f"batch_{secrets.token_hex(16)}", order["endpoint"], order["input_file_id"], order["completion_window"],
        now, now + WINDOW, owner, order.get("metadata"),
        output_id=f"file-{secrets.token_hex(16)}", error_id=f"file-{secrets.token_hex(16)}",
    )  # fmt: skip


def _check(path: Path, endpoint: str) -> tuple[list[Line], list[Json]]:
    """The lines of an input file, or what is wrong with it: then nothing of it is answered."""
    lines: list[Line] = []
    errors: list[Json] = []
    seen: set[str] = set()
    for number, (offset, length, text) in enumerate(read_lines(path), start=1):
        try:
            custom_id, _ = read_line(text, endpoint)
            if custom_id in seen:
                raise RequestError(f"custom_id {custom_id[:80]!r} is used twice.", param="custom_id")
            if number > MAX_LINES:
                raise RequestError(f"The file has more than {MAX_LINES} lines.")
        except RequestError as e:
            errors.append(_error(e, number))
            if len(errors) == ERRORS_SHOWN or number > MAX_LINES:
                break
            continue
        seen.add(custom_id)
        lines.append(Line(custom_id, offset, length))
    if not lines and not errors:
        errors.append(_error(RequestError("The file has no lines."), None))
    return lines, errors


def _error(e: RequestError | Unavailable, line: int | None) -> Json:
    return {"code": e.code, "message": str(e), "param": getattr(e, "param", None), "line": line}


def _read_at(path: Path, line: Line) -> bytes:
    with open(path, "rb") as file:
        file.seek(line.offset)
        return file.read(line.length)
