"""Heads that say more than the next token (Medusa, Cai et al. 2024, arXiv:2401.10774). Head i reads the hidden state h that
predicts the token at t + 1, and predicts the token at t + 1 + i:

    logits_i = head(h + silu(W_i h))

The output matrix is the model's own, so a head costs C^2 numbers; Medusa's have one each. W_i starts at 0, as Medusa's do:
then head i says what the model says. Without the heads the model is what it was, file and logits.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from myna.model.decoder import Decoder
from myna.model.linear import Linear
from myna.model.read import read_rows
from myna.modeldir import ModelDir
from myna.modeldir.safetensors import read_safetensors, write_safetensors
from myna.records import ModelDirError

FILE = "ahead.safetensors"  # beside model.safetensors
MOST = 16


class Ahead(nn.Module):
    """`count` heads for a model of this width."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.heads = nn.ModuleList(Linear(width, width) for _ in range(count))
        for head in self.layers():
            nn.init.zeros_(head.weight)

    def __len__(self) -> int:
        return len(self.heads)

    def layers(self) -> list[Linear]:
        return [head for head in self.heads if isinstance(head, Linear)]

    def hidden(self, hidden: Tensor, number: int) -> Tensor:
        """[..., C] -> [..., C], whose logits are those of head `number`, counted from 0."""
        found: Tensor = hidden + F.silu(self.heads[number](hidden))
        return found

    @torch.inference_mode()
    def guesses(self, decoder: Decoder, hidden: Tensor, count: int) -> list[int]:
        """The likeliest tokens of the first `count` heads at one place [C]."""
        ahead = torch.stack([self.hidden(hidden, number) for number in range(count)])
        found: list[int] = decoder.logits(ahead).argmax(-1).tolist()
        return found


def write_ahead(heads: Ahead, file: Path) -> None:
    """As FILE, float32."""
    arrays = {f"heads.{n}.weight": head.weight.detach().cpu().numpy() for n, head in enumerate(heads.layers())}
    with file.open("wb") as out:
        write_safetensors(out, arrays, {"format": "pt"})


def read_ahead(directory: ModelDir, width: int) -> Ahead | None:
    """The heads of a model directory, float32, without gradients; None if it has none. ModelDirError if they do not fit."""
    file = directory.path / FILE
    if not file.is_file():
        return None
    stored = read_safetensors(file)
    names = [f"heads.{n}.weight" for n in range(len(stored))]
    if len(stored) > MOST or any(name not in stored or stored[name].shape != (width, width) for name in names):
        raise ModelDirError(
            f"{file} holds no heads of a model of width {width}: expected heads.N.weight [{width}, {width}]"
        )
    heads = Ahead(width, len(stored))
    for name, head in zip(names, heads.layers(), strict=True):
        head.weight.data.copy_(read_rows(stored[name], slice(0, width)))
    return heads.requires_grad_(False).eval()
