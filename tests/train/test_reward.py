"""Reward models: TRL's loss, the laws of Bradley and Terry, and a whole run whose model transformers reads."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from given import batch_of, given, pairs
from made import preference_rows, tokenizer, told, write_rows
from tiny import CONTEXT, trainee

from myna.data import Listed, Tokenized
from myna.data.pack import pack
from myna.model import Classifier, load_classifier, load_model
from myna.modeldir import ModelDir
from myna.records import DataError, ModelDirError
from myna.train.config import Lora, Model
from myna.train.heads import outputs
from myna.train.loop import Loop
from myna.train.methods import reward
from myna.train.methods.reward import Options, reward_loss
from myna.train.parallel import World
from myna.train.run import begin
from myna.train.rundir import RunDir


def classifier(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(trainee(seed).decoder, 1)


@pytest.mark.parametrize("center", [0.0, 0.3])
def test_losses_are_trls(center: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import defaultdict

    from trl import RewardTrainer

    scores = torch.tensor([1.0, -0.5, 2.0, 0.4, 0.1, 1.9])  # chosen..., rejected...
    same = lambda values: values  # noqa: E731
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False), args=SimpleNamespace(center_rewards_coefficient=center or None),
        accelerator=SimpleNamespace(gather=same, gather_for_metrics=same), _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
    )  # fmt: skip
    theirs = RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=scores[:, None]), {})
    paired = scores.view(2, 3).T.reshape(-1, 1)
    monkeypatch.setattr(reward, "outputs", lambda *_: paired)
    mine = reward_loss(classifier(), Options(center=center), batch_of(pairs(3)))
    assert float(mine.loss) / mine.units == pytest.approx(float(theirs), rel=1e-6)
    figures = {name: float(total) / count for name, (total, count) in mine.stats.items()}
    expected = {"margin": (0.6 - 0.6 + 0.1) / 3, "accuracy": 2 / 3, "chosen": 2.5 / 3, "rejected": 2.4 / 3}
    assert figures == pytest.approx(expected, abs=1e-6)


def test_the_same_shift_of_all_rewards_changes_nothing_and_swapped_pairs_negate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = torch.tensor([[1.0], [-0.5], [2.0], [0.4]])
    batch, found = batch_of(pairs(2)), []
    for some in (scores, scores + 7, scores.view(2, 2, 1).flip(1).reshape(4, 1)):
        monkeypatch.setattr(reward, "outputs", lambda *_, some=some: some)
        found.append(reward_loss(classifier(), Options(), batch))
    assert float(found[0].loss) == pytest.approx(float(found[1].loss), rel=1e-6)
    assert float(found[2].stats["margin"][0]) == pytest.approx(-float(found[0].stats["margin"][0]))
    # -log s(-x) = x - log s(x)
    assert float(found[2].loss - found[0].loss) == pytest.approx(float(found[0].stats["margin"][0]), rel=1e-5)


def test_the_last_token_is_read_whatever_stands_beside() -> None:
    module, examples = classifier(), pairs(9)
    rows = pack(examples.lengths, CONTEXT, seed=0, epoch=0)
    with torch.no_grad():
        packed = outputs(module, batch_of(examples, rows))
        order = [int(i) for row in rows for i in row]
        alone = torch.cat([outputs(module, batch_of(Listed([examples[i]]))) for i in order])
        torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
        side = examples[0][0]
        other = Tokenized(np.r_[side.ids[:-1], (side.ids[-1] + 1) % 37], side.weights)
        assert not torch.allclose(outputs(module, batch_of(Listed([(other,)]))), packed[:1])


def test_every_weight_but_the_lost_head_learns(tmp_path: Path) -> None:
    of = trainee(tied=False)
    setup = given(tmp_path, Options(), pairs(20), of=of)
    method = reward.prepare(setup)
    loop = Loop(setup.trainee, method, setup.config, RunDir(tmp_path), World())
    seen: list[float] = []
    loop.optimizers[0].register_step_pre_hook(
        lambda *_: seen.extend(0.0 if p.grad is None else float(p.grad.norm()) for p in loop.trained.values())
    )
    loop._step()
    assert min(seen) > 0
    assert "score.weight" in setup.trainee.trained()
    assert not any("head" in name for name in setup.trainee.trained())


def test_a_run_from_rows_to_a_model_that_transformers_reads(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = tokenizer(tmp_path / "base")
    train, evals = (write_rows(tmp_path / f"{n}.jsonl", preference_rows(60, n)) for n in (0, 1))
    config = told("reward", Options(), tmp_path, Model(depth=1, tokenizer=str(base)), train, evals, evaluate=15)
    ended = begin(config)
    assert ended.model is not None
    evals_seen = [line["eval"] for line in RunDir(tmp_path / "run").log.lines() if "eval" in line]
    assert evals_seen[-1]["accuracy"] > 0.9
    theirs = AutoModelForSequenceClassification.from_pretrained(ended.model).eval()
    mine = load_classifier(ModelDir.open(ended.model), "float32")
    tok = AutoTokenizer.from_pretrained(ended.model)
    setup = loaded_pairs(config, ended.model)
    assert theirs.config.pad_token_id is not None
    with torch.no_grad():
        for sequence in setup[:6]:
            ids = torch.tensor(sequence.ids.astype("int64"))
            padded = torch.cat([ids, torch.full((5,), theirs.config.pad_token_id)])[None].repeat(2, 1)
            said = outputs(mine, batch_of(Listed([(sequence,)]), context=64))
            torch.testing.assert_close(theirs(padded).logits[:1], said, atol=1e-4, rtol=1e-4)
    messages = [
        {"role": "user", "content": "what do you think of 3?"},
        {"role": "assistant", "content": "the tea is warm"},
    ]
    assert tok.apply_chat_template(messages, tokenize=True, return_dict=False)[-1] == setup[0].ids[-1]
    with pytest.raises(ModelDirError, match="is a classifier"):
        load_model(ModelDir.open(ended.model))


def loaded_pairs(config: Any, model: Path) -> list[Tokenized]:
    from myna.chat import Chat
    from myna.data import Cuts, Fit, Source, of_preferences

    found = of_preferences(Source.of(config.data.eval[0]).conversations(), Chat.load(model), Fit(64), Cuts())
    return [sequence for made in found for sequence in made.value]


def test_a_head_and_lora_are_refused(tmp_path: Path) -> None:
    setup = given(tmp_path, Options(), pairs(3))
    object.__setattr__(setup.config, "lora", Lora(rank=4))
    with pytest.raises(DataError, match=r"lora\.rank"):
        reward.prepare(setup)
