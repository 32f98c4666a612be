"""Sequence classification on a decoder and on an encoder: transformers' logits and loss from the written model, F1 by hand, and
whole runs from rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from given import batch_of, given
from made import labelled_rows, tokenizer, told, write_rows
from tiny import trainee

from encoder_cases import VOCAB, encoder_oracle
from myna.chat import Chat, Passages
from myna.data import Cuts, Fit, Listed, Reader
from myna.data.pack import pack
from myna.data.texts import whole_text
from myna.model import load_classifier, load_encoder
from myna.modeldir import ModelDir
from myna.records import DataError, MynaError
from myna.train.config import Model
from myna.train.heads import outputs
from myna.train.methods import classify, pretrain
from myna.train.methods.classify import Options, label_loss, scores
from myna.train.run import begin, resume
from myna.train.rundir import RunDir


def run(at: Path, model: Model, rows: Any = None, **more: Any) -> Path:
    """The finished model; and held-out accuracy, of things it was told nothing of, is above 0.8."""
    train = write_rows(at / "train.jsonl", rows or labelled_rows(80))
    config = told(
        "classify", Options(), at, model, train, write_rows(at / "eval.jsonl", labelled_rows(30, 1)), context=48, **more
    )
    ended = begin(config)
    assert ended.model is not None
    seen = [line["eval"] for line in RunDir(at / "run").log.lines() if "eval" in line][-1]
    assert seen["accuracy"] > 0.8
    assert seen["macro_f1"] == pytest.approx((seen["f1 good"] + seen["f1 bad"]) / 2)
    assert not [name for name in seen if name.startswith("_")]
    return ended.model


def check_theirs(model: Path, module: torch.nn.Module) -> None:
    """transformers finds every weight in its place, and says the same of a padded batch."""
    from transformers import AutoModelForSequenceClassification

    theirs, info = AutoModelForSequenceClassification.from_pretrained(model, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert theirs.config.id2label == {0: "bad", 1: "good"}
    reader = Reader(Chat.load(model), Passages.load(model), Fit(48))
    ids = [reader.text(row["text"], Cuts()) or [] for row in labelled_rows(7, 5)]
    padding = theirs.config.pad_token_id
    padded = torch.tensor([one + [padding] * (48 - len(one)) for one in ids])
    labels = torch.arange(len(ids)) % 2
    examples = Listed([(whole_text(one, label=int(label)),) for one, label in zip(ids, labels, strict=True)])
    with torch.no_grad():
        found = theirs.eval()(padded, attention_mask=(padded != padding).long(), labels=labels)
        batch = batch_of(examples, pack(examples.lengths, 64, seed=0, epoch=0), context=64)
        said, loss = outputs(module, batch), label_loss(module, Options(), batch)
    by_row = sorted(found.logits.tolist()), sorted(said.tolist())
    np.testing.assert_allclose(*by_row, atol=1e-4, rtol=1e-4)
    assert float(loss.loss) / loss.units == pytest.approx(float(found.loss), rel=1e-4)


def test_a_decoder_learns_and_transformers_reads_it(tmp_path: Path) -> None:
    base = tokenizer(tmp_path / "base")
    model = run(tmp_path, Model(depth=1, tokenizer=str(base)))
    check_theirs(model, load_classifier(ModelDir.open(model), "float32"))


@pytest.mark.parametrize("case", ["bert", "roberta"])
def test_an_encoder_learns_and_transformers_reads_it(tmp_path: Path, case: str) -> None:
    encoder_oracle(case, tmp_path / "base")
    tokenizer(tmp_path / "base", vocab=VOCAB)
    model = run(tmp_path, Model(start=str(tmp_path / "base")), steps=50, lr=1e-3)
    check_theirs(model, load_encoder(ModelDir.open(model), "float32"))


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_classifier_goes_on_learning_the_same_labels_and_no_others(kind: str, tmp_path: Path) -> None:
    start = Model(depth=1, tokenizer=str(tokenizer(tmp_path / "base")))
    if kind == "encoder":
        encoder_oracle("bert", tmp_path / "base")
        tokenizer(tmp_path / "base", vocab=VOCAB)
        start = Model(start=str(tmp_path / "base"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = run(tmp_path / "one", start, steps=50, lr=1e-3)
    again = run(tmp_path / "two", Model(start=str(first)), steps=1, lr=0.0, seed=1)
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    other = write_rows(tmp_path / "other.jsonl", [{"text": f"it is {n}", "label": "abc"[n % 3]} for n in range(6)])
    config = told("classify", Options(), tmp_path, Model(start=str(first)), other, context=40)
    with pytest.raises(DataError, match="a head for bad, good, and this run learns a, b, c"):
        begin(config)
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": "it is"}])
    with pytest.raises(MynaError, match="is a classifier" if kind == "decoder" else "is an encoder"):
        begin(told("pretrain", pretrain.Options(), tmp_path, Model(start=str(first)), texts, context=40))


def test_a_head_begins_with_the_pooler_it_was_pretrained_with(tmp_path: Path) -> None:
    oracle = encoder_oracle("bert", tmp_path / "base")
    tokenizer(tmp_path / "base", vocab=VOCAB)
    train = write_rows(tmp_path / "train.jsonl", labelled_rows(8))
    config = told("classify", Options(), tmp_path, Model(start=str(tmp_path / "base")), train)
    from myna.train.parallel import ALONE
    from myna.train.setup import Setup
    from myna.train.trainee import make_trainee

    setup = Setup(config, make_trainee(config.model, 64 - 4, 0), ALONE, tmp_path / "run")
    classify.prepare(setup)
    dense = setup.trainee.module.score.dense  # type: ignore[union-attr]
    assert torch.equal(dense.weight, oracle.pooler.dense.weight)  # type: ignore[union-attr]
    assert torch.equal(dense.bias, oracle.pooler.dense.bias)  # type: ignore[union-attr]


def test_a_run_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    base = tokenizer(tmp_path / "base")
    model = Model(depth=1, tokenizer=str(base))
    whole = run(tmp_path, model, save=7)
    for place in (tmp_path / "run" / "checkpoints").glob("step-0000[23]*"):
        if place.name > "step-000021":
            import shutil

            shutil.rmtree(place)
    again = resume(tmp_path / "run").model
    assert again is not None
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_f1_is_what_it_is_defined_as() -> None:
    drawn = np.random.default_rng(0)
    labels, said = drawn.integers(0, 3, 50), drawn.integers(0, 3, 50)
    means = {}
    by_hand = []
    for n in range(3):
        right = int(((labels == n) & (said == n)).sum())
        precision, recall = right / (said == n).sum(), right / (labels == n).sum()
        by_hand.append(2 * precision * recall / (precision + recall))
        means |= {f"_right_{n}": right / 50, f"_said_or_so_{n}": ((labels == n).sum() + (said == n).sum()) / 50}
    found = scores(["a", "b", "c"], means)
    assert [found[f"f1 {name}"] for name in "abc"] == pytest.approx(by_hand)
    assert found["macro_f1"] == pytest.approx(np.mean(by_hand))
    assert scores(["a", "b"], {f"_{kind}_{n}": float(n) for kind in ("right", "said_or_so") for n in (0, 1)}) == {
        "f1 b": 2.0,
        "macro_f1": 2.0,
    }


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "one label in all rows"),
        ([{"text": "a", "label": "x"}, {"messages": [{"role": "user", "content": "b"}]}], r"jsonl:2: .*target"),
        (
            [{"text": "a", "label": "x"}, {"text": "a " * 99, "label": "y"}],
            r"jsonl:2: .* tokens, and the context has room",
        ),
    ],
)
def test_rows_that_cannot_be_learned_are_refused_by_place(tmp_path: Path, rows: Any, says: str) -> None:
    base = tokenizer(tmp_path / "base")
    train = write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError, match=says):
        begin(told("classify", Options(), tmp_path, Model(depth=1, tokenizer=str(base)), train))


@pytest.mark.parametrize("kind", ["same row", "new label"])
def test_evaluation_rows_that_say_nothing_are_refused(tmp_path: Path, kind: str) -> None:
    base = tokenizer(tmp_path / "base")
    rows = labelled_rows(8)
    train = write_rows(tmp_path / "train.jsonl", rows)
    wrong = rows[3] if kind == "same row" else {"text": "new", "label": "odd"}
    evals = write_rows(tmp_path / "eval.jsonl", [*labelled_rows(4, 1), wrong])
    says = r"eval\.jsonl:5: this evaluation row is a training row" if kind == "same row" else "'odd' is no label"
    with pytest.raises(DataError, match=says):
        begin(told("classify", Options(), tmp_path, Model(depth=1, tokenizer=str(base)), train, evals))


def test_labels_are_in_order_of_size_or_letter_and_smoothing_is_torchs(tmp_path: Path) -> None:
    from myna.data import Source, labels_of

    rows = [{"text": str(n), "label": n} for n in (10, 9, 2)]
    assert labels_of(Source.of(write_rows(tmp_path / "a.jsonl", rows)).records()) == ["2", "9", "10"]
    rows = [{"text": str(n), "label": n} for n in (True, False)]
    assert labels_of(Source.of(write_rows(tmp_path / "b.jsonl", rows)).records()) == ["false", "true"]
    examples = Listed([(whole_text([1, 2, 3 + n], label=n % 2),) for n in range(5)])
    setup = given(tmp_path, Options(smoothing=0.2), examples, of=trainee())
    setup.labelled = lambda: (examples, None, ["a", "b"])  # type: ignore[method-assign]
    method = classify.prepare(setup)
    logits = outputs(setup.trainee.module, batch_of(examples))
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1, 0]), label_smoothing=0.2)
    found = method.loss(batch_of(examples))
    assert float(found.loss.detach()) / found.units == pytest.approx(float(expected.detach()), rel=1e-6)
