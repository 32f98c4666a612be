"""Texts through an encoder or a decoder, and what is made of their hidden rows: a vector a text, or a score a pair."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from myna.model.decoder import Decoder
from myna.model.encoder import Encoder
from myna.model.memory import Apart, Cache

CHUNK = 512  # tokens of a long text that a decoder computes at once: what is wide in an MLP stays small


class Text(Protocol):
    """A text's token ids and their types; at least one."""

    @property
    def ids(self) -> tuple[int, ...]: ...

    @property
    def kinds(self) -> tuple[int, ...]: ...


@torch.inference_mode()
def pooled(model: Encoder | Decoder, how: str, texts: Sequence[Text]) -> list[np.ndarray]:
    """float32 [C] of each text: the mean of its hidden rows, the first (cls) or the last."""
    return [_pool(rows, how).numpy() for rows in hidden_rows(model, texts)]


@torch.inference_mode()
def scored(encoder: Encoder, texts: Sequence[Text]) -> list[float]:
    """The sigmoid of a cross-encoder's one output for each pair that a text frames."""
    assert encoder.score is not None
    first = torch.stack([rows[0] for rows in hidden_rows(encoder, texts)])
    # Pair by pair: a product of several rows rounds by how many they are.
    return [float(torch.sigmoid(encoder.score(row)[0])) for row in first]


def hidden_rows(model: Encoder | Decoder, texts: Sequence[Text]) -> list[Tensor]:
    """float32 [T, C] of each text, in order."""
    if isinstance(model, Encoder):
        lengths = [len(text.ids) for text in texts]
        ids, kinds = (torch.tensor([x for row in rows for x in row]) for rows in zip(*_columns(texts), strict=True))
        return [*model(ids, kinds, lengths).split(lengths)]
    short = [text for text in texts if len(text.ids) <= CHUNK]
    together = iter(_together(model, short)) if short else iter(())
    return [next(together) if len(text.ids) <= CHUNK else _in_chunks(model, text) for text in texts]


def _columns(texts: Sequence[Text]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(text.ids, text.kinds) for text in texts]


def _together(model: Decoder, texts: Sequence[Text]) -> Sequence[Tensor]:
    lengths = [len(text.ids) for text in texts]
    ids = torch.tensor([id for text in texts for id in text.ids])
    positions = torch.cat([torch.arange(length) for length in lengths])
    return model(ids, positions, Apart(lengths, causal=True)).split(lengths)


def _in_chunks(model: Decoder, text: Text) -> Tensor:
    memory = Cache(model.spec, 1, len(text.ids))
    ids = torch.tensor([text.ids])
    cuts = [slice(at, min(at + CHUNK, len(text.ids))) for at in range(0, len(text.ids), CHUNK)]
    return torch.cat([model(ids[:, cut], torch.arange(cut.start, cut.stop)[None], memory)[0] for cut in cuts])


def _pool(rows: Tensor, how: str) -> Tensor:
    match how:
        case "mean":
            return rows.mean(0)
        case "cls":
            return rows[0]
        case "last":
            return rows[-1]
    raise AssertionError(how)
