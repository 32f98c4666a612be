"""Model directories and rows on disk, for tests of whole runs: a small tokenizer with our chat format, and words that mean
something to learn."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from myna.chat.train_tokenizer import train, write_tokenizer
from myna.train.config import Config, Data, Model, Optim, Run

GOOD, BAD = ("lovely", "bright", "kind", "warm"), ("dull", "cold", "rude", "grim")
THINGS = ("tea", "road", "song", "house", "story", "window", "garden", "letter")


def tokenizer(at: Path, texts: Iterable[str] = (), vocab: int = 340) -> Path:
    """A model directory's text half: byte-level BPE, with these words in it."""
    at.mkdir(parents=True, exist_ok=True)
    words = " ".join([*GOOD, *BAD, *THINGS, "what do you think of the is a"])
    write_tokenizer(at, train([words, *texts] * 3, vocab))
    return at


def opinions(count: int, seed: int, words: Sequence[str]) -> list[str]:
    """Seed 0 speaks of some things, the others of other things."""
    drawn = np.random.default_rng(seed)
    things = THINGS[3:] if seed else THINGS[:3]
    return [f"the {drawn.choice(things)} is {drawn.choice(words)} and {drawn.choice(words)}" for _ in range(count)]


def preference_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """What is asked; a kind answer is preferred to an unkind one."""
    both = zip(opinions(count, seed, GOOD), opinions(count, seed, BAD), strict=True)
    return [
        {"prompt": f"what do you think of {seed}.{i}?", "chosen": a, "rejected": b} for i, (a, b) in enumerate(both)
    ]


def labelled_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    sides = (("good", GOOD), ("bad", BAD))
    found = [{"text": text, "label": label} for label, words in sides for text in opinions(count // 2, seed, words)]
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))]


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def told(
    method: str,
    options: Any,
    at: Path,
    model: Model,
    train: str,
    evals: str = "",
    *,
    steps: int = 30,
    context: int = 64,
    lr: float = 3e-3,
    **run: Any,
) -> Config:
    """A run in at/run."""
    return Config(
        method=method, model=model, data=Data(train=(train,), eval=(evals,) if evals else (), context=context),
        optim=Optim(lr=lr, warmup=3), run=Run(**{"out": str(at / "run"), "steps": steps, "rows": 8} | run), options=options,
    )  # fmt: skip
