"""The engine's thread: whoever was promised an answer hears of its end, whatever fails."""

import threading
from collections.abc import Iterator

import pytest
import torch

from myna.engine.blocks import Blocks
from myna.engine.engine import Engine, Update
from myna.engine.loop import Loop
from myna.engine.request import Plan
from myna.engine.sample import choose
from myna.engine.schedule import Scheduler
from myna.records import Sampling, Unavailable

SHORT = Sampling(temperature=0.0, max_tokens=4)
WAIT = 60.0  # seconds after which a test that hangs has failed


class Zeros:
    """A runner whose every logit is 0. While `gate` is shut a step waits."""

    choose = staticmethod(choose)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()

    def run(self, plan: Plan) -> torch.Tensor:
        assert self.gate.wait(WAIT)
        return torch.zeros(len(plan.sampling), 8)


class Heard:
    """A listener that can be waited for."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.ended = threading.Event()

    def __call__(self, update: Update) -> bool:
        self.updates.append(update)
        if update.finish_reason or update.error:
            self.ended.set()
        return False


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(Engine(Zeros(), Scheduler(Blocks(8)), max_len=100, vocab=8))
    yield loop
    loop.close()


def test_an_order_that_fails_does_not_take_those_behind_it(loop: Loop) -> None:
    def fails() -> None:
        raise ValueError("a bug of ours")

    heard = Heard()
    loop.engine.runner.gate.clear()  # type: ignore[attr-defined]
    loop.submit([1], SHORT, Heard())
    loop.order(fails)  # both wait for the step in flight, so they are one batch
    loop.submit([2], SHORT, heard)
    loop.engine.runner.gate.set()  # type: ignore[attr-defined]
    assert heard.ended.wait(WAIT)
    assert heard.updates[-1].finish_reason == "length"


def test_closing_tells_who_runs_and_who_was_just_submitted(loop: Loop) -> None:
    running, queued = Heard(), Heard()
    loop.engine.runner.gate.clear()  # type: ignore[attr-defined]
    loop.submit([1], SHORT, running)
    loop.order(lambda: None)
    loop.submit([2], SHORT, queued)
    closing = threading.Thread(target=loop.close)
    closing.start()
    while loop.is_open:
        pass
    loop.engine.runner.gate.set()  # type: ignore[attr-defined]
    closing.join(WAIT)
    assert running.updates[-1].error == queued.updates[-1].error == "the engine was shut down"
    assert loop.engine.idle
    with pytest.raises(Unavailable):
        loop.submit([1], SHORT, Heard())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_told_to_those_who_wait_and_refuses_the_next(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies() -> None:
        raise SystemExit

    heard = Heard()
    loop.engine.runner.gate.clear()  # type: ignore[attr-defined]
    loop.submit([1], Sampling(max_tokens=90), heard)
    loop.order(dies)
    loop.engine.runner.gate.set()  # type: ignore[attr-defined]
    assert heard.ended.wait(WAIT)
    assert heard.updates[-1].error
    loop.close()
    with pytest.raises(Unavailable):
        loop.submit([1], SHORT, Heard())


def test_after_every_step_and_at_the_end_what_was_heard_may_be_handed_on(loop: Loop) -> None:
    """`after` is called when all listeners of a step were told, so that one call hands on the news of all of them."""
    first, second, seen = Heard(), Heard(), []
    loop.after = lambda: seen.append((len(first.updates), len(second.updates)))
    loop.engine.runner.gate.clear()  # type: ignore[attr-defined]
    loop.submit([1], SHORT, Heard())
    loop.submit([1], SHORT, first)  # both wait for the step in flight, so they are one batch
    loop.submit([2], SHORT, second)
    loop.engine.runner.gate.set()  # type: ignore[attr-defined]
    assert second.ended.wait(WAIT)
    late = Heard()
    loop.engine.runner.gate.clear()  # type: ignore[attr-defined]
    loop.submit([3], SHORT, late)
    loop.after = lambda: seen.append(late.updates[-1].error if late.updates else None)
    threading.Timer(0.05, loop.engine.runner.gate.set).start()  # type: ignore[attr-defined]
    loop.close()
    assert {(1, 1), (2, 2), (3, 3)} <= set(seen)
    assert seen[-1] == "the engine was shut down"
