"""A tiny random encoder of every family as transformers makes and saves it, for the tests of several rooms."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

VOCAB = 300
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
    "max_position_embeddings": 60,
}  # fmt: skip

# Case -> model_type, fields of the config, outputs of its classification head (0: none).
ENCODERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "bert": ("bert", {}, 0),
    "bert, three kinds, other activation": ("bert", {"type_vocab_size": 3, "hidden_act": "gelu_new"}, 0),
    "bert, coarse norms": ("bert", {"layer_norm_eps": 1e-2, "hidden_act": "relu"}, 0),
    "bert that scores": ("bert", {}, 1),
    "bert that classifies": ("bert", {}, 3),
    "roberta": ("roberta", {"type_vocab_size": 1}, 0),
    "roberta that scores": ("roberta", {"type_vocab_size": 1, "pad_token_id": 3}, 1),
    "xlm-roberta": ("xlm-roberta", {"type_vocab_size": 1}, 0),
    "xlm-roberta that scores": ("xlm-roberta", {}, 1),
}


def encoder_oracle(case: str, at: Path) -> torch.nn.Module:
    """A transformers model with random weights, norms and biases included, saved as a model directory."""
    model_type, fields, labels = ENCODERS[case]
    config = AutoConfig.for_model(model_type, **(SMALL | fields | ({"num_labels": labels} if labels else {})))
    torch.manual_seed(len(case))
    maker = AutoModelForSequenceClassification if labels else AutoModel
    model = maker.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(at)
    return model


CORPUS = [
    "The quick brown fox jumps over the lazy dog. Hello world, how are you today?",
    "What is the capital of France? Paris is the capital of France. Berlin is a city in Germany.",
    "今天天气很好，我们去公园散步吧。你好，世界！法国的首都是哪里？法国的首都是巴黎。",
] * 4


def write_tokenizer(at: Path) -> None:
    """BERT's: WordPiece, Chinese characters apart, [CLS] and [SEP] around, the second text of another type; with the cuts and
    the padding that sentence-transformers leaves in its files."""
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    t.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=VOCAB, special_tokens=special, show_progress=False)
    )
    t.decoder = decoders.WordPiece()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    t.enable_truncation(8)
    t.enable_padding(length=8)
    t.save(str(at / "tokenizer.json"))
    (at / "tokenizer_config.json").write_text(json.dumps({"cls_token": "[CLS]", "sep_token": "[SEP]"}))


def write_encoder(at: Path, case: str = "bert", *, pooling: str = "", **files: Any) -> torch.nn.Module:
    """A model directory that embeds: `pooling` as sentence-transformers writes it ("mean_tokens"), `files` by their stems."""
    model = encoder_oracle(case, at)
    write_tokenizer(at)
    if pooling:
        steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        rows = [{"idx": i, "path": p, "type": f"sentence_transformers.models.{t}"} for i, (p, t) in enumerate(steps)]
        (at / "modules.json").write_text(json.dumps(rows))
        (at / "1_Pooling").mkdir()
        modes = ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
        settings = {f"pooling_mode_{mode}": mode == pooling for mode in modes}
        (at / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    for stem, content in files.items():
        old = json.loads((at / f"{stem}.json").read_text()) if (at / f"{stem}.json").exists() else {}
        (at / f"{stem}.json").write_text(json.dumps(old | content))
    return model
