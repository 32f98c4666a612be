"""Slow: small matrices beside frozen weights learn what all weights learn, at thirty times the rate; over four bits too; and one
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
STEPS, ROWS, CONTEXT, HELD = 12, 2, 128, 12
EIGHT = "--lora.rank 8 --lora.alpha 16"
WAYS = {  # at the best rate of those that docs/experiments.md names
    "full": "--optim.lr 1e-4",
    "lora": f"--optim.lr 3e-3 {EIGHT}",
    "qlora": f"--optim.lr 3e-3 {EIGHT} --lora.base nf4",
    "control": "--optim.lr 3e-3 --lora.rank 1 --lora.alpha 2 --lora.targets q_proj k_proj v_proj o_proj",
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
    text = f"{poems(tmp_path)} --model.start {smollm2} --model.precision bfloat16 --optim.weight_decay 0"
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in SEEDS:
        for way, told in WAYS.items():
            flags = f"{text} {told} --run.steps {STEPS} --run.rows {ROWS} --run.seed {seed}"
            found[way].append(evaluated(learn("pretrain", tmp_path / f"{way}-{seed}", flags), "loss"))
            tell(f"seed {seed}", way, found[way][-1])
    means = {way: float(np.mean(of)) for way, of in found.items()}
    tell(*(f"{way} {value:.4f}" for way, value in means.items()), f"trained {share(smollm2, tmp_path):.2%}")
    assert means["lora"] < 1.02 * means["full"]
    assert means["qlora"] < 1.03 * means["lora"]
    assert means["control"] > 1.02 * means["full"]
    assert share(smollm2, tmp_path) < 0.02


def share(base: Path, at: Path) -> float:
    """Of the weights, those that LoRA trains."""
    decoder = load_model(ModelDir.open(base), "float32")
    adapter = read_adapter(decoder.spec, AdapterDir.open(next(at.glob("lora-*")) / "model"))
    return sum(p.numel() for lora in adapter for p in lora.parameters()) / sum(p.numel() for p in decoder.parameters())
