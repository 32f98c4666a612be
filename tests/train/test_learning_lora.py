"""Slow: small matrices beside frozen weights learn what all weights learn, at ten times the rate; over four bits too; and one
rank beside attention alone does not.

SmolLM2, which knows English, is shown Chinese poems. The figures of docs/experiments.md:
pytest -m slow tests/train/test_learning_lora.py -s
"""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from learning import SEEDS, evaluated, learn, tell

from myna.model import load_model
from myna.model.lora import read_adapter
from myna.modeldir import AdapterDir, ModelDir

POEMS = Path(__file__).parents[3] / "shared/data/chinese_poetry/tang.jsonl.gz"
STEPS, ROWS, CONTEXT, HELD = 20, 2, 128, 12
EIGHT = "--lora.rank 8 --lora.alpha 16"
WAYS = {
    "full": ((1e-4, 3e-4), ""),
    "lora": ((1e-3, 3e-3), EIGHT),
    "qlora": ((1e-3, 3e-3), f"{EIGHT} --lora.base nf4"),
    "control": ((1e-3, 3e-3), "--lora.rank 1 --lora.alpha 2 --lora.targets q_proj k_proj v_proj o_proj"),
}


def poems(at: Path) -> str:
    if not POEMS.exists():
        pytest.skip(f"{POEMS} is not here")
    with gzip.open(POEMS, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line, _ in zip(file, range(400), strict=False)]
    parts = {"held": texts[:HELD], "read": texts[HELD:]}
    for name, part in parts.items():
        (at / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return f"--data.train {at / 'read.jsonl'} --data.eval {at / 'held.jsonl'} --data.context {CONTEXT} --data.overlong split"


@pytest.mark.slow
def test_lora_learns_what_all_weights_learn(smollm2: Path, tmp_path: Path) -> None:
    text = f"{poems(tmp_path)} --model.start {smollm2} --run.steps {STEPS} --run.rows {ROWS} --optim.weight_decay 0"

    def loss(way: str, rate: float, seed: int) -> float:
        out = tmp_path / f"{way}-{rate}-{seed}"
        found = evaluated(learn("pretrain", out, f"{text} {WAYS[way][1]} --optim.lr {rate} --run.seed {seed}"), "loss")
        tell(way, rate, f"seed {seed}", found)
        return found

    means: dict[str, float] = {}
    for way, (rates, _) in WAYS.items():
        swept = {rate: loss(way, rate, SEEDS[0]) for rate in rates}
        rate = min(swept, key=lambda rate: swept[rate])
        means[way] = float(np.mean([swept[rate], *(loss(way, rate, seed) for seed in SEEDS[1:])]))
    tell(*(f"{way} {value:.4f}" for way, value in means.items()), f"trained {share(smollm2, tmp_path):.2%}")
    assert abs(means["lora"] / means["full"] - 1) < 0.02
    assert abs(means["qlora"] / means["lora"] - 1) < 0.03
    assert means["control"] > 1.02 * means["full"]
    assert share(smollm2, tmp_path) < 0.02


def share(base: Path, at: Path) -> float:
    """Of the weights, those that LoRA trains."""
    decoder = load_model(ModelDir.open(base), "float32")
    (adapter,) = [read_adapter(decoder.spec, AdapterDir.open(run / "model")) for run in [next(at.glob("lora-*"))]]
    trained = sum(p.numel() for lora in adapter for p in lora.parameters())
    return trained / sum(p.numel() for p in decoder.parameters())
