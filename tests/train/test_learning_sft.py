"""Slow: a model that reads but does not answer learns a task from conversations, answers it for words it has not seen, and
stops by itself; from conversations whose answers belong to other questions it learns to stop, and nothing else.

The figures of docs/experiments.md: pytest -m slow tests/train/test_learning_sft.py -s
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from learning import SEEDS, Speaker, learn, play, shakespeare, tell, write

from myna.records import Conversation

HELD, STEPS = 300, 400


def tasks(seed: int) -> tuple[list[Conversation], list[Conversation]]:
    """The words of a play in capitals: some to be asked for, all others to learn from."""
    words = sorted(set(re.findall(r"\b[a-z]{3,8}\b", play())))
    random.Random(seed).shuffle(words)
    rows = [Conversation.of(("user", f"in capitals: {word}"), ("assistant", word.upper())) for word in words]
    return rows[:HELD], rows[HELD:]


def examined(run: Path, held: Sequence[Conversation]) -> tuple[float, float]:
    """Greedy: how many answers are right to the letter, and how many end by themselves."""
    of = Speaker.of(run)
    found = [some[0] for some in of.answers(held, tokens=16)]
    right = [of.said(one) == row.messages[-1].text for one, row in zip(found, held, strict=True)]
    return float(np.mean(right)), float(np.mean([one.finish_reason == "stop" for one in found]))


@pytest.mark.slow
def test_a_task_is_learned_for_unseen_words_and_from_exchanged_answers_it_is_not(tmp_path: Path) -> None:
    text = shakespeare(tmp_path, vocab=267)
    base = learn("pretrain", tmp_path / "base", f"{text} --model.depth 2 --run.steps 100 --optim.lr 4e-3")
    table = []
    for seed in SEEDS:
        held, shown = tasks(seed)
        answers = [row.messages[-1] for row in shown]
        random.Random(seed).shuffle(answers)
        exchanged = [Conversation((row.messages[0], answer)) for row, answer in zip(shown, answers, strict=True)]
        row = [*examined(base, held)]
        for name, rows in (("task", shown), ("exchanged", exchanged)):
            file = write(tmp_path / f"{name}-{seed}.jsonl", rows)
            flags = f"--model.start {base / 'model'} --data.train {file} --data.context 64 --run.rows 16 --run.epochs 0"
            run = learn(
                "sft",
                tmp_path / f"{name}-{seed}",
                f"{flags} --run.steps {STEPS} --run.seed {seed} --optim.kind muon --optim.lr 5e-3",
            )
            row += examined(run, held)
        table.append(row)
        tell(f"seed {seed}", *row)
    before, _, right, stopped, by_chance, _ = np.array(table).T
    assert before.max() < 0.01
    assert right.min() > 0.9
    assert stopped.min() > 0.99
    assert by_chance.max() < 0.01
