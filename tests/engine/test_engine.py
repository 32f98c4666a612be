"""The laws that make an engine trustworthy, on models small enough to build in the test. The truth is a plain forward."""

import random
from dataclasses import replace

import pytest
import torch
from scripted_costs import Scripted
from tiny_decoder import VOCAB, naive, random_decoder, spec_of

from myna.engine.blocks import BLOCK
from myna.engine.engine import Engine, Update, engine_for
from myna.engine.request import Plan
from myna.engine.runner import PagedRunner, ReferenceRunner
from myna.engine.sample import Choice, derive_seed
from myna.model import Causal, Decoder
from myna.records import MynaError, RequestError, Sampling

GREEDY = Sampling(temperature=0.0, max_tokens=12)
WARM = Sampling(temperature=1.3, top_k=50, top_p=0.95, max_tokens=12)


@pytest.fixture(params=["plain", "windowed"])
def model(request: pytest.FixtureRequest) -> Decoder:
    return random_decoder(spec_of(request.param))


@pytest.fixture
def prompts() -> list[list[int]]:
    """Many lengths, around the block size too, some sharing a long prefix."""
    rng = random.Random(3)
    shared = [rng.randrange(VOCAB) for _ in range(37)]
    fresh = [[rng.randrange(VOCAB) for _ in range(n)] for n in (1, 2, 15, 16, 17, 31, 33, 70)]
    return fresh + [[*shared, k] for k in range(3)] + [shared[:32], shared]


def guessing(engine: Engine) -> Engine:
    """The engine, sure that rows cost nothing, so that it guesses wherever it can."""
    assert engine.scheduler.speculator is not None
    engine.scheduler.speculator.costs = Scripted()
    return engine


def answers(engine: Engine, prompts: list[list[int]], sampling: Sampling) -> list[list[int]]:
    result = [[choice.id for choice in answer[0]] for answer in engine.generate(prompts, sampling)]
    engine.scheduler.check()
    assert engine.scheduler.blocks.free == engine.scheduler.blocks.count
    assert not engine._live
    return result


FEATURES = {
    "batched": {"kv_tokens": 4000},
    "cache off": {"kv_tokens": 4000, "prefix_cache": False},
    "preempted": {"kv_tokens": 160, "max_running": 8},
    "preempted, cache off": {"kv_tokens": 160, "max_running": 8, "prefix_cache": False},
    "guessing": {"kv_tokens": 4000, "draft_rows": 16, "max_running": 4},
    "guessing, preempted": {"kv_tokens": 160, "max_running": 8, "draft_rows": 32},
    "guessing, reference": {
        "kv_tokens": 4000,
        "draft_rows": 16,
        "runner": ReferenceRunner,
    },
    "reference": {"kv_tokens": 4000, "runner": ReferenceRunner},
}


@pytest.mark.parametrize("feature", FEATURES)
def test_the_engine_says_what_the_model_says(feature: str, model: Decoder, prompts: list[list[int]]) -> None:
    engine = engine_for(model, **FEATURES[feature])  # type: ignore[arg-type]
    if engine.scheduler.speculator:
        guessing(engine)
    truth = [naive(model, prompt) for prompt in prompts]
    assert answers(engine, prompts, GREEDY) == truth
    assert answers(engine, prompts, GREEDY) == truth, "and again, with whatever the first run left in the cache"


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 200])
def test_chunked_prefill_is_whole_prefill_at_every_chunk_size(
    chunk: int, model: Decoder, prompts: list[list[int]]
) -> None:
    engine = engine_for(model, kv_tokens=4000, budget=chunk, max_running=min(chunk, 6))
    assert answers(engine, prompts, GREEDY) == [naive(model, prompt) for prompt in prompts]


def test_the_small_pool_really_preempts(model: Decoder, prompts: list[list[int]]) -> None:
    engine = engine_for(model, kv_tokens=160, max_running=8)
    sequences = []
    for prompt in prompts:
        id = engine.submit(prompt, GREEDY, lambda update: False)
        sequences += engine._live[id].sequences
    while not engine.idle:
        engine.step()
    assert sum(s.preemptions for s in sequences) > 0


