"""The masks of a step's candidates that have a form, computed while the forward pass runs. No torch."""

import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from myna.engine.constraint import Constraint, Mask
from myna.engine.request import Plan, Sequence, Slice


class Masks(NamedTuple):
    """The masks of a step that are being computed."""

    pending: dict[Sequence, Future[Mask | None]]

    def wait(self) -> dict[Sequence, Mask]:
        """The masks of the candidates that have a form, but for those whose form failed."""
        found = {sequence: future.result() for sequence, future in self.pending.items()}
        return {sequence: mask for sequence, mask in found.items() if mask is not None}


class Constrainer:
    """Computes masks on threads of its own, which need the interpreter for moments only: the matchers free it."""

    def __init__(self, vocab: int):
        self.seconds = 0.0  # spent on masks, by all threads together
        self._words = -(-vocab // 32)
        self._counting = threading.Lock()
        self._threads: ThreadPoolExecutor | None = None

    def start(self, plan: Plan) -> Masks:
        """Begin with the masks of a step's candidates."""
        return Masks({p.sequence: self._submit(p) for p in plan.slices if p.sequence.form and p.answers})

    def _submit(self, piece: Slice) -> Future[Mask | None]:
        if self._threads is None:  # most engines never meet a form
            count = min(8, max(1, (os.cpu_count() or 1) // 2))
            self._threads = ThreadPoolExecutor(count, thread_name_prefix="masks")
        assert piece.sequence.form is not None
        return self._threads.submit(self._masks, piece.sequence.form, piece.draft)

    def _masks(self, form: Constraint, draft: tuple[int, ...]) -> Mask | None:
        started = time.perf_counter()
        masks = form.masks(draft, self._words)
        with self._counting:
            self.seconds += time.perf_counter() - started
        return masks


def faults(sequences: Iterable[Sequence]) -> dict[Sequence, str]:
    """Those whose form failed, and why."""
    return {s: s.form.fault for s in sequences if s.form and s.form.fault}
