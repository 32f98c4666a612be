"""The scheduler's laws, played with a pretend model: no torch, milliseconds."""

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_costs import Scripted

from myna.engine.blocks import BLOCK, Blocks, blocks_for, extend_digests
from myna.engine.lookup import Lookup
from myna.engine.request import Plan, Request, Sequence, Slice, resolve_max_tokens
from myna.engine.schedule import Scheduler
from myna.engine.speculate import Speculator
from myna.records import DEFAULTS, RequestError, Sampling

STOP = 0


def request(id: int, prompt: list[int], max_tokens: int = 8, n: int = 1, priority: int = 0, salt: str = "") -> Request:
    sampling = Sampling(max_tokens=max_tokens, n=n).resolve(DEFAULTS)
    return Request(id, tuple(prompt), sampling, frozenset({STOP}), priority, salt)


def guessing(rows: int) -> Speculator | None:
    """Prompt lookup where every row of a step up to `rows` is free."""
    return Speculator([Lookup()], rows=rows, vocab=2000, costs=Scripted()) if rows else None


class PretendModel:
    """Remembers which token was written to which slot, and answers a hash of what attention would read.

    So a block handed to two writers, a stale block, or a missing token changes the answer, as it would in a real model.
    """

    def __init__(self) -> None:
        self.slots: dict[tuple[int, int], int] = {}

    def run(self, plan: Plan) -> list[list[int]]:
        for piece in plan.slices:
            s = piece.sequence
            for i, token in zip(range(piece.start, piece.stop), piece.ids, strict=True):
                self.slots[s.blocks[i // BLOCK], i % BLOCK] = token
        return [self.follow(piece) for piece in plan.sampling]

    def follow(self, piece: Slice) -> list[int]:
        """What is sampled after the last known token, and after each right guess."""
        blocks, sampled = piece.sequence.blocks, []
        for last, guess in zip(range(piece.stop - len(piece.draft), piece.stop + 1), [*piece.draft, None], strict=True):
            sampled.append(self.answer([self.slots[blocks[i // BLOCK], i % BLOCK] for i in range(last)]))
            if sampled[-1] != guess:
                break
        return sampled

    @staticmethod
    def answer(context: list[int]) -> int:
        """Repeats itself often, so that guesses are right sometimes, and depends on every token, so that none may be lost."""
        whole = hash(tuple(context))
        return 1 + (hash(tuple(context[-2:])) % 3 if whole % 6 else whole % 1000)


def play(scheduler: Scheduler, model: PretendModel | None = None) -> None:
    """To the end."""
    walk(scheduler, model or PretendModel(), 10_000)
    assert scheduler.idle


def walk(scheduler: Scheduler, model: PretendModel, steps: int) -> None:
    for _ in range(steps):
        if scheduler.idle:
            return
        plan = scheduler.plan()
        assert plan.slices, "work is waiting and nothing runs"
        assert sum(p.stop - p.start for p in plan.slices) <= scheduler.budget
        assert all(p.sequence.generated + p.answers <= p.sequence.request.max_tokens for p in plan.slices)
        scheduler.check()
        scheduler.settle(plan, model.run(plan))
        scheduler.check()


def alone(prompt: list[int], max_tokens: int) -> list[int]:
    """The slow truth: what the pretend model says with nobody else there and nothing cached."""
    tokens = list(prompt)
    for _ in range(max_tokens):
        tokens.append(PretendModel.answer(tokens))
    return tokens


def test_a_prompt_is_computed_in_chunks_within_the_budget_and_then_decoded() -> None:
    scheduler = Scheduler(Blocks(10), budget=8, max_running=4)
    (sequence,) = scheduler.add(request(0, list(range(1, 21)), max_tokens=2))
    spans = []
    model = PretendModel()
    while not scheduler.idle:
        plan = scheduler.plan()
        spans += [(p.start, p.stop, bool(p.answers)) for p in plan.slices]
        scheduler.settle(plan, model.run(plan))
    assert spans == [(0, 8, False), (8, 16, False), (16, 20, True), (20, 21, True)]
    assert sequence.finish_reason == "length"


def test_decodes_go_before_prefill_in_every_step() -> None:
    scheduler = Scheduler(Blocks(40), budget=16, max_running=4)
    scheduler.add(request(0, [1] * 5, max_tokens=20))
    model = PretendModel()
    scheduler.settle(plan := scheduler.plan(), model.run(plan))
    scheduler.add(request(1, [2] * 100))
    plan = scheduler.plan()
    assert [(p.sequence.request.id, p.stop - p.start) for p in plan.slices] == [(0, 1), (1, 15)]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("prefix_cache", [True, False])
def test_answers_do_not_depend_on_company_chunks_cache_or_preemption(seed: int, prefix_cache: bool) -> None:
    rng = random.Random(seed)
    pool = rng.choice([6, 9, 14, 50])
    scheduler = Scheduler(
        Blocks(pool),
        budget=rng.choice([5, 16, 64]),
        max_running=rng.choice([2, 5]),
        prefix_cache=prefix_cache,
        speculator=guessing(rng.choice([0, 8, 20])),
    )
    shared = [rng.randrange(1, 1000) for _ in range(40)]
    sequences, model = [], PretendModel()
    for id in range(12):
        prompt = shared[: rng.randrange(40)] + [rng.randrange(1, 1000) for _ in range(rng.randrange(1, 20))]
        sequences += scheduler.add(
            request(id, prompt, rng.randrange(1, 30), n=rng.choice([1, 1, 3]), priority=rng.randrange(2))
        )
        for _ in range(rng.randrange(3)):
            scheduler.settle(plan := scheduler.plan(), model.run(plan))
            scheduler.check()
    play(scheduler, model)
    for s in sequences:
        assert s.tokens == alone(list(s.request.ids), s.request.max_tokens)
    assert scheduler.blocks.free == pool


def test_right_guesses_save_steps_and_wrong_ones_cost_none() -> None:
    """Guards the test above: guesses must really be made and be right now and then."""
    steps = {}
    for rows in (0, 8):
        scheduler, model = Scheduler(Blocks(50), speculator=guessing(rows)), PretendModel()
        (sequence,) = scheduler.add(request(0, [1, 2, 3] * 5, max_tokens=300))
        steps[rows] = 0
        while not scheduler.idle:
            scheduler.settle(plan := scheduler.plan(), model.run(plan))
            steps[rows] += 1
            assert sequence.finish_reason or sequence.pending == 1, "what a right guess computed is computed"
        assert sequence.tokens == alone([1, 2, 3] * 5, 300)
    assert steps[0] == 300
    assert steps[8] < 250


@pytest.mark.parametrize("length", [1, 12])  # the second: what was computed behind the stop token fills a block
def test_nothing_follows_a_stop_token_even_if_it_was_guessed_right(length: int) -> None:
    scheduler = Scheduler(Blocks(8), speculator=guessing(8))
    (sequence,) = scheduler.add(request(0, [5] * length, max_tokens=9))
    scheduler.settle(scheduler.plan(), [[7]])
    plan = Plan((Slice(sequence, length, length + 4, (8, STOP, 9)),))
    events = scheduler.settle(plan, [[8, STOP, 9, 4]])
    assert [(e.token, e.finish_reason) for e in events] == [(8, None), (STOP, "stop")]
    assert sequence.tokens == [5] * length + [7, 8, STOP]
    scheduler.check()


def test_guesses_never_preempt_and_stay_in_the_budget() -> None:
    scheduler, model = Scheduler(Blocks(4), budget=3, max_running=2, speculator=guessing(20)), PretendModel()
    sequences = [s for id in range(2) for s in scheduler.add(request(id, [1, 2, 3, 1, 2, 3], max_tokens=20))]
    play(scheduler, model)
    assert [s.preemptions for s in sequences] == [0, 0]


def test_blocks_that_wrong_guesses_took_are_given_back_before_anybody_is_preempted() -> None:
    """Three blocks; the younger's guesses reach into the last one, and then the elder needs it."""

    class Wrong(Lookup):
        def chances(self, sequence: Sequence, most: int) -> list[float]:
            return [1.0] * most if sequence is younger else []

        def draft(self, wants: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
            return {sequence: [1999] * count for sequence, count in wants.items()}

    speculator = Speculator([Wrong()], rows=40, vocab=2000, costs=Scripted())
    scheduler, model = Scheduler(Blocks(3), speculator=speculator), PretendModel()
    (elder,) = scheduler.add(request(0, [1] * 14, max_tokens=20))
    (younger,) = scheduler.add(request(1, [2] * 6, max_tokens=30))
    for _ in range(3):
        scheduler.settle(plan := scheduler.plan(), model.run(plan))
    assert (len(elder.blocks), len(younger.blocks)) == (1, 2)
    scheduler.settle(plan := scheduler.plan(), model.run(plan))
    assert (len(elder.blocks), len(younger.blocks)) == (2, 1)
    assert younger.preemptions == 0
    play(scheduler, model)
    assert younger.tokens == alone([2] * 6, 30)


def test_steps_that_prefill_do_not_guess_and_teach_nothing_of_costs() -> None:
    class Listening(Scripted):
        def learn(self, rows: int, seconds: float) -> None:
            heard.append(rows)

    heard: list[int] = []
    speculator = Speculator([Lookup()], rows=8, vocab=2000, costs=Listening())
    scheduler = Scheduler(Blocks(50), budget=16, max_running=4, speculator=speculator)
    scheduler.add(request(0, [1, 2, 3] * 5, max_tokens=40))
    scheduler.settle(plan := scheduler.plan(), [[1]])
    speculator.took(plan, 1.0)
    scheduler.add(request(1, [9] * 40, max_tokens=4))
    for _ in range(3):  # prefill in chunks of 15
        plan = scheduler.plan()
        assert [len(piece.draft) for piece in plan.slices] == [0, 0]
        scheduler.settle(plan, [[1 + len(plan.slices[0].sequence.tokens) % 3]] * len(plan.sampling))
        speculator.took(plan, 1.0)
    assert heard == []
    plan = scheduler.plan()
    speculator.took(plan, 1.0)
    assert sum(len(piece.draft) for piece in plan.slices) > 0
    assert heard == [2 + sum(len(piece.draft) for piece in plan.slices)]


def test_who_is_cancelled_while_guesses_are_verified_leaves_nothing_behind() -> None:
    lookup = Lookup()
    speculator = Speculator([lookup], rows=8, vocab=2000, costs=Scripted())
    scheduler = Scheduler(Blocks(50), speculator=speculator)
    (sequence,) = scheduler.add(request(0, [1, 2, 3] * 5, max_tokens=40))
    scheduler.settle(scheduler.plan(), [[1]])
    plan = scheduler.plan()
    assert plan.slices[0].draft
    scheduler.finish(sequence, "cancelled")
    assert scheduler.settle(plan, [[2]]) == []
    assert not speculator._asked
    assert not lookup._readings


def test_a_small_pool_does_preempt() -> None:
    """Guards the test above: it must not pass because nothing was ever preempted."""
    scheduler = Scheduler(Blocks(6), budget=64, max_running=4)
    sequences = [s for id in range(4) for s in scheduler.add(request(id, [id + 1] * 20, max_tokens=40))]
    play(scheduler)
    assert sum(s.preemptions for s in sequences) > 0
    assert [s.cached for s in sequences] == [0] * 4, "what was found again is their own"


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "step", "cancel", "cancel mid-step"]), st.integers(0, 10**6)), max_size=80
    )
)
@settings(max_examples=200)
def test_after_any_trace_with_cancels_every_block_is_free_or_owned_and_nothing_leaks(
    actions: list[tuple[str, int]],
) -> None:
    scheduler = Scheduler(Blocks(12), budget=20, max_running=4, speculator=guessing(9))
    model, sequences = PretendModel(), []
    for action, x in actions:
        if action == "add":
            sequences += scheduler.add(
                request(len(sequences), [1 + x % 7] * (1 + x % 90), 1 + x % 40, n=1 + x % 3, priority=x % 2)
            )
        elif action == "cancel" and sequences:
            scheduler.finish(sequences[x % len(sequences)], "cancelled")
        else:
            plan = scheduler.plan()
            answers = model.run(plan)
            if action == "cancel mid-step" and sequences:
                scheduler.finish(sequences[x % len(sequences)], "cancelled")
            scheduler.settle(plan, answers)
        scheduler.check()
    for sequence in sequences:
        scheduler.finish(sequence, "cancelled")
    scheduler.check()
    assert scheduler.idle
    assert scheduler.blocks.free == 12
    assert not scheduler._leaders


def test_cancelling_in_mid_prefill_frees_everything_at_once() -> None:
    scheduler = Scheduler(Blocks(10), budget=16, max_running=2)
    (sequence,) = scheduler.add(request(0, [3] * 100))
    scheduler.settle(scheduler.plan(), [])
    assert scheduler.blocks.free < 10
    scheduler.finish(sequence, "cancelled")
    assert scheduler.blocks.free == 10


def test_a_cached_prefix_is_not_computed_again_but_its_last_token_is() -> None:
    scheduler, model = Scheduler(Blocks(20), budget=64), PretendModel()
    prompt = list(range(1, 1 + 2 * BLOCK))
    scheduler.add(request(0, prompt, max_tokens=1))
    play(scheduler, model)
    (again,) = scheduler.add(request(1, prompt, max_tokens=1))
    plan = scheduler.plan()
    assert [(p.start, p.stop) for p in plan.slices] == [(BLOCK, 2 * BLOCK)]
    assert again.cached == BLOCK


def test_blocks_that_are_found_are_not_counted_as_free_too() -> None:
    """Four blocks: two hold the beginning of what waits, two are somebody's; it needs two more."""
    scheduler, model = Scheduler(Blocks(4), budget=64), PretendModel()
    prompt = list(range(1, 34))
    scheduler.add(request(0, prompt, max_tokens=1))
    play(scheduler, model)
    scheduler.add(request(1, [900] * 17, max_tokens=15))
    scheduler.settle(plan := scheduler.plan(), model.run(plan))
    (waits,) = scheduler.add(request(2, [*prompt, *[901] * 20], max_tokens=2))
    assert (scheduler.blocks.free, len(scheduler.plan().slices)) == (2, 1)
    play(scheduler, model)
    assert (waits.cached, waits.preemptions) == (32, 0)
    assert waits.tokens == alone(list(waits.request.ids), 2)


def test_salt_keeps_prefixes_apart() -> None:
    scheduler, model = Scheduler(Blocks(20), budget=64), PretendModel()
    prompt = list(range(1, 60))
    scheduler.add(request(0, prompt, salt="alice"))
    play(scheduler, model)
    (other,) = scheduler.add(request(1, prompt, salt="bob"))
    (same,) = scheduler.add(request(2, prompt, salt="alice"))
    play(scheduler, model)
    assert other.cached == 0
    assert same.cached == 3 * BLOCK


def test_candidates_of_one_request_share_the_prompt_they_have_in_common() -> None:
    scheduler = Scheduler(Blocks(50), budget=64)
    sequences = scheduler.add(request(0, list(range(1, 50)), n=4))
    play(scheduler)
    assert [s.cached for s in sequences] == [0, 48, 48, 48]


def test_first_come_first_served_within_a_priority_and_lower_priority_first() -> None:
    scheduler = Scheduler(Blocks(50), budget=64, max_running=1)
    for id, priority in [(0, 1), (1, 1), (2, 0)]:
        scheduler.add(request(id, [1, 2, 3], priority=priority))
    order, model = [], PretendModel()
    while not scheduler.idle:
        plan = scheduler.plan()
        order += [e.sequence.request.id for e in scheduler.settle(plan, model.run(plan)) if e.finish_reason]
    assert order == [2, 0, 1]


def test_one_request_of_many_candidates_keeps_nobody_waiting_for_all_of_them() -> None:
    """Its candidates but the first give way to who comes later, and still all of them end."""
    scheduler = Scheduler(Blocks(200), budget=64, max_running=8)
    many = scheduler.add(request(0, [1, 2, 3], max_tokens=40, n=30))
    model = PretendModel()
    walk(scheduler, model, 5)
    assert len(scheduler.running) == 8
    (one,) = scheduler.add(request(1, [4, 5, 6], max_tokens=3))
    walk(scheduler, model, 4)
    assert one.finish_reason
    assert sum(sequence.finish_reason is not None for sequence in many) < 8
    play(scheduler, model)
    assert all(sequence.finish_reason for sequence in many)


def test_two_requests_of_many_candidates_take_turns() -> None:
    scheduler = Scheduler(Blocks(200), budget=64, max_running=5)
    for id in (0, 1):
        scheduler.add(request(id, [1 + id, 2, 3], n=6))
    model = PretendModel()
    walk(scheduler, model, 3)
    assert sorted((s.request.id, s.candidate) for s in scheduler.running) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    scheduler, model = Scheduler(Blocks(8), budget=64, max_running=4), PretendModel()
    scheduler.add(request(0, [1] * 60, max_tokens=20))
    scheduler.settle(plan := scheduler.plan(), model.run(plan))
    (large,) = scheduler.add(request(1, [2] * 100, max_tokens=4))
    for id in range(2, 60):
        scheduler.add(request(id, [id] * 5, max_tokens=2))
        scheduler.settle(plan := scheduler.plan(), model.run(plan))
    assert large.finish_reason == "length"


def test_a_stop_token_ends_an_answer_and_ignore_eos_does_not() -> None:
    scheduler = Scheduler(Blocks(8))
    (sequence,) = scheduler.add(request(0, [5], max_tokens=4))
    events = scheduler.settle(scheduler.plan(), [[STOP]])
    assert [(e.token, e.finish_reason) for e in events] == [(STOP, "stop")]
    assert sequence.tokens == [5, STOP]
    stubborn = Request(1, (5,), Sampling(max_tokens=4, ignore_eos=True).resolve(DEFAULTS), frozenset({STOP}))
    scheduler.add(stubborn)
    assert scheduler.settle(scheduler.plan(), [[STOP]])[0].finish_reason is None


@pytest.mark.parametrize(("prompt", "asked", "words"), [
    (0, 5, "empty"), (100, 1, "100 tokens and this server holds 100"), (90, 11, "101 together"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_numbers(prompt: int, asked: int, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        resolve_max_tokens(prompt, asked, 100)


def test_without_max_tokens_the_answer_may_fill_what_is_left() -> None:
    assert resolve_max_tokens(90, None, 100) == 10


@given(st.lists(st.integers(0, 5), max_size=70), st.integers(0, 70))
def test_digests_name_the_whole_chain_and_grow_with_it(tokens: list[int], cut: int) -> None:
    whole: list[bytes] = []
    grown: list[bytes] = []
    extend_digests(whole, tokens, b"s")
    extend_digests(grown, tokens[:cut], b"s")
    extend_digests(grown, tokens, b"s")
    assert whole == grown
    assert len(whole) == len(tokens) // BLOCK
    if len(whole) > 1:
        other: list[bytes] = []
        extend_digests(other, [9, *tokens[1:]], b"s")
        assert set(whole).isdisjoint(other)


def test_the_least_recently_freed_block_is_evicted_first_and_tails_before_heads() -> None:
    pool = Blocks(4)
    first, second = pool.take(2), pool.take(2)
    for block, digest in zip([*first, *second], [b"a", b"b", b"c", b"d"], strict=True):
        pool.remember(block, digest)
    pool.release(first)
    pool.release(second)
    pool.take(1)
    assert pool.find([b"a"]) == first[:1], "the head of the first chain outlives its tail"
    assert pool.find([b"a", b"b"]) == first[:1]
    assert pool.find([b"c", b"d"]) == second
    pool.check()


def test_blocks_that_hold_nothing_go_before_those_that_can_be_found_and_the_last_freed_first() -> None:
    blocks = Blocks(5)
    kept, empty = blocks.take(2), blocks.take(2)
    for block in kept:
        blocks.remember(block, bytes([block]))
    blocks.release(kept)
    blocks.release(empty)
    assert blocks.take(3) == [*empty, 4]
    assert blocks.find([bytes([block]) for block in kept]) == kept
    assert blocks.take(2) == [*reversed(kept)]
    blocks.check()


def test_blocks_for_rounds_up() -> None:
    assert [blocks_for(n) for n in (0, 1, BLOCK, BLOCK + 1)] == [0, 1, 1, 2]


def test_sequences_are_compared_by_identity() -> None:
    a, b = (Sequence(request(0, [1]), 0, [1]) for _ in range(2))
    assert a != b
    assert len({a, b}) == 2
