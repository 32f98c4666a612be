"""Our hidden rows and scores are transformers', for every encoder family, on random tiny weights that transformers saved."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from encoder_cases import ENCODERS, VOCAB, encoder_oracle
from family_cases import oracle
from myna.model import Encoder, describe, estimate, load_encoder, load_model
from myna.modeldir import ModelDir
from myna.records import ModelDirError

TOLERANCE = {"rtol": 3e-5, "atol": 3e-5}
LENGTHS = [5, 1, 17, 5, 36]


def texts(kinds: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids, none of which pads, and kinds of texts of LENGTHS."""
    torch.manual_seed(0)
    return [(torch.randint(5, VOCAB, (n,)), torch.randint(0, kinds, (n,))) for n in LENGTHS]


def run(encoder: Encoder, rows: list[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
    ids, kinds = (torch.cat(x) for x in zip(*rows, strict=True))
    lengths = [len(ids) for ids, _ in rows]
    return [*encoder(ids, kinds, lengths).split(lengths)]


@pytest.mark.parametrize("case", ENCODERS)
@torch.inference_mode()
def test_hidden_rows_and_scores_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    """Ours all in one flat batch, theirs one by one."""
    model = encoder_oracle(case, tmp_path)
    encoder = load_encoder(ModelDir.open(tmp_path), "float32")
    rows = texts(model.config.type_vocab_size)
    for (ids, kinds), ours in zip(rows, run(encoder, rows), strict=True):
        theirs = model(ids[None], token_type_ids=kinds[None], output_hidden_states=True)
        torch.testing.assert_close(ours, theirs.hidden_states[-1][0], **TOLERANCE)
        if ENCODERS[case][2]:
            assert encoder.score
            torch.testing.assert_close(encoder.score(ours[0]), theirs.logits[0], **TOLERANCE)
    assert (encoder.score is not None) == bool(ENCODERS[case][2])


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@torch.inference_mode()
def test_a_text_is_the_same_alone_and_in_any_company(precision: str, tmp_path: Path) -> None:
    encoder_oracle("bert", tmp_path)
    encoder = load_encoder(ModelDir.open(tmp_path), precision)
    rows = texts(2)
    together, turned = run(encoder, rows), run(encoder, rows[::-1])[::-1]
    for row, one, other in zip(rows, together, turned, strict=True):
        alone = run(encoder, [row])[0]
        if encoder.precision == "int8":  # the native kernels: bit for bit
            assert torch.equal(one, alone)
            assert torch.equal(one, other)
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if precision == "float32" else {"rtol": 0.03, "atol": 0.03}
        torch.testing.assert_close(one, alone, **tolerance)
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@torch.inference_mode()
def test_other_precisions_stay_close(precision: str, tmp_path: Path) -> None:
    encoder_oracle("xlm-roberta", tmp_path)
    exact, close = (run(load_encoder(ModelDir.open(tmp_path), p), texts(1)) for p in ("float32", precision))
    for one, other in zip(exact, close, strict=True):
        assert torch.cosine_similarity(one, other).min() > 0.995


@torch.inference_mode()
def test_names_of_old_files_and_of_other_heads_are_understood(tmp_path: Path) -> None:
    """gamma and beta, a prefix, the head of masked words, position_ids: as in bert-base-uncased."""
    model = encoder_oracle("bert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma"): t for name, t in tensors.items()}
    old = {name.replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in old.items()}
    old |= {"cls.predictions.bias": torch.zeros(VOCAB), "bert.embeddings.position_ids": torch.arange(60)[None]}
    save_file(old, tmp_path / "model.safetensors")
    rows = texts(2)
    ours = run(load_encoder(ModelDir.open(tmp_path), "float32"), rows)
    theirs = model(rows[2][0][None], token_type_ids=rows[2][1][None]).last_hidden_state[0]
    torch.testing.assert_close(ours[2], theirs, **TOLERANCE)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_estimates_count_what_is_loaded(tmp_path: Path, precision: str) -> None:
    encoder_oracle("xlm-roberta that scores", tmp_path)
    directory = ModelDir.open(tmp_path)
    encoder = load_encoder(directory, precision)
    tensors = [*encoder.parameters(), *encoder.buffers()]
    assert estimate(directory, precision, kv_tokens=1000).weights == sum(tensor.nbytes for tensor in tensors)
    assert estimate(directory, precision, kv_tokens=1000).kv == 0
    if precision == "float32":
        assert describe(directory)[0].parameters() == sum(tensor.numel() for tensor in tensors)


def test_an_encoder_answers_nobody_and_a_decoder_is_no_encoder(tmp_path: Path) -> None:
    encoder_oracle("bert", tmp_path / "bert")
    oracle("llama", tmp_path / "llama")
    with pytest.raises(ModelDirError, match=r"bert is an encoder.*myna embed --model bert"):
        load_model(ModelDir.open(tmp_path / "bert"))
    with pytest.raises(ModelDirError, match="llama is a decoder"):
        load_encoder(ModelDir.open(tmp_path / "llama"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("position_embedding_type", "relative_key"), ("is_decoder", True), ("num_attention_heads", 5), ("hidden_act", "x"),
     ("max_position_embeddings", 0), ("pad_token_id", "no")],
)  # fmt: skip
def test_a_config_we_would_compute_otherwise_is_refused(field: str, value: object, tmp_path: Path) -> None:
    encoder_oracle("xlm-roberta", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
    with pytest.raises(ModelDirError, match=field.replace("hidden_act", "activation")):
        load_encoder(ModelDir.open(tmp_path))


@torch.inference_mode()
def test_minilm_is_what_transformers_computes(minilm: Path) -> None:
    encoder, model = load_encoder(ModelDir.open(minilm), "float32"), AutoModel.from_pretrained(minilm).eval()
    torch.manual_seed(0)
    rows = [(torch.randint(999, 30522, (n,)), torch.zeros(n, dtype=torch.long)) for n in (3, 60, 512)]
    for (ids, _), ours in zip(rows, run(encoder, rows), strict=True):
        torch.testing.assert_close(ours, model(ids[None]).last_hidden_state[0], rtol=1e-4, atol=2e-5)
