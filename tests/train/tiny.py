"""A small decoder, rows of made-up tokens, and runs over them, for tests of training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from myna.data import Listed, Tokenized
from myna.model import AttentionRule, Decoder, Norm, Rope, Spec
from myna.train.config import Config, Data, Optim, Run
from myna.train.loop import Loop
from myna.train.method import Method
from myna.train.next_token import next_token
from myna.train.offline import offline
from myna.train.parallel import ALONE, World
from myna.train.rundir import RunDir
from myna.train.trainee import Trainee, initialize

VOCAB, CONTEXT = 37, 24


def spec(**more: Any) -> Spec:
    given: dict[str, Any] = dict(  # noqa: C408
        family="llama", vocab=VOCAB, width=16, layers=2, heads=2, kv_heads=1, head_dim=8, hidden=24, max_len=64, norm=Norm(),
        rules=(AttentionRule(8**-0.5),) * 2, rope=Rope(dim=8), tied=True,
    )  # fmt: skip
    return Spec(**given | more)


def trainee(seed: int = 0, **more: Any) -> Trainee:
    decoder = Decoder(spec(**more))
    initialize(decoder, seed)
    torch.manual_seed(seed)
    for name, p in decoder.named_parameters():
        if name.endswith(("out.weight", "down.weight")):  # new layers begin as the identity; here they shall matter
            torch.nn.init.normal_(p, std=0.3)
    return Trainee(decoder, decoder, None, "tiny", lambda place, lineage: place)  # type: ignore[arg-type]


def examples(count: int, seed: int = 0, longest: int = CONTEXT) -> Listed:
    drawn = np.random.default_rng(seed)
    made = []
    for size in drawn.integers(2, longest + 1, count):
        start = drawn.integers(0, VOCAB)
        ids = (start + 3 * np.arange(size)) % VOCAB  # each token is the one before it and 3
        weights = (drawn.random(size) < 0.7).astype(np.float32)
        weights[-1] = 1
        made.append((Tokenized(ids, weights),))
    return Listed(made)


def method(of: Trainee, config: Config, seed: int = 0) -> Method:
    sizes = torch.ones(VOCAB)
    return offline(config, examples(60, seed), examples(7, seed + 1), lambda batch: next_token(of, sizes, batch))


def config(**sections: Any) -> Config:
    given: dict[str, Any] = {
        "data": Data(context=CONTEXT),
        "optim": Optim(lr=1e-2, warmup=2),
        "run": Run(steps=12, rows=4, evaluate=4, save=4),
    }
    return Config(method="sft", **given | sections)


def loop(path: Path, config: Config, of: Trainee | None = None, world: World = ALONE) -> Loop:
    of = of or trainee()
    learned = method(of, config)
    world.spread(of.module, of.model, config.run.send)
    return Loop(of, learned, config, RunDir(path), world)