@pytest.mark.parametrize("seed", range(6))
def test_mixed_arrivals_change_nothing(seed: int, model: Decoder, prompts: list[list[int]]) -> None:
    rng = random.Random(seed)
    engine = engine_for(model, kv_tokens=rng.choice([200, 4000]), budget=rng.choice([8, 40, 512]), max_running=8)
    said: dict[int, list[int]] = {}
    for k in rng.sample(range(len(prompts)), len(prompts)):
        engine.submit(prompts[k], GREEDY, collect(said.setdefault(k, [])))
        for _ in range(rng.randrange(4)):
            engine.step()
    while not engine.idle:
        engine.step()
    assert said == {k: naive(model, prompt) for k, prompt in enumerate(prompts)}


def collect(said: list[int]) -> object:
    def listen(update: Update) -> bool:
        assert update.choice is not None
        said.append(update.choice.id)
        return False

    return listen


@pytest.mark.parametrize("company", ["none", "before", "after", "preempting"])
def test_a_seeded_answer_does_not_depend_on_company_order_or_preemption(
    company: str, model: Decoder, prompts: list[list[int]]
) -> None:
    seeded = replace(WARM, seed=11, max_tokens=30)
    truth = answers(engine_for(model, kv_tokens=4000), [prompts[7]], seeded)[0]
    others = [] if company == "none" else prompts[:7]
    line = [prompts[7], *others] if company == "after" else [*others, prompts[7]]
    engine = engine_for(model, kv_tokens=200 if company == "preempting" else 4000, max_running=8)
    assert answers(engine, line, seeded)[line.index(prompts[7])] == truth


def test_guessing_changes_neither_seeded_nor_greedy_answers_and_is_right_sometimes(model: Decoder) -> None:
    """A prompt that repeats itself, and a temperature at which the model mostly does too."""
    prompt = [5, 6, 7, 8, 9, 10] * 6
    loops = Sampling(temperature=0.4, seed=1, max_tokens=80, logit_bias=tuple((t, 12.0) for t in range(5, 11)))
    for sampling in (loops, replace(loops, temperature=0.0)):
        plain, quick = engine_for(model, kv_tokens=4000), guessing(engine_for(model, kv_tokens=4000, draft_rows=8))
        steps = 0
        said: list[int] = []
        quick.submit(prompt, sampling, collect(said))
        while not quick.idle:
            quick.step()
            steps += 1
        assert [said] == answers(plain, [prompt], sampling)
        assert steps < 70, "no guess was ever right, so nothing was tested"


def test_guesses_stay_inside_the_models_reach(model: Decoder) -> None:
    prompt = ([5, 6, 7, 8, 9, 10] * 40)[:230]
    sampling = Sampling(temperature=0.0, max_tokens=26, logit_bias=tuple((t, 12.0) for t in range(5, 11)))
    plain, quick = engine_for(model, kv_tokens=4000), guessing(engine_for(model, kv_tokens=4000, draft_rows=32))
    assert answers(quick, [prompt], sampling) == answers(plain, [prompt], sampling)


def test_a_listener_that_heard_enough_hears_no_other_token_of_the_step(model: Decoder) -> None:
    engine = guessing(engine_for(model, kv_tokens=4000, draft_rows=16))
    sampling = Sampling(temperature=0.0, max_tokens=80, logit_bias=tuple((t, 12.0) for t in range(5, 11)))
    for enough in range(20, 40):
        heard: list[Update] = []
        engine.submit([5, 6, 7, 8, 9, 10] * 6, sampling, lambda u, h=heard, n=enough: bool(h.append(u)) or len(h) == n)
        while not engine.idle:
            engine.step()
        assert len(heard) == enough


def test_seeds_differ_and_no_seed_draws_a_new_one(model: Decoder, prompts: list[list[int]]) -> None:
    engine = engine_for(model, kv_tokens=4000)
    long = replace(WARM, max_tokens=40)
    drawn = [answers(engine, [prompts[5]], replace(long, seed=seed))[0] for seed in (1, 2, None, None)]
    assert len({tuple(d) for d in drawn}) == 4


