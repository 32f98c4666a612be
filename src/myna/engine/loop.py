"""A thread for the engine. Any thread may submit and cancel; the engine's own thread does everything else."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

from myna.engine.engine import Engine, Listener
from myna.records import Sampling, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")


class Loop:
    """Steps an engine while there is work, and sleeps while there is none.

    Cancelling takes effect before the next step, so a request holds its blocks for at most the step in flight.
    `after` is called on the engine's thread when a step is done, and all its listeners were told.
    """

    def __init__(self, engine: Engine, after: Callable[[], None] = lambda: None):
        self.engine = engine
        self.after = after
        self._changed = threading.Condition()
        self._orders: list[Callable[[], None]] = []  # what to do on the engine's thread before the next step
        self._open = True
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, ids: Sequence[int], sampling: Sampling, listen: Listener, **rest: object) -> "Ticket":
        """Queue a request. Raises RequestError before anything is queued if it can never be honoured."""
        sampling = self.engine.resolve(ids, sampling)
        ticket = Ticket(self)
        self.order(lambda: ticket.place(self.engine.submit(ids, sampling, listen, **rest)))  # type: ignore[arg-type]
        return ticket

    @property
    def is_open(self) -> bool:
        """False once it was closed or its thread died: nothing can be submitted any more."""
        return self._open

    def close(self) -> None:
        """Stop after the step in flight. Requests still running end with an error that their listeners hear."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def ask(self, action: Callable[[], T]) -> T:
        """What this says on the engine's thread, before its next step. Raises what it raises; Unavailable if it is too late."""
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(action())
            except Exception as e:
                answer.set_exception(e)

        self.order(run)
        return answer.result()

    def order(self, action: Callable[[], None]) -> None:
        """Do this on the engine's thread, before its next step."""
        with self._changed:
            if not self._open:
                raise Unavailable("The engine is shut down.")
            self._orders.append(action)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while self._open:
                self._work()
        finally:
            with self._changed:
                self._open = False
                orders, self._orders = self._orders, []
            for action in orders:  # whoever was promised a request must hear of its end
                self._do(action)
            self._fail_all("the engine was shut down")
            self.after()

    def _work(self) -> None:
        """Wait for something to do, and do it: the orders, then one step."""
        with self._changed:
            while self._open and not self._orders and self.engine.idle:
                self._changed.wait()
            if not self._open:
                return
            orders, self._orders = self._orders, []
        for action in orders:
            self._do(action)
        if not self.engine.idle:
            self._do(self.engine.step)

    def _do(self, action: Callable[[], None]) -> None:
        """Do one thing. A failure ends what is running with an error, and the next thing is done all the same."""
        try:
            action()
        except Exception as e:
            log.exception("the engine's own code failed; every running request ends with an error")
            self._fail_all(f"internal error: {type(e).__name__}")
        self.after()

    def _fail_all(self, error: str) -> None:
        scheduler = self.engine.scheduler
        self.engine.fail([*scheduler.running, *scheduler.waiting, *scheduler.held], error)


class Ticket:
    """A submitted request, to cancel it by."""

    def __init__(self, loop: Loop):
        self._loop = loop
        self._id: int | None = None

    def place(self, request_id: int) -> None:
        self._id = request_id

    def cancel(self) -> None:
        """Free what the request holds before the next step. Cancelling twice, or too late, does nothing."""
        self._order(self._loop.engine.cancel)

    def hold(self) -> None:
        """Compute nothing for the request from the next step on, until it is resumed."""
        self._order(self._loop.engine.hold)

    def resume(self) -> None:
        """Go on with a request that was held."""
        self._order(self._loop.engine.resume)

    def _order(self, action: Callable[[int], None]) -> None:
        with suppress(Unavailable):  # the engine is gone, and the request with it
            self._loop.order(lambda: action(self._id) if self._id is not None else None)
