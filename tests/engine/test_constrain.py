"""Forms in the engine: what is drawn is what a plain forward pass under the same mask draws, in whatever company."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from test_engine import FEATURES, guessing
from tiny_decoder import VOCAB, random_decoder, spec_of
from toy_form import ToyForm, toy

from myna.engine.constraint import Constraint, Matcher
from myna.engine.engine import Engine, Update, engine_for
from myna.engine.masks import Constrainer
from myna.engine.request import Plan, Request, Sequence, Slice
from myna.engine.sample import Choice, allow, derive_seed, draw
from myna.model import Causal, Decoder
from myna.records import DEFAULTS, Sampling

STOP = 7
WARM = Sampling(temperature=2.0, seed=5, max_tokens=20)
GREEDY = Sampling(temperature=0.0, max_tokens=20)
Form = Callable[[], Matcher] | None


@pytest.fixture(scope="module")
def model() -> Decoder:
    return random_decoder(spec_of("plain"))


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = random.Random(3)
    return [[rng.randrange(VOCAB) for _ in range(n)] for n in (1, 5, 16, 17, 33)]


def serve(engine: Engine, prompts: list[list[int]], sampling: Sampling, forms: list[Form]) -> list[list[Update]]:
    """Every prompt's updates, in the order of prompts and then of candidates."""
    n = sampling.n or 1
    heard: list[list[Update]] = [[] for _ in range(len(prompts) * n)]

    def listener(first: int) -> Callable[[Update], bool]:
        return lambda update: heard[first + update.candidate].append(update) or False  # type: ignore[func-returns-value]

    for i, (ids, form) in enumerate(zip(prompts, forms, strict=True)):
        engine.submit(ids, sampling, listener(i * n), stop_ids=frozenset([STOP]), form=form)
    while not engine.idle:
        engine.step()
    engine.scheduler.check()
    assert engine.scheduler.blocks.free == engine.scheduler.blocks.count
    return heard


def said(updates: list[Update]) -> list[int]:
    return [update.choice.id for update in updates if update.choice]