def test_n_candidates_are_n_requests_with_derived_seeds(model: Decoder, prompts: list[list[int]]) -> None:
    engine = engine_for(model, kv_tokens=4000)
    together = engine.generate([prompts[6]], replace(WARM, seed=5, n=4))[0]
    apart = [engine.generate([prompts[6]], replace(WARM, seed=derive_seed(5, k)))[0][0] for k in range(4)]
    assert together == apart
    assert len({tuple(c.id for c in candidate) for candidate in together}) > 1


def test_logprobs_are_those_of_a_plain_forward_pass(model: Decoder, prompts: list[list[int]]) -> None:
    engine = engine_for(model, kv_tokens=4000, budget=16, max_running=8)
    sampling = replace(WARM, seed=2, logprobs=3, frequency_penalty=0.5, logit_bias=((3, 5.0),))
    for prompt, (choices,) in zip(prompts, engine.generate(prompts, sampling), strict=True):
        ids = torch.tensor([[*prompt, *(c.id for c in choices)]])
        with torch.inference_mode():
            logprobs = model.logits(model(ids, torch.arange(ids.shape[1])[None], Causal())[0]).log_softmax(-1)
        rows = logprobs[len(prompt) - 1 : -1]
        expected = [float(row[c.id]) for row, c in zip(rows, choices, strict=True)]
        assert [c.logprob for c in choices] == pytest.approx(expected, abs=1e-5)
        for row, c in zip(rows, choices, strict=True):
            values, tops = row.topk(3)
            assert [id for id, _ in c.top] == tops.tolist()
            assert [x for _, x in c.top] == pytest.approx(values.tolist(), abs=1e-5)


def test_what_is_cancelled_frees_its_blocks_at_once_and_is_not_heard_of_again(
    model: Decoder, prompts: list[list[int]]
) -> None:
    engine = engine_for(model, kv_tokens=4000, budget=16, max_running=4)
    heard: list[int] = []
    id = engine.submit(prompts[7], replace(GREEDY, max_tokens=100), collect(heard))
    said: list[int] = []
    engine.submit(prompts[3], GREEDY, collect(said))
    for _ in range(8):
        engine.step()
    engine.cancel(id)
    before = len(heard)
    engine.cancel(id)
    while not engine.idle:
        engine.step()
    assert len(heard) == before
    assert said == naive(model, prompts[3])
    assert engine.scheduler.blocks.free == engine.scheduler.blocks.count


def poison(model: Decoder, token: int) -> None:
    with torch.no_grad():
        model.embed.weight[token] = torch.nan


class UntiedHead(PagedRunner):
    """The poisoned row is in the tied head too; here the head keeps its health, so that only the input is bad."""

    def run(self, plan: Plan) -> torch.Tensor:
        logits = super().run(plan).clone()
        logits[:, 13] = torch.where(logits.nan_to_num().abs().sum(-1) > 0, -50.0, torch.nan)
        return logits


def test_nan_in_one_request_stays_in_that_request(model: Decoder, prompts: list[list[int]]) -> None:
    good = [[t for t in p if t != 13] or [1] for p in prompts]
    healthy = engine_for(model, kv_tokens=600, runner=UntiedHead, max_running=8)
    truth = answers(healthy, good, GREEDY)
    poison(model, 13)
    engine = engine_for(model, kv_tokens=600, runner=UntiedHead, max_running=8)
    errors: list[str] = []

    def hear(update: Update) -> bool:
        errors.append(update.error or "")
        return False

    for _ in range(3):  # again and again: its blocks go to healthy requests, NaN and all
        engine.submit([5, 13, *range(20, 60)], GREEDY, hear)
        assert answers(engine, good, GREEDY) == truth
    assert errors == ["the model's output is not a number"] * 3


def test_nan_in_a_prefill_stays_out_of_the_padding_of_decodes_beside_it(model: Decoder) -> None:
    """Two answers of different lengths are decoded in one padded group while the bad prompt writes NaN into block 0."""
    good = [[5] * 17, [7] * 33]
    truth = [naive(model, p, 8) for p in good]
    poison(model, 13)
    engine = engine_for(model, kv_tokens=18 * BLOCK, runner=UntiedHead, max_running=8, prefix_cache=False)
    answers(engine, [[1]], replace(GREEDY, max_tokens=1))  # block 0 is now the last that is handed out
    said: list[list[int]] = [[], []]
    for k, prompt in enumerate(good):
        engine.submit(prompt, replace(GREEDY, max_tokens=8), collect(said[k]))
    engine.step()
    (bad,) = engine._live[
        engine.submit([20] * 192 + [13], replace(GREEDY, max_tokens=1), lambda update: False)
    ].sequences
    engine._compute(engine.scheduler.plan())
    assert bad.finish_reason == "error"
    while not engine.idle:
        engine.step()
    assert said == truth


