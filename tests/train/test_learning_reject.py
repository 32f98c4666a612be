"""Slow: a model gets better at sums by learning from those of its own answers that a check passes, and from whichever it
gave first it does not.

The figures of docs/experiments.md: pytest -m slow tests/train/test_learning_reject.py -s
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learning import SEEDS, Speaker, learn, tell, write
from made import tokenizer

from myna.data import Place, Sourced
from myna.provider.local import Loading, load
from myna.records import Conversation
from myna.train.reject import Draw, Kept, sample

MOST = 50  # numbers are below it
HELD, SHOWN = 200, 1000
FIRST, MORE = 90, 100  # steps of the start, and of what is learned from its answers


def sums(seed: int) -> tuple[list[Conversation], ...]:
    """Held out, shown with their answers, and only asked."""
    draw = random.Random(seed)
    pairs = [(a, b) for a in range(MOST) for b in range(MOST)]
    draw.shuffle(pairs)
    rows = [Conversation.of(("user", f"{a}+{b}="), ("assistant", f"{a + b}"), target=str(a + b)) for a, b in pairs]
    return rows[:HELD], rows[HELD : HELD + SHOWN], rows[HELD + SHOWN :]


def pass_at_1(run: Path, held: Sequence[Conversation]) -> float:
    """Of eight answers to each, drawn at temperature 1, those that are right."""
    of = Speaker.of(run)
    drawn = of.answers(held, n=8, temperature=1.0, tokens=6)
    return float(np.mean([[of.said(one) == row.target for one in some] for row, some in zip(held, drawn, strict=True)]))


def own(run: Path, asked: Sequence[Conversation], out: Path, seed: int, *, right: bool) -> Kept:
    """One answer of the model's own to each sum: of eight the first that is right, or the first. (Every text contains "".)"""
    provider = load(str(run / "model"), Loading(kv_gb=0.1))
    rows = [row if right else replace(row, target="") for row in asked]
    prompts = [Sourced(Place("asked", n), row) for n, row in enumerate(rows)]
    draw = Draw(check="exact" if right else "contains", n=8 if right else 1, max_tokens=6, seed=seed)
    try:
        return asyncio.run(sample(provider, prompts, out, draw))
    finally:
        provider.close()


@pytest.mark.slow
def test_verified_answers_of_its_own_teach_and_unfiltered_ones_do_not(tmp_path: Path) -> None:
    words = tokenizer(tmp_path / "words", vocab=267)
    table = []
    for seed in SEEDS:
        at = tmp_path / str(seed)
        at.mkdir()
        held, shown, asked = sums(seed)
        same = f"--data.context 64 --run.rows 16 --run.seed {seed} --run.epochs 0"
        start = learn("sft", at / "start", f"{same} --data.train {write(at / 'shown.jsonl', shown)} --model.depth 2 "
                      f"--model.tokenizer {words} --optim.kind muon --optim.lr 5e-3 --run.steps {FIRST}")  # fmt: skip
        row = [pass_at_1(start, held)]
        for name, right in (("verified", True), ("unfiltered", False)):
            file = at / f"{name}.jsonl"
            kept = own(start, asked, file, seed, right=right)
            tell(name, kept.to_json())
            run = learn(
                "sft",
                at / name,
                f"{same} --data.train {file} --model.start {start / 'model'} --optim.lr 3e-4 --run.steps {MORE}",
            )
            row.append(pass_at_1(run, held))
        table.append(row)
        tell(f"seed {seed}", *row)
    before, verified, unfiltered = np.mean(table, 0)
    assert verified > before + 0.05
    assert unfiltered < before + 0.03
