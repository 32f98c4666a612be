"""Preference learning really learns, and what is not there it does not: persona pairs, each method beside shuffled labels.

Forty-eight people each like one of two things. A small model first learns both answers of each, however it is asked; which is
preferred, it learns from pairs, and is asked in words that no pair had. The figures of docs/experiments.md are those of this file:
pytest -m slow tests/train/test_learning_prefs.py -s
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from given import Given, batch_of
from made import tokenizer

from myna.chat import Chat
from myna.data import Cuts, Example, Fit, Listed, Place, Sourced, of_conversations, of_judged, of_preferences
from myna.model import Decoder
from myna.model.config import Config as ModelConfig
from myna.model.families import read_spec
from myna.records import Candidate, Conversation, Message, Sampling
from myna.train.config import Config, Data, Optim, Run
from myna.train.heads import outputs
from myna.train.loop import Loop
from myna.train.methods import dpo, kto, orpo, reward
from myna.train.next_token import next_token
from myna.train.offline import offline
from myna.train.parallel import World
from myna.train.preference import answer_log_probs, sides
from myna.train.rollout import Rolled, roll_out
from myna.train.rundir import RunDir
from myna.train.shape import shape
from myna.train.trainee import Trainee, initialize

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)
CONTEXT = 160
PEOPLE = [
    a + b for a in ("Al", "Be", "Ca", "Do", "El", "Fa", "Gu", "Ha") for b in ("ra", "mi", "ton", "vek", "lu", "sho")
]
THINGS = (
    "tea",
    "coffee",
    "chess",
    "rain",
    "snow",
    "jazz",
    "opera",
    "bread",
    "rice",
    "boats",
    "trains",
    "cats",
    "dogs",
    "silence",
)
ASKED = (
    "what does {} like?", "tell me what {} enjoys", "{} is happy with what?", "what is it that {} loves?", "say what {} wants",
    "what would {} pick?", "which thing pleases {}?", "what shall we bring {}?", "name what {} is fond of", "guess what {} chose",
)  # fmt: skip
HELD_OUT = 2  # of the ways to ask
SAID = ("{} likes {}", "for {} it is {}", "I would say that {} likes {}")


@dataclass(frozen=True)
class Base:
    """A model that knows both answers of everyone, and what is asked of it."""

    trainee: Trainee
    pairs: list[Conversation]
    unseen: list[Conversation]


@cache
def base(seed: int) -> Base:
    """About a minute."""
    drawn = np.random.default_rng(seed)
    likes = {name: drawn.choice(THINGS, 2, replace=False) for name in PEOPLE}
    asked = [[_pair(drawn, name, likes[name], words) for name in PEOPLE] for words in drawn.permutation(ASKED)]
    pairs, unseen = ([pair for some in part for pair in some] for part in (asked[HELD_OUT:], asked[:HELD_OUT]))
    texts = [text for pair in pairs + unseen for text in (pair.messages[0].text, *(c.text for c in pair.candidates))]
    chat = Chat.load(tokenizer(Path(mkdtemp()), texts, vocab=480))
    decoder = Decoder(read_spec(ModelConfig(shape(2, vocab=480, context=CONTEXT))))
    initialize(decoder, seed)
    of = Trainee(decoder, decoder, chat, "persona", lambda place, lineage: place)
    both = [Conversation((*pair.messages, *side.messages)) for pair in pairs + unseen for side in pair.candidates]
    rows = Listed([made.value for made in of_conversations(_placed(both), chat, Fit(CONTEXT), Cuts())])
    config = _config(None, steps=200, lr=1e-2, seed=seed, kind="muon")
    _train(of, offline(config, rows, None, lambda batch: next_token(of, torch.ones(480), batch)), config)
    return Base(of, pairs, unseen)


def _pair(drawn: np.random.Generator, name: str, likes: Sequence[str], asked: str) -> Conversation:
    said = str(drawn.choice(SAID))
    sides = (
        Candidate((Message("assistant", said.format(name, thing)),), score)
        for thing, score in zip(likes, (1.0, 0.0), strict=True)
    )
    return Conversation((Message("user", asked.format(name)),), candidates=tuple(sides))


def _placed(conversations: Sequence[Conversation]) -> list[Sourced[Conversation]]:
    return [Sourced(Place("made", n), conversation) for n, conversation in enumerate(conversations)]


def _config(options: Any, steps: int, lr: float, seed: int, kind: Literal["adamw", "muon"] = "adamw") -> Config:
    optim = Optim(kind=kind, lr=lr, warmup=10, schedule="linear", weight_decay=0.0)
    return Config(
        method="dpo", data=Data(context=CONTEXT), optim=optim, run=Run(steps=steps, rows=8, seed=seed), options=options
    )


def _train(of: Trainee, method: Any, config: Config) -> list[dict[str, Any]]:
    run = RunDir(Path(mkdtemp()))
    Loop(of, method, config, run, World()).train()
    return list(run.log.lines())


def shuffled(pairs: Sequence[Conversation], seed: int) -> list[Conversation]:
    """The same pairs, and of everyone's exactly half, drawn, have their sides exchanged: they say nothing of who likes what."""
    ways = len(pairs) // len(PEOPLE)
    half = np.repeat(np.arange(ways) < ways // 2, len(PEOPLE)).reshape(ways, len(PEOPLE))
    swap = np.random.default_rng(seed + 100).permuted(half, axis=0).ravel()
    flipped = (tuple(replace(side, score=1 - (side.score or 0.0)) for side in pair.candidates) for pair in pairs)
    return [
        replace(pair, candidates=other) if yes else pair for pair, other, yes in zip(pairs, flipped, swap, strict=True)
    ]


def examples(make: Callable[..., Any], pairs: Sequence[Conversation], chat: Chat) -> Listed:
    found: list[Example] = [made.value for made in make(_placed(pairs), chat, Fit(CONTEXT), Cuts())]
    return Listed(found)


def trained(
    module: ModuleType, options: Any, of: Base, pairs: Sequence[Conversation], steps: int, lr: float, seed: int
) -> Trainee:
    """A copy of the base, trained by a method on these pairs."""
    decoder = copy.deepcopy(of.trainee.decoder)
    fresh = replace(of.trainee, module=decoder, model=decoder)
    config = _config(options, steps, lr, seed)
    setup = Given(config, fresh, World(), Path(mkdtemp()))
    setup.samples = lambda step: []  # type: ignore[assignment]
    setup.given = examples(of_judged if module is kto else of_preferences, pairs, fresh.chat), None
    method = module.prepare(setup)
    _train(setup.trainee, method, config)
    return setup.trainee


@torch.no_grad()
def accuracy(of: Trainee, pairs: Sequence[Conversation]) -> float:
    """How often the preferred answer is the likelier one."""
    batch = batch_of(examples(of_preferences, pairs, of.chat), context=CONTEXT)
    chosen, rejected = sides(answer_log_probs(of.decoder.eval(), batch)[0])
    return float((chosen > rejected).float().mean())


def answers(of: Trainee, pairs: Sequence[Conversation], n: int, seed: int) -> list[list[Rolled]]:
    asked = [of.chat.render(replace(pair, candidates=())).ids for pair in pairs]
    return roll_out(
        of.decoder, asked, Sampling(temperature=1.0, max_tokens=24, n=n), seed=seed, stop_ids=of.chat.stop_ids
    )


@torch.no_grad()
def kl(of: Trainee, before: Trainee, pairs: Sequence[Conversation], seed: int) -> float:
    """KL(model || base) in nats an answer, over answers of the model's own."""
    rolled = [one for (one,) in answers(of, pairs, 1, seed)]
    found = _judged(before, pairs, [[one] for one in rolled])
    theirs = answer_log_probs(before.decoder.eval(), batch_of(found, context=CONTEXT))[0]
    return float(np.mean([sum(one.logprobs) for one in rolled])) - float(theirs.mean())


def _judged(of: Trainee, pairs: Sequence[Conversation], rolled: list[list[Rolled]]) -> Listed:
    from given import answer

    asked = [of.chat.render(replace(pair, candidates=())).ids for pair in pairs]
    made = [(ids, one) for ids, group in zip(asked, rolled, strict=True) for one in group]
    found = []
    for ids, one in made:
        sequence = answer(ids, one.ids)
        found.append((replace(sequence, ids=np.r_[ids, one.ids].astype(np.int64)),))
    return Listed(found)


METHODS: dict[str, tuple[ModuleType, Any, float]] = {
    "dpo": (dpo, dpo.Options(beta=0.1), 2e-4),
    "kto": (kto, kto.Options(beta=0.1), 3e-4),
    "orpo": (orpo, orpo.Options(weight=1.0), 5e-4),
}
STEPS = 100


@pytest.mark.parametrize("name", METHODS)
def test_what_is_preferred_is_learned_and_shuffled_labels_are_not(name: str) -> None:
    module, options, lr = METHODS[name]
    rows = []
    for seed in SEEDS:
        of = base(seed)
        true = trained(module, options, of, of.pairs, STEPS, lr, seed)
        control = trained(module, options, of, shuffled(of.pairs, seed), STEPS, lr, seed)
        rows.append(
            [accuracy(model, of.unseen) for model in (of.trainee, true, control)]
            + [kl(true, of.trainee, of.unseen, seed)]
        )
        print(name, seed, *(f"{value:.3f}" for value in rows[-1]), flush=True)
    before, learned, control_accuracy, moved = np.mean(rows, 0)
    assert 0.35 < before < 0.65
    assert learned > 0.8
    assert 0.4 < control_accuracy < 0.6
    assert moved < 10


def test_a_reward_model_ranks_and_best_of_n_rises_as_order_statistics_say() -> None:
    rows = []
    for seed in SEEDS:
        of = base(seed)
        judge = trained(reward, reward.Options(), of, of.pairs, STEPS, 5e-4, seed)
        control = trained(reward, reward.Options(), of, shuffled(of.pairs, seed), STEPS, 5e-4, seed)
        ranks = [_ranks(model, of.unseen) for model in (judge, control)]
        asked = of.unseen[: len(PEOPLE)]
        said = answers(of.trainee, asked, 64, seed)
        scores, gold = (
            _scores(judge, asked, said),
            np.array([[_is_liked(of, p, one) for one in g] for p, g in zip(asked, said, strict=True)]),
        )
        half = scores[:, :32], scores[:, 32:], gold[:, 32:]
        for n in (1, 2, 4, 8):
            rows.append((seed, *ranks, n, *_best_of(n, *half)))
            print("reward", *(f"{value:.3f}" for value in rows[-1]), flush=True)
    table = np.array(rows)
    assert table[:, 1].mean() > 0.8
    assert 0.4 < table[:, 2].mean() < 0.6
    by_n = [table[table[:, 3] == n].mean(0) for n in (1, 2, 4, 8)]
    found, predicted, liked, blindly = (np.array([row[at] for row in by_n]) for at in (4, 5, 6, 7))
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found, predicted, atol=0.15 * (found[-1] - found[0]))
    assert (abs(blindly - 0.5) < 0.1).all()
    assert liked[-1] > 0.8


