"""asyncio.run for work that runs code of others, tools and steps: one that neither ends nor lets itself be cancelled holds up neither
Ctrl-C nor the end."""

import asyncio
import signal
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
GRACE = 5.0  # seconds for what was cancelled to clean up after itself


def run_stoppable(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. Ctrl-C cancels it; where it has not ended GRACE seconds later, because something blocks the loop or will not
    be cancelled, or at a second Ctrl-C, it is interrupted where it is. Raises KeyboardInterrupt then."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    try:
        asyncio.set_event_loop(loop)
        with _interruptible(loop, task) as stopped:
            try:
                return loop.run_until_complete(task)
            except asyncio.CancelledError:
                if stopped.is_set():
                    raise KeyboardInterrupt from None
                raise
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                _close(loop)
    finally:
        asyncio.set_event_loop(None)


@contextmanager
def _interruptible(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> Iterator[threading.Event]:
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        loop.call_soon_threadsafe(task.cancel)
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    before = [(one, signal.signal(one, stop)) for one in (signal.SIGINT, signal.SIGALRM)]
    try:
        yield stopped
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for one, handler in before:
            signal.signal(one, handler)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """As asyncio.run does at its end, but with an end of its own."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        _, left = loop.run_until_complete(asyncio.wait(left, timeout=GRACE))
    if left:
        print(f"left behind: {len(left)} tasks that do not end when they are cancelled", file=sys.stderr)
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # that it is pending has just been said
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