@pytest.mark.parametrize(("room", "words"), [
    ({"kv_tokens": 0}, "larger --kv-gb"), ({"kv_tokens": -5}, "larger --kv-gb"),
    ({"kv_tokens": 400, "max_running": 0}, "from 1 to 512"), ({"kv_tokens": 400, "max_running": 513}, "from 1 to 512"),
])  # fmt: skip
def test_an_engine_with_nothing_to_run_with_is_refused(room: dict[str, int], words: str, model: Decoder) -> None:
    with pytest.raises(MynaError, match=words):
        engine_for(model, **room)  # type: ignore[arg-type]


def test_a_step_that_fails_ends_its_requests_with_an_error_and_the_engine_lives(
    model: Decoder, prompts: list[list[int]]
) -> None:
    class Fails(PagedRunner):
        broken = True

        def run(self, plan: Plan) -> torch.Tensor:
            if self.broken:
                raise MemoryError("no room")
            return super().run(plan)

    engine = engine_for(model, kv_tokens=4000, runner=Fails)
    errors: list[str | None] = []
    engine.submit(prompts[0], GREEDY, lambda update: bool(errors.append(update.error)))
    engine.step()
    assert errors == ["MemoryError: no room"]
    engine.runner.broken = False  # type: ignore[attr-defined]
    assert answers(engine, prompts[:3], GREEDY) == [naive(model, p) for p in prompts[:3]]


def test_a_listener_that_raises_ends_only_its_own_candidate(model: Decoder, prompts: list[list[int]]) -> None:
    engine = engine_for(model, kv_tokens=4000)

    def broken(update: Update) -> bool:
        raise ValueError("a bug in somebody's callback")

    engine.submit(prompts[2], GREEDY, broken)
    assert answers(engine, prompts[:2], GREEDY) == [naive(model, p) for p in prompts[:2]]


def test_a_listener_may_end_its_candidate(model: Decoder, prompts: list[list[int]]) -> None:
    engine = engine_for(model, kv_tokens=4000)
    heard: list[Choice | None] = []
    engine.submit(prompts[2], GREEDY, lambda update: bool(heard.append(update.choice)) or len(heard) == 3)
    while not engine.idle:
        engine.step()
    assert len(heard) == 3
    assert engine.scheduler.blocks.free == engine.scheduler.blocks.count


@pytest.mark.parametrize(("ids", "sampling", "param", "words"), [
    ([1] * 256, GREEDY, "prompt", "256 tokens and this server holds 256"),
    ([1] * 250, replace(GREEDY, max_tokens=7), "max_tokens", "257 together"),
    ([], GREEDY, "prompt", "empty"),
    ([VOCAB], GREEDY, "prompt", "outside the vocabulary of 211"),
    ([1], replace(GREEDY, logit_bias=((VOCAB, 1.0),)), "logit_bias", "outside the vocabulary"),
    ([1], replace(GREEDY, top_p=1.5), "top_p", "top_p is 1.5; it must be from 0 to 1"),
])  # fmt: skip
def test_what_can_never_be_honoured_is_refused_before_it_is_queued(
    ids: list[int], sampling: Sampling, param: str, words: str, model: Decoder
) -> None:
    engine = engine_for(model, kv_tokens=4000)
    with pytest.raises(RequestError, match=words) as refusal:
        engine.submit(ids, sampling, lambda update: False)
    assert refusal.value.param == param
    assert engine.idle


def test_max_len_never_exceeds_what_the_pool_holds(model: Decoder) -> None:
    assert engine_for(model, kv_tokens=100).max_len == 112
    assert engine_for(model, kv_tokens=10_000).max_len == 256
