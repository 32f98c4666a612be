"""Embeddings by contrast: the formula by hand, micro-batches that change nothing, and a whole run whose model embeds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from given import Given, batch_of
from made import BAD, GOOD, THINGS, tokenizer, told, write_rows
from tiny import config, trainee

from encoder_cases import VOCAB, encoder_oracle
from myna.data import Listed
from myna.data.texts import whole_text
from myna.provider.local_embed import load_embedder
from myna.records import DataError
from myna.train.config import Config, Model, Run
from myna.train.loop import Loop
from myna.train.methods import contrastive
from myna.train.methods.contrastive import Contrast, Options
from myna.train.parallel import World
from myna.train.run import begin
from myna.train.rundir import RunDir


def examples(count: int, seed: int = 0, negatives: int = 1) -> Listed:
    """A query of threes finds a text of threes; its wrong answer counts by fives. Texts 0 and 1 are found by two queries."""
    drawn, made = np.random.default_rng(seed), []
    for n in range(count):
        start = n % 2 if n < 4 else n
        texts = [start + step * np.arange(int(drawn.integers(2, 5))) for step in (3, *[5] * negatives)]
        found = 3 * (n % 2) if n < 4 else texts[0]
        sides = [(start + 1 + np.arange(3), 0, 100 + n), (np.r_[found, start], 1, start), (texts[1], 2, 200 + n)]
        made.append(
            tuple(
                whole_text(np.array(ids) % 37, text=number, side=side) for ids, side, number in sides[: 2 + negatives]
            )
        )
    return Listed(made)


def contrast(pooling: str = "mean", micro: int = 0, seed: int = 0, **options: Any) -> Contrast:
    told = config(run=Run(steps=9, rows=4, micro=micro))
    return Contrast(trainee(seed), told, Options(**options), pooling)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_the_loss_is_the_formula(pooling: str, temperature: float) -> None:
    """sentence-transformers' MultipleNegativesRankingLoss: cross-entropy of scaled cosines against all positives and
    negatives, the positives of the same text left out."""
    of, made = contrast(pooling, temperature=temperature), examples(7)
    rows = of.renew([[made[i] for i in some] for some in ([0], [1], [2], [3], [4], [5], [6])])
    found = of.loss(of._batch(rows))
    vectors = []
    for sequence in (sequence for i in range(7) for sequence in made[i]):
        alone = batch_of(Listed([(sequence,)]))
        hidden = of.trainee.decoder(alone.ids, alone.positions, alone.memory)[0, : len(sequence)]
        vectors.append({"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling])
    every = torch.nn.functional.normalize(torch.stack(vectors), dim=-1).view(7, 3, -1)
    queries, documents = every[:, 0], every[:, 1:].flatten(0, 1)
    scores = queries @ documents.T / temperature
    for i, j in ((0, 2), (2, 0), (1, 3), (3, 1)):
        scores[i, 2 * j] = -torch.inf
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(0, 14, 2), reduction="sum")
    assert found.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert found.units == 7
    best = (scores.argmax(1) == torch.arange(0, 14, 2)).sum()
    assert int(found.stats["accuracy"][0]) == int(best)


def test_micro_batches_change_neither_loss_nor_gradient() -> None:
    found = []
    for micro in (0, 1, 2):
        of, made = contrast(micro=micro), examples(7)
        rows = of.renew([[made[0], made[1]], [made[2]], [made[3], made[4]], [made[5]], [made[6]]])
        size = micro or len(rows)
        total, units = 0.0, 0.0
        for at in range(0, len(rows), size):
            outcome = of.loss(of._batch(rows[at : at + size]))
            outcome.loss.backward()
            total, units = total + outcome.loss.item(), units + outcome.units
        found.append(
            (total, units, {n: p.grad.clone() for n, p in of.trainee.decoder.named_parameters() if p.grad is not None})
        )
    for total, units, gradients in found[1:]:
        assert total == pytest.approx(found[0][0], rel=1e-5)
        assert units == 7
        assert gradients.keys() == found[0][2].keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, found[0][2][name], atol=1e-4, rtol=1e-3)


def test_a_run_learns_to_find(tmp_path: Path) -> None:
    told = config(run=Run(steps=30, rows=4, evaluate=30), options=Options())
    setup = Given(
        Config(method="contrastive", data=told.data, optim=told.optim, run=told.run, options=Options()),
        trainee(),
        World(),
        tmp_path,
    )
    setup.matched = lambda prefixes: (examples(40), examples(12, seed=1))  # type: ignore[method-assign]
    method = contrastive.prepare(setup)
    of = Loop(setup.trainee, method, setup.config, RunDir(tmp_path), World())
    before = of._step()["loss"]
    assert of.train()
    seen = [line["eval"] for line in of.run.log.lines() if "eval" in line][-1]
    assert seen["loss"] < 0.7 * before
    assert seen["reciprocal_rank"] >= seen["accuracy"] > 0.3


@pytest.mark.parametrize("kind", ["bert", "decoder"])
def test_a_run_from_rows_to_a_model_that_embeds(tmp_path: Path, kind: str) -> None:
    base = tmp_path / "base"
    if kind == "bert":
        encoder_oracle("bert", base)
    tokenizer(base, vocab=VOCAB)
    model = Model(start=str(base)) if kind == "bert" else Model(depth=1, tokenizer=str(base))
    rows = [{"query": f"{b}, {a}", "positive": f"{b} is {a}", "negative": f"{b} is {c}"}
            for b in THINGS for a, c in zip(GOOD, BAD, strict=True)]  # fmt: skip
    options = Options(query="q: ", document="t: ")
    ended = begin(
        told("contrastive", options, tmp_path, model, write_rows(tmp_path / "a.jsonl", rows), context=48, lr=1e-3)
    )
    assert ended.model is not None
    losses = [line["loss"] for line in RunDir(tmp_path / "run").log.lines() if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    embedder = load_embedder(str(ended.model))
    assert embedder.pooling.how == ("mean" if kind == "bert" else "last")  # type: ignore[union-attr]
    assert embedder.pooling.prompts == {"query": "q: ", "document": "t: "}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "a query is one message"),
        ({"query": "a", "positive": "b " * 200}, "tokens, and the context has room"),
        ({"query": "a", "positive": "b " * 25, "negative": "c " * 25}, "the query and its texts have .* tokens"),
    ],
)
def test_rows_that_cannot_be_matched_are_refused_by_place(tmp_path: Path, row: Any, says: str) -> None:
    base = tokenizer(tmp_path / "base")
    train = write_rows(tmp_path / "a.jsonl", [row])
    with pytest.raises(DataError, match=rf"a\.jsonl:1: .*{says}"):
        begin(told("contrastive", Options(), tmp_path, Model(depth=1, tokenizer=str(base)), train))
