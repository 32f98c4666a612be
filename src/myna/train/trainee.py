"""What is trained, and how it becomes a model directory again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from myna.chat import Chat
from myna.model import Classifier, Decoder, Encoder, load_classifier, load_encoder, load_model, write_model
from myna.model.config import Config as ModelConfig
from myna.model.families import read_spec
from myna.model.linear import Linear
from myna.model.load import SCORE
from myna.modeldir import ModelDir, find, publish
from myna.modeldir.publish import sha256
from myna.records import DataError
from myna.train.balance import contexts
from myna.train.config import Model
from myna.train.shape import shape

WEIGHTS = (".safetensors", ".gguf")  # what a model's numbers are in
# What of a model directory goes unchanged into the one that is made of it.
CARRIED = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
           "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "chat_template.jinja")  # fmt: skip


@dataclass
class Trainee:
    """`module` holds every parameter, trained or frozen; `model` is the decoder or encoder in it, `chat` its tokenizer and
    template.

    name      what it was made from
    publish   makes a model directory, or an adapter's, of it: (place, lineage) -> place
    source    the directory that its tokenizer is of
    fields    its config.json
    """

    module: nn.Module
    model: Decoder | Encoder
    chat: Chat
    name: str
    publish: Callable[[Path, dict[str, Any]], Path]
    source: Path = Path()
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def decoder(self) -> Decoder:
        """DataError if it is an encoder, or has a head in the place of words."""
        if isinstance(self.module, Classifier):
            raise DataError(f"{self.name} is a classifier: classify and reward go on from it, and nothing else does.")
        if not isinstance(self.model, Decoder):
            raise DataError(
                f"{self.name} is an encoder ({self.model.spec.family}): classify and contrastive train those."
            )
        return self.model

    def trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def computing(self, precision: str) -> torch.autocast:
        """A context in which products are computed in this precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16")


def make_trainee(config: Model, context: int, seed: int, base: str = "float32") -> Trainee:
    """A decoder or an encoder in float32 with every weight to be trained, or a decoder with weights kept as `base`, beside which
    adapters are trained.

    Raises DataError, ModelDirError."""
    if bool(config.start) == bool(config.depth):
        raise DataError(
            "a run starts from a model (--model.start NAME) or makes a new one (--model.depth 4 --model.tokenizer DIR): "
            f"{'both are' if config.start else 'neither is'} given."
        )
    trainee = _load(config, context, base) if config.start else _new(config, context, seed)
    trainee.module.requires_grad_(True).train()
    if config.recompute:
        recompute(trainee.model)
    return trainee


def recompute(model: Decoder | Encoder) -> None:
    """Keep only each layer's input for the way back, and compute the rest again."""
    for block in model.layers:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, context_fn=contexts)


def translate(model: Decoder | Encoder) -> None:
    """Each layer by torch.compile, once for all lengths and all layers: of its own sizes each would take a minute again.

    Raises DataError for experts, and where there is nothing to translate with."""
    if model.spec.moe:
        raise DataError("model.compile: how many rows an expert gets is known only as it gets them. Leave it out")
    try:
        torch.compile(torch.sin)(torch.ones(2, device=next(model.parameters()).device))
    except Exception as e:
        reason = str(e).strip().partition("\n")[0]
        raise DataError(
            f"model.compile: torch.compile does not work here ({reason}). Leave it out, or see `c++ --version`"
        ) from e
    for block in model.layers:
        block.compile(dynamic=True)


def _load(config: Model, context: int, base: str) -> Trainee:
    place = find(config.start)
    directory, chat = ModelDir.open(place), Chat.load(place)
    spec = read_spec(ModelConfig(directory.config, str(place / "config.json")))
    check_vocabulary(chat.tokenizer.vocab_size, spec.vocab, directory.name)
    if spec.encoder:
        module: Decoder | Encoder | Classifier = load_encoder(directory, "float32")
    elif SCORE in directory.weights:
        module = load_classifier(directory, "float32")
    else:
        module = load_model(directory, "auto" if base == "stored" else base)
    model = module.decoder if isinstance(module, Classifier) else module
    if context > model.max_len:
        raise DataError(f"data.context is {context}, and {directory.name} reaches to {model.max_len} tokens.")
    return replace(_trainee(model, chat, directory.name, config.save, place, directory.config), module=module)


def check_vocabulary(tokens: int, rows: int, name: str) -> None:
    """DataError if the tokenizer has tokens that the embedding has no rows for. Rows to spare are common: padding."""
    if tokens > rows:
        raise DataError(
            f"{name}: its tokenizer knows {tokens:,} tokens, and its embedding has {rows:,} rows: the last {tokens - rows:,} have no "
            "numbers. Were tokens added to the tokenizer alone? Take the tokenizer that belongs to the model, or give the "
            "embedding their rows (transformers: model.resize_token_embeddings) before training."
        )


def _new(config: Model, context: int, seed: int) -> Trainee:
    if not config.tokenizer:
        raise DataError("a new model needs a tokenizer: --model.tokenizer DIR. `myna tokenizer train` makes one.")
    place = find(config.tokenizer)
    chat = Chat.load(place)
    fields = shape(config.depth, vocab=chat.tokenizer.vocab_size, context=context, experts=config.experts)
    decoder = Decoder(read_spec(ModelConfig(fields)))
    initialize(decoder, seed)
    return _trainee(decoder, chat, f"depth {config.depth}", config.save, place, fields)


def hashes(folder: Path) -> dict[str, str]:
    """File -> hash, of what a model's or an adapter's numbers are in."""
    configs = ("config.json", "adapter_config.json")
    files = (file for file in sorted(folder.iterdir()) if file.suffix in WEIGHTS or file.name in configs)
    return {str(file): sha256(file) for file in files}


@torch.no_grad()
def initialize(decoder: Decoder, seed: int) -> None:
    """New weights: normal, of a size that keeps that of what goes through (Glorot and Bengio 2010), embeddings 0.02; what a
    layer adds to the residual stream starts at 0, so that each layer begins as the identity (Zhang et al. 2019)."""
    drawn = torch.Generator().manual_seed(seed)
    for name, module in decoder.named_modules():
        if isinstance(module, Linear):
            table = name in ("embed", "head", "places")
            std = 0.02 if table else module.weight.shape[1] ** -0.5
            adds = name.endswith(("attention.out", "down"))
            module.weight.copy_(torch.zeros_like(module.weight) if adds else
                                torch.randn(module.weight.shape, generator=drawn) * std)  # fmt: skip
            if module.bias is not None:
                module.bias.zero_()


def _trainee(
    model: Decoder | Encoder, chat: Chat, name: str, precision: str, source: Path, fields: dict[str, Any]
) -> Trainee:
    writes = partial(write_directory, model, fields, source, precision)
    return Trainee(model, model, chat, name, partial(publish_by, writes), source, fields)


def publish_by(writes: Callable[[Path], None], place: Path, lineage: dict[str, Any]) -> Path:
    """A model directory of what `writes` puts into an empty folder."""
    return publish(place, writes, lineage, replace=True)


def write_directory(
    model: Decoder | Encoder | Classifier, config: dict[str, Any], source: Path, precision: str, folder: Path
) -> None:
    """A model directory of the model: its config, its weights, and the tokenizer and template of `source`."""
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": precision}, indent=2) + "\n")
    for name in CARRIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    write_model(model, folder, precision)
