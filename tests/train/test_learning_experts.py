"""Slow: eight experts of which a token sees two, beside one MLP that costs a token as much: in a hundred steps they read as well,
and no better; biases even their load.

The figures of docs/experiments.md: pytest -m slow tests/train/test_learning_experts.py -s
"""

from pathlib import Path

import numpy as np
import pytest
from learning import SEEDS, evaluated, learn, logged, shakespeare, tell

STEPS = 100
WAYS = {
    "dense": "",
    "experts": "--model.experts 8 --model.balance 0.01",
    "unbalanced": "--model.experts 8 --model.balance 0",
}


def load(run: Path) -> float:
    """The most tokens an expert of the worst layer got in a step, over the mean: of the steps before biases fade."""
    some = [
        line["load"]
        for line in logged(run)
        if line.get("step", 0) in range(STEPS * 6 // 10, STEPS * 8 // 10) and "load" in line
    ]
    return float(np.mean(some)) if some else 1.0


@pytest.mark.slow
def test_experts_soon_read_as_well_as_an_mlp_that_costs_as_much_and_biases_even_their_load(tmp_path: Path) -> None:
    text = shakespeare(tmp_path)
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for seed in SEEDS:
        for way, told in WAYS.items():
            flags = f"{text} --model.depth 2 --optim.lr 4e-3 --run.steps {STEPS} --run.seed {seed} {told}"
            run = learn("pretrain", tmp_path / f"{way}-{seed}", flags)
            found[way].append((evaluated(run), load(run)))
            tell(f"seed {seed}", way, *found[way][-1])
    bits, loads = ({way: np.mean(of, 0)[n] for way, of in found.items()} for n in (0, 1))
    assert abs(bits["experts"] - bits["dense"]) < 0.03
    assert loads["experts"] < 1.5 < 2 < loads["unbalanced"]
