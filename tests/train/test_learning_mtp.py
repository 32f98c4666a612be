"""Slow: heads that were trained guess what comes, so a step of the engine yields more than one token and the answer stays the
greedy one; heads that learned nothing bring next to nothing.

The figures of docs/experiments.md: pytest -m slow tests/train/test_learning_mtp.py -s
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from learning import SEEDS, Speaker, evaluated, learn, play, shakespeare, tell

from myna.engine.engine import engine_for
from myna.model import Decoder
from myna.model.ahead import Ahead, read_ahead
from myna.modeldir import ModelDir
from myna.records import Sampling

STEPS, PROMPTS, TOKENS = 500, 20, 64


def tokens_of_a_step(decoder: Decoder, prompts: list[list[int]], heads: Ahead | None) -> tuple[float, list[list[int]]]:
    """Greedy, one prompt after the other, by an engine that always guesses and by its heads alone."""
    engine = engine_for(decoder, kv_tokens=1024, draft_rows=16 if heads else 0, heads=heads)
    if speculator := engine.scheduler.speculator:
        speculator.drafters = [drafter for drafter in speculator.drafters if drafter.name == "heads"]
        speculator.costs.seconds = lambda rows: 1.0  # type: ignore[method-assign]
    answers = [engine.generate([ids], Sampling(temperature=0.0, max_tokens=TOKENS))[0][0] for ids in prompts]
    found = [[choice.id for choice in answer] for answer in answers]
    return sum(map(len, found)) / engine.stats()["steps"], found


def untrained(of: Ahead, seed: int) -> Ahead:
    """As large as the trained ones."""
    torch.manual_seed(seed)
    made = Ahead(of.layers()[0].weight.shape[0], len(of.layers())).requires_grad_(False)
    for mine, theirs in zip(made.layers(), of.layers(), strict=True):
        torch.nn.init.normal_(mine.weight, std=float(theirs.weight.std()))
    return made


@pytest.mark.slow
def test_trained_heads_yield_more_tokens_a_step_and_the_same_answers(tmp_path: Path) -> None:
    text = shakespeare(tmp_path, vocab=267)
    unread = play()[-50_000:]
    table = []
    for seed in SEEDS:
        flags = f"{text} --model.depth 1 --mtp.heads 2 --mtp.weight 0.5 --optim.lr 4e-3 --run.steps {STEPS} --run.seed {seed}"
        run = learn("mtp", tmp_path / str(seed), flags)
        of = Speaker.of(run)
        heads = read_ahead(ModelDir.open(run / "model"), of.decoder.spec.width)
        assert heads
        prompts = [of.chat.tokenizer.encode(unread[i * 2000 : i * 2000 + 40]) for i in range(PROMPTS)]
        plain, truth = tokens_of_a_step(of.decoder, prompts, None)
        row = [plain]
        for some in (untrained(heads, seed), heads):
            tokens, said = tokens_of_a_step(of.decoder, prompts, some)
            assert said == truth
            row.append(tokens)
        table.append(row)
        tell(f"seed {seed}", evaluated(run), *(evaluated(run, f"ahead_{n}") for n in (1, 2)), *row)
    plain, nothing, trained = np.mean(table, 0)
    assert plain == pytest.approx(1, abs=0.02)
    assert nothing < 1.2
    assert trained > 1.5
