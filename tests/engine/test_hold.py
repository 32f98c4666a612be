"""A request that is held computes nothing, owns nothing, and goes on as if nothing had been."""

import random
from collections.abc import Callable, Sequence

import pytest
from tiny_decoder import naive, random_decoder, spec_of

from myna.engine.engine import Engine, Update, engine_for
from myna.engine.schedule import Scheduler
from myna.records import Sampling

MODEL = random_decoder(spec_of("plain"))
GREEDY = Sampling(temperature=0.0, max_tokens=12)


def engine(blocks: int = 12) -> Engine:
    return engine_for(MODEL, kv_tokens=16 * blocks, budget=16, max_running=4)


def prompts(rng: random.Random, count: int) -> list[list[int]]:
    return [[rng.randrange(211) for _ in range(rng.randrange(1, 40))] for _ in range(count)]


class Told:
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.finished = False

    def __call__(self, update: Update) -> bool:
        assert update.error is None
        assert update.choice is not None
        self.tokens.append(update.choice.id)
        self.finished = update.finish_reason is not None
        return False


@pytest.mark.parametrize("seed", range(6))
def test_held_and_resumed_at_any_moment_an_answer_is_what_it_would_have_been(seed: int) -> None:
    rng = random.Random(seed)
    served, asked = engine(), prompts(rng, 6)
    told = [Told() for _ in asked]
    ids = [served.submit(prompt, GREEDY, listen) for prompt, listen in zip(asked, told, strict=True)]
    held: set[int] = set()
    while not all(one.finished for one in told):
        for id in ids:
            if rng.random() < 0.2:
                (served.resume if id in held else served.hold)(id)
                held ^= {id}
        served.scheduler.check()
        before = {id: len(told[id].tokens) for id in held}
        if not served.idle:
            served.step()
        assert {id: len(told[id].tokens) for id in held} == before
    assert [one.tokens for one in told] == [naive(MODEL, prompt) for prompt in asked]
    served.scheduler.check()
    assert served.scheduler.blocks.free == served.scheduler.blocks.count


def test_who_is_held_owns_no_block_and_keeps_nobody_from_sleeping() -> None:
    served = engine()
    first = served.submit([1, 2, 3] * 10, GREEDY, Told())
    served.step()
    served.step()
    served.hold(first)
    served.hold(first)
    assert served.idle
    assert served.scheduler.blocks.free == served.scheduler.blocks.count
    assert served.stats()["sequences_held"] == 1


@pytest.mark.parametrize("n", [1, 3])
def test_who_is_held_can_be_cancelled_and_resumed_for_nothing(n: int) -> None:
    served = engine()
    request = served.submit([1, 2, 3] * 10, GREEDY.resolve(Sampling(n=n)), lambda update: False)
    served.step()
    served.hold(request)
    served.cancel(request)
    served.resume(request)
    served.scheduler.check()
    assert served.idle
    assert not served.scheduler.held
    assert not served._live


def test_who_is_held_hears_of_the_end_of_the_engine() -> None:
    served = engine()
    heard: list[str | None] = []
    request = served.submit([1, 2, 3], GREEDY, lambda update: heard.append(update.error) is not None)
    served.hold(request)
    served.fail([*served.scheduler.held], "over")
    assert heard == ["over"]
    assert not served._live


def test_statistics_count_steps_prompts_and_what_was_found() -> None:
    served = engine()
    prompt: Sequence[int] = [1, 2, 3, 4] * 10
    for _ in range(2):
        served.generate([prompt], GREEDY)
    stats = served.stats()
    assert (stats["prefix_queries"], stats["prefix_hits"], stats["preemptions"]) == (80, 32, 0)
    assert stats["steps"] >= 2 * 12
    assert 0 < stats["host_seconds"] < stats["step_seconds"]
    assert stats["kv_usage"] == 0


FULL: dict[str, tuple[int, int, Callable[[Scheduler], bool]]] = {
    "places": (4, 20, lambda s: len(s.running) == 4 and all(one.pending == 1 for one in s.running)),
    "rows": (1, 150, lambda s: len(s.running) == 1 and s.running[0].pending > 50),
    "blocks": (3, 60, lambda s: s.blocks.free == 0),
}


@pytest.mark.parametrize("what", FULL)
def test_the_less_urgent_give_way_at_once(what: str) -> None:
    """A batch that fills every place, the step with its prompt, or the pool, does not keep an urgent request waiting."""
    crowd, length, full = FULL[what]
    served, rng = engine(), random.Random(crowd)
    told = [Told() for _ in range(crowd + 1)]
    asked = [[rng.randrange(211) for _ in range(length)] for _ in range(crowd)] + [[5, 6, 7]]
    for prompt, listen in zip(asked[:-1], told, strict=False):
        served.submit(prompt, GREEDY, listen, priority=1)
    while not full(served.scheduler):
        assert not served.idle
        served.step()
    served.submit(asked[-1], GREEDY, told[-1])
    served.step()
    assert len(told[-1].tokens) == 1
    while not served.idle:
        served.step()
        served.scheduler.check()
    assert [one.tokens for one in told] == [naive(MODEL, prompt) for prompt in asked]
