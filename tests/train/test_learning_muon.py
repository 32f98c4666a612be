"""Slow: Muon reads unread text better than AdamW after as many steps of the same rows, each at the best of its rates.

The figures of docs/experiments.md: pytest -m slow tests/train/test_learning_muon.py -s
"""

from pathlib import Path

import numpy as np
import pytest
from learning import SEEDS, evaluated, learn, shakespeare, tell

RATES = {"adamw": (0.002, 0.004, 0.008), "muon": (0.008, 0.016, 0.032)}
STEPS = 200


@pytest.mark.slow
def test_muon_learns_more_than_adamw_in_as_many_steps(tmp_path: Path) -> None:
    text = shakespeare(tmp_path)

    def bits(kind: str, rate: float, seed: int) -> float:
        flags = f"{text} --model.depth 2 --run.steps {STEPS} --run.seed {seed} --optim.kind {kind} --optim.lr {rate}"
        found = evaluated(learn("pretrain", tmp_path / f"{kind}-{rate}-{seed}", flags))
        tell(kind, rate, f"seed {seed}", found)
        return found

    best: dict[str, list[float]] = {}
    for kind, rates in RATES.items():
        swept = {rate: bits(kind, rate, SEEDS[0]) for rate in rates}
        rate = min(swept, key=lambda rate: swept[rate])
        assert rate not in (rates[0], rates[-1]), f"{kind} may be better beyond the rates that were tried: {swept}"
        best[kind] = [swept[rate], *(bits(kind, rate, seed) for seed in SEEDS[1:])]
    tell(*(f"{kind} {np.mean(of):.4f}" for kind, of in best.items()))
    gained = np.array(best["adamw"]) - np.array(best["muon"])
    assert gained.mean() > 0.01
