"""Heads that guess: answers are what they are without them, and guesses are those of the right place."""

import json
import struct
from pathlib import Path

import pytest
import torch
from scripted_costs import Scripted
from tiny_decoder import VOCAB, naive, random_decoder, spec_of

from myna.engine.engine import Engine, engine_for
from myna.model import Decoder
from myna.model.ahead import FILE, Ahead, read_ahead, write_ahead
from myna.modeldir import ModelDir
from myna.records import ModelDirError, Sampling

PROMPTS = [[5, 9, 17], [100], [*range(40, 61)], [7, 7, 7, 7]]


def heads(count: int = 3, seed: int = 0) -> Ahead:
    torch.manual_seed(seed)
    made = Ahead(64, count).requires_grad_(False).eval()
    for head in made.layers():
        head.weight.copy_(torch.randn_like(head.weight) * 0.3)
    return made


def engine_with(model: Decoder, guessing: Ahead | None, **more: int) -> Engine:
    """Guessing costs nothing, so it is done always; of drafters the heads alone."""
    engine = engine_for(model, kv_tokens=2048, draft_rows=64, heads=guessing, **more)
    speculator = engine.scheduler.speculator
    assert speculator
    speculator.costs = Scripted()
    speculator.drafters = [drafter for drafter in speculator.drafters if drafter.name == "heads"]
    return engine


def answers(engine: Engine, sampling: Sampling) -> list[list[list[int]]]:
    return [[[c.id for c in one] for one in group] for group in engine.generate(PROMPTS, sampling)]


@pytest.mark.parametrize("kind", ["full", "windowed"])
def test_greedy_answers_are_the_models_own_token_for_token(kind: str) -> None:
    model = random_decoder(spec_of(kind))
    engine = engine_with(model, heads())
    found = answers(engine, Sampling(temperature=0.0, max_tokens=24))
    assert found == [[naive(model, prompt, 24)] for prompt in PROMPTS]
    assert engine.scheduler.speculator
    assert engine.scheduler.speculator.tally["heads"].drafted > 100


def test_drawn_answers_are_the_same_with_little_room_and_without() -> None:
    model, sampling = random_decoder(spec_of("full")), Sampling(temperature=0.8, max_tokens=24, seed=3, n=2)
    plain = answers(engine_for(model, kv_tokens=2048), sampling)
    assert answers(engine_with(model, heads()), sampling) == plain
    tight = engine_for(model, kv_tokens=112, draft_rows=64, heads=heads(), max_running=8)  # sequences are preempted
    assert tight.scheduler.speculator
    tight.scheduler.speculator.costs = Scripted()
    assert answers(tight, sampling) == plain
    assert tight.scheduler.preemptions


class Knowing(Ahead):
    """Knows what the model says after each hidden state it has seen: the truth, if it is asked about the right place."""

    def __init__(self, model: Decoder, prompts: list[list[int]], count: int = 3):
        super().__init__(64, count)
        self.after: list[tuple[torch.Tensor, list[int]]] = []
        from myna.model import Causal

        for prompt in prompts:
            ids = [*prompt, *naive(model, prompt, 24)]
            with torch.inference_mode():
                hidden = model(torch.tensor([ids]), torch.arange(len(ids))[None], Causal())[0]
            self.after += [(hidden[n], ids[n + 2 : n + 2 + count]) for n in range(len(ids))]

    def guesses(self, decoder: Decoder, hidden: torch.Tensor, count: int) -> list[int]:
        nearest = min(self.after, key=lambda known: float((known[0] - hidden).square().sum()))
        return nearest[1][:count]


def test_a_guess_is_made_of_the_state_that_its_last_token_was_drawn_from() -> None:
    """So heads that know what follows are always right, in a batch too, and four tokens come of a step."""
    model = random_decoder(spec_of("full"))
    engine = engine_with(model, Knowing(model, PROMPTS))
    found = answers(engine, Sampling(temperature=0.0, max_tokens=24))
    assert found == [[naive(model, prompt, 24)] for prompt in PROMPTS]
    assert engine.scheduler.speculator
    tally = engine.scheduler.speculator.tally["heads"]
    assert tally.right == tally.drafted > 60
    assert engine.stats()["steps"] <= 8


def test_after_a_wrong_guess_the_next_is_made_of_the_last_right_state() -> None:
    """The third guess is always wrong, the first two never."""
    model = random_decoder(spec_of("full"))
    knowing = Knowing(model, PROMPTS)
    knowing.after = [(state, [*t[:2], *((token + 1) % VOCAB for token in t[2:])]) for state, t in knowing.after]
    engine = engine_with(model, knowing)
    found = answers(engine, Sampling(temperature=0.0, max_tokens=24))
    assert found == [[naive(model, prompt, 24)] for prompt in PROMPTS]
    assert engine.scheduler.speculator
    tally = engine.scheduler.speculator.tally["heads"]
    assert tally.right >= 0.6 * tally.drafted > 30


def test_heads_that_are_always_wrong_are_asked_less() -> None:
    model = random_decoder(spec_of("full"))
    wrong = Knowing(model, PROMPTS)
    wrong.after = [(state, [(token + 1) % VOCAB for token in tokens]) for state, tokens in wrong.after]
    engine = engine_with(model, wrong)
    speculator = engine.scheduler.speculator
    assert speculator
    speculator.costs = Scripted(lambda rows: 1 + 0.1 * rows)
    answers(engine, Sampling(temperature=0.0, max_tokens=60))
    assert speculator.tally["heads"].right == 0
    assert speculator.tally["heads"].drafted < 100


def test_new_heads_say_what_the_model_says() -> None:
    model, hidden = random_decoder(spec_of("full")), torch.randn(64)
    fresh = Ahead(64, 2)
    assert torch.equal(model.logits(fresh.hidden(hidden, 1)), model.logits(hidden))


def write_file(file: Path, **shapes: tuple[int, int]) -> None:
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[name.replace("_", ".")] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(at))


def test_heads_are_a_file_and_one_of_another_shape_is_refused(tmp_path: Path) -> None:
    directory = ModelDir(tmp_path, {}, {}, {}, None, {})  # type: ignore[arg-type]
    assert read_ahead(directory, 64) is None
    made = heads()
    write_ahead(made, tmp_path / FILE)
    again = read_ahead(directory, 64)
    assert again
    for one, two in zip(made.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ModelDirError, match="no heads of a model of width 32"):
        read_ahead(directory, 32)
    write_file(tmp_path / FILE, heads_1_weight=(64, 64))
    with pytest.raises(ModelDirError, match="no heads"):
        read_ahead(directory, 64)
