"""Models that answer with numbers instead of words: what they make of a batch, and how one is begun and written.

A decoder's head reads the last token of a text, an encoder's the first; both are transformers' *ForSequenceClassification.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from myna.chat import Chat
from myna.model import Classifier, Decoder, Encoder
from myna.model.encoder import Score
from myna.model.load import parts_of
from myna.model.read import read_rows
from myna.modeldir import ModelDir
from myna.records import DataError
from myna.train.method import Tensors
from myna.train.setup import Setup
from myna.train.trainee import Trainee, publish_by, write_directory

ONE = "LABEL_0"  # transformers' name of an output that has none


def hidden_rows(model: Decoder | Encoder, batch: Tensors) -> tuple[Tensor, Tensor]:
    """The hidden rows [N, C] of a batch's sequences, one after the other, and the length of each [sequences]."""
    mine = batch.docs >= 0
    lengths = torch.bincount(batch.docs[mine], minlength=batch.sequences)
    if isinstance(model, Decoder):
        return model(batch.ids, batch.positions, batch.memory)[mine], lengths
    ids = batch.ids[mine]
    return model(ids, torch.zeros_like(ids), lengths.tolist()), lengths


def outputs(module: nn.Module, batch: Tensors) -> Tensor:
    """What the head says of each sequence [sequences, labels]."""
    if isinstance(module, Classifier):
        rows, lengths = hidden_rows(module.decoder, batch)
        last: Tensor = module(rows[lengths.cumsum(0) - 1])
        return last
    assert isinstance(module, Encoder)
    assert module.score is not None
    rows, lengths = hidden_rows(module, batch)
    return module.score(rows[lengths.cumsum(0) - lengths])


def give_head(setup: Setup, labels: Sequence[str]) -> None:
    """The setup's trainee becomes one with a head of an output for each of `labels`, or of one output if there are none: its
    own, if it has one, else a new one. Raises DataError for a head with other labels, and for LoRA, whose files hold no head."""
    if setup.config.lora.adapts:
        raise DataError(
            f"lora.{'rank' if setup.config.lora.rank else 'start'}: a head is trained with all weights, and PEFT's files would not hold it; leave it out"
        )
    trainee, precision = setup.trainee, setup.config.model.save
    module = _own_head(trainee, labels)
    if module is None:
        torch.manual_seed(setup.config.run.seed)
        if isinstance(trainee.model, Decoder):
            module = Classifier(trainee.model, len(labels) or 1)
        else:
            module = _with_score(trainee.model, len(labels) or 1, trainee.source)
    module.to(trainee.device).train()
    fields = trainee.fields | _described(trainee, labels)
    writes = partial(write_directory, module, fields, trainee.source, precision)
    setup.trainee = replace(trainee, module=module, publish=partial(publish_by, writes), fields=fields)


def _own_head(trainee: Trainee, labels: Sequence[str]) -> Classifier | Encoder | None:
    """The trainee with the head that it was started with; None if it has none. DataError if that says something else."""
    module = trainee.module
    if not isinstance(module, Classifier) and (not isinstance(module, Encoder) or module.score is None):
        return None
    named = trainee.fields.get("id2label") or {}
    own, wanted = [str(named[number]) for number in sorted(named, key=int)], [*labels] or [ONE]
    if own != wanted:
        raise DataError(
            f"model.start: {trainee.name} has a head for {', '.join(own[:8]) or 'nothing named'}, and this run learns "
            f"{', '.join(wanted[:8])}. Start from the model that it was made of, or take rows with its labels."
        )
    return module


def _with_score(encoder: Encoder, labels: int, source: Path) -> Encoder:
    """The encoder with a head; its first layer is the one that it was pretrained with (BERT's pooler), if it has it."""
    assert encoder.spec.encoder is not None
    encoder.spec = replace(encoder.spec, encoder=replace(encoder.spec.encoder, labels=labels))
    encoder.score = Score(encoder.spec.width, labels)
    stored = ModelDir.open(source).weights if source.joinpath("config.json").exists() else {}
    for part in parts_of(encoder.spec):
        if part.path.startswith("score.dense.") and (known := stored.get(part.name)) is not None:
            encoder.get_parameter(part.path).data.copy_(read_rows(known, slice(None)).view(part.shape))
    return encoder


def _described(trainee: Trainee, labels: Sequence[str]) -> dict[str, Any]:
    """What config.json says of the head."""
    names = dict(enumerate(labels or [ONE]))
    kind = {"problem_type": "single_label_classification"} if labels else {}
    padding = {} if isinstance(trainee.model, Encoder) else {"pad_token_id": _padding(trainee.chat)}
    return {
        "architectures": [_architecture(trainee)],
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
        **padding,
        **kind,
    }


def _architecture(trainee: Trainee) -> str:
    """LlamaForCausalLM, GPT2LMHeadModel, BertModel or BertForMaskedLM -> ...ForSequenceClassification"""
    named = str((trainee.fields.get("architectures") or [trainee.model.spec.family.title()])[0])
    stem = named.partition("For")[0].removesuffix("LMHeadModel").removesuffix("Model")
    return stem + "ForSequenceClassification"


def _padding(chat: Chat) -> int | None:
    """A token that ends no text: transformers looks for the last token that is not padding."""
    if chat is None:
        return None
    ends = {*chat.tokenizer.eos_ids, *chat.stop_ids}
    free = {name: id for name, id in chat.tokenizer.special.items() if id not in ends}
    padding = [id for name, id in free.items() if "pad" in name.lower()]
    return next(iter([*padding, *free.values()]), None)