@torch.inference_mode()
def truth(model: Decoder, prompt: list[int], sampling: Sampling, form: ToyForm, candidate: int = 0) -> list[int]:
    """Every token from a plain forward pass over everything and a draw from what the form allows."""
    from myna.engine.request import Request, Sequence

    sequence = Sequence(Request(0, tuple(prompt), sampling.resolve(DEFAULTS)), candidate, list(prompt))
    assert sampling.max_tokens
    while sequence.generated < sampling.max_tokens:
        hidden = model(torch.tensor([sequence.tokens]), torch.arange(len(sequence.tokens))[None], Causal())
        mask = torch.zeros(-(-VOCAB // 32), dtype=torch.int32).numpy().view("uint32")
        form.fill(mask)
        token = draw(allow(model.logits(hidden[0, -1]), mask), sequence, sequence.tokens)
        sequence.tokens.append(token)
        if token == STOP or not form.advance(token) or form.complete:
            break
    return sequence.tokens[len(prompt) :]


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
def test_what_is_drawn_is_what_a_plain_forward_pass_draws_under_the_form(
    model: Decoder, prompts: list[list[int]], feature: str, sampling: Sampling
) -> None:
    engine = engine_for(model, **FEATURES[feature])  # type: ignore[arg-type]
    if "guessing" in feature:
        engine = guessing(engine)
    heard = serve(engine, prompts, sampling, [toy(VOCAB, STOP)] * len(prompts))
    expected = [truth(model, prompt, sampling, ToyForm(VOCAB, STOP)) for prompt in prompts]
    assert [said(updates) for updates in heard] == expected


def test_company_without_a_form_is_not_touched(model: Decoder, prompts: list[list[int]]) -> None:
    alone = serve(engine_for(model, kv_tokens=4000), prompts, WARM, [None] * len(prompts))
    forms: list[Form] = [toy(VOCAB, STOP) if i % 2 else None for i in range(len(prompts))]
    mixed = serve(engine_for(model, kv_tokens=4000), prompts, WARM, forms)
    for i, (one, other) in enumerate(zip(alone, mixed, strict=True)):
        assert (said(one) == said(other)) == (i % 2 == 0)


def test_candidates_are_requests_with_derived_seeds(model: Decoder, prompts: list[list[int]]) -> None:
    heard = serve(engine_for(model, kv_tokens=4000), prompts[:1], replace(WARM, n=3), [toy(VOCAB, STOP)])
    for k, updates in enumerate(heard):
        own = replace(WARM, seed=derive_seed(5, k))
        assert said(updates) == said(serve(engine_for(model, kv_tokens=4000), prompts[:1], own, [toy(VOCAB, STOP)])[0])
    assert len({tuple(said(updates)) for updates in heard}) > 1


@pytest.mark.parametrize("feature", ["batched", "guessing", "preempted"])
def test_a_complete_form_ends_the_answer_with_stop(model: Decoder, prompts: list[list[int]], feature: str) -> None:
    engine = engine_for(model, **FEATURES[feature])  # type: ignore[arg-type]
    if feature == "guessing":
        engine = guessing(engine)
    for last in (1, 2, 5, 20):
        heard = serve(engine, prompts, GREEDY, [toy(VOCAB, last=last)] * len(prompts))
        assert [len(said(updates)) for updates in heard] == [last] * len(prompts)
        assert [updates[-1].finish_reason for updates in heard] == ["stop"] * len(prompts)


def test_logprobs_are_the_models_own(model: Decoder, prompts: list[list[int]]) -> None:
    (updates,) = serve(engine_for(model, kv_tokens=4000), prompts[:1], replace(WARM, logprobs=3), [toy(VOCAB, STOP)])
    ids = prompts[0] + said(updates)
    with torch.inference_mode():
        hidden = model(torch.tensor([ids]), torch.arange(len(ids))[None], Causal())
        exact = model.logits(hidden[0]).log_softmax(-1)
    for at, update in enumerate(updates, len(prompts[0]) - 1):
        assert isinstance(update.choice, Choice)
        assert update.choice.logprob == pytest.approx(float(exact[at, update.choice.id]), abs=1e-4)
        assert [id for id, _ in update.choice.top] == exact[at].topk(3).indices.tolist()


class Failing(ToyForm):
    """Fails at one of the things it is asked, on the third token."""

    def __init__(self, where: str):
        super().__init__(VOCAB)
        self.where = where

    def fill(self, mask: object) -> None:
        if self.where == "fill" and len(self.taken) == 2:
            raise RuntimeError("boom")
        if self.where == "nothing" and len(self.taken) == 2:
            return
        super().fill(mask)  # type: ignore[arg-type]

    def advance(self, token: int) -> bool:
        if self.where == "advance" and len(self.taken) == 2:
            raise RuntimeError("boom")
        return not (self.where == "refuse" and len(self.taken) == 2) and super().advance(token)


@pytest.mark.parametrize("where", ["make", "fill", "nothing", "advance", "refuse"])
def test_a_form_that_fails_ends_its_own_answer_and_no_other(
    model: Decoder, prompts: list[list[int]], where: str
) -> None:
    def make() -> Matcher:
        if where == "make":
            raise RuntimeError("boom")
        return Failing(where)

    engine = engine_for(model, kv_tokens=4000)
    good: list[Form] = [toy(VOCAB, STOP)] * len(prompts)
    whole = serve(engine, prompts, WARM, good)
    broken = serve(engine, prompts, WARM, [make, *good[1:]])
    assert [said(updates) for updates in broken[1:]] == [said(updates) for updates in whole[1:]]
    assert broken[0][-1].error
    assert "form" in broken[0][-1].error
    assert len(said(broken[0])) == {"make": 0, "fill": 2, "nothing": 2, "advance": 3, "refuse": 3}[where]


def test_guesses_that_the_form_forbids_are_not_gone_on_from() -> None:
    """Masks reach to the guess that is forbidden, whose own row has one; the matcher stands where it stood before."""
    form = ToyForm(VOCAB, STOP)
    constraint = Constraint(lambda: form)
    masks = constraint.masks([0, 3, 1, 3], 7)
    assert masks is not None
    assert len(masks) == 3
    assert form.taken == []
    assert not constraint.take(3)
    assert constraint.take(0) is False
    assert form.taken == [3, 0]


def test_every_guess_that_the_form_allows_has_a_mask_after_it() -> None:
    """And what a draft model asks for, guess by guess, is the last of them."""
    form = ToyForm(VOCAB, STOP)
    constraint = Constraint(lambda: form)
    masks = constraint.masks([0, 3, 3], 7)
    assert masks is not None
    assert len(masks) == 4
    for count in range(4):
        after = constraint.mask_after([0, 3, 3][:count], 7)
        assert after is not None
        assert (after == masks[count]).all()
    assert constraint.mask_after([0, 1], 7) is None, "the form forbids it"
    assert form.taken == []
    assert Constraint(toy(VOCAB, last=2)).mask_after([0, 3], 7) is None, "it completes the form"


def test_a_step_that_only_prefills_has_no_masks() -> None:
    sequence = Sequence(Request(0, (1, 2, 3), WARM.resolve(DEFAULTS)), 0, [1, 2, 3], form=Constraint(toy(VOCAB)))
    constrainer = Constrainer(VOCAB)
    assert constrainer.start(Plan((Slice(sequence, 0, 2),))).wait() == {}
    assert [*constrainer.start(Plan((Slice(sequence, 2, 3),))).wait()] == [sequence]


def test_what_follows_a_guess_that_completes_the_form_is_not_looked_at() -> None:
    constraint = Constraint(toy(VOCAB, last=2))
    masks = constraint.masks([0, 3, 3], 7)
    assert masks is not None
    assert len(masks) == 2
    assert not constraint.take(0)
    assert constraint.take(3)