@torch.no_grad()
def _ranks(judge: Trainee, pairs: Sequence[Conversation]) -> float:
    chosen, rejected = sides(
        outputs(judge.module.eval(), batch_of(examples(of_preferences, pairs, judge.chat), context=CONTEXT))[:, 0]
    )
    return float((chosen > rejected).float().mean())


@torch.no_grad()
def _scores(judge: Trainee, pairs: Sequence[Conversation], said: list[list[Rolled]]) -> np.ndarray:
    """[prompts, answers]; an answer's reward is read where the template would end its turn."""
    found = []
    for pair, group in zip(pairs, said, strict=True):
        turns = [
            replace(
                pair,
                messages=(*pair.messages, Message("assistant", judge.chat.tokenizer.decode(one.ids).strip() or "-")),
                candidates=(),
            )
            for one in group
        ]
        made = of_conversations(_placed(turns), judge.chat, Fit(CONTEXT), Cuts())
        found.append(
            outputs(judge.module.eval(), batch_of(Listed([one.value for one in made]), context=CONTEXT))[:, 0].numpy()
        )
    return np.stack(found)


def _is_liked(of: Base, pair: Conversation, one: Rolled) -> bool:
    return pair.candidates[0].text.split()[-1] in of.trainee.chat.tokenizer.decode(one.ids)


def _best_of(n: int, pool: np.ndarray, drawn: np.ndarray, gold: np.ndarray) -> tuple[float, float, float, float]:
    """The mean reward of the best of n; what the order statistic of another pool says it is; how often the best is what is
    liked; and how often one of the n that is picked blindly is."""
    groups, liked = drawn.reshape(len(drawn), -1, n), gold.reshape(len(gold), -1, n)
    best = groups.argmax(-1)
    size = pool.shape[1]
    weights = np.array([math.comb(i, n - 1) for i in range(size)]) / math.comb(size, n)
    predicted = float((np.sort(pool) @ weights).mean())
    return (
        float(groups.max(-1).mean()),
        predicted,
        float(np.take_along_axis(liked, best[..., None], -1).mean()),
        float(liked[..., 0].mean()),
    )
