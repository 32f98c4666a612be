"""Multi-token prediction: heads that say the tokens after the next one, which the engine takes as guesses and verifies, so that a
step yields several tokens (Medusa, Cai et al. 2024, arXiv:2401.10774). With the hidden state h_t, minimise

    -log p(x_t+1 | h_t)  -  weight sum_i decay^i log p_i(x_t+1+i | h_t)         i = 1 ... heads

With `frozen` the model stays as it is and the heads alone are learned (Medusa-1); else both are (Medusa-2; Gloeckle et al. 2024).
The model's own answers do not change by it: greedy ones are the same token for token. Do not expect a lower loss of small models.

The heads are ahead.safetensors in the model directory; a model without the file is the plain model. They guess where torch
computes (float32, bfloat16): the native kernels of packed weights keep their hidden states to themselves.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from myna.data import IGNORED
from myna.model import Decoder
from myna.model.ahead import FILE, MOST, Ahead, write_ahead
from myna.records import DataError
from myna.train.loss import bits_per_byte, counted, cross_entropy, summed
from myna.train.method import Method, Outcome, Tensors
from myna.train.next_token import next_token
from myna.train.offline import offline
from myna.train.ranges import Amount, Share, Within
from myna.train.setup import Setup
from myna.train.trainee import Trainee, publish_by, write_directory

DEFAULTS = {"optim": {"lr": 1e-3}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Of the heads.

    heads   how many tokens after the next are predicted
    weight  how much they count beside the next token; 0 is plain training
    decay   how much each counts of the one before it
    frozen  learn the heads alone
    """

    heads: Annotated[int, Within(1, MOST)] = 2
    weight: Amount = 0.2
    decay: Share = 0.8
    frozen: bool = False


class WithHeads(nn.Module):
    """All parameters of a run: the decoder's first, in their order, so that without a say of the heads all is as without them."""

    def __init__(self, decoder: Decoder, heads: Ahead):
        super().__init__()
        self.decoder, self.heads = decoder, heads


def prepare(setup: Setup) -> Method:
    options, config = check(setup.config.options), setup.config
    if config.lora.adapts:
        raise DataError("mtp trains heads, and an adapter's folder has no place for them: leave --lora.rank out")
    train, evals = setup.examples(setup.kind())
    trainee = setup.trainee = with_heads(setup.trainee, options, config.model.save)
    compute = partial(losses, trainee, options, setup.token_bytes)
    return offline(config, train, evals, compute, figures, setup.samples)


def check(options: Options) -> Options:
    """DataError for what cannot be."""
    if options.frozen and not options.weight:
        raise DataError("--mtp.frozen with --mtp.weight 0 learns nothing")
    return options


def with_heads(trainee: Trainee, options: Options, save: str) -> Trainee:
    """The trainee with heads, which it publishes in a file of their own."""
    decoder = trainee.decoder
    heads = Ahead(decoder.spec.width, options.heads).to(trainee.device)
    decoder.requires_grad_(not options.frozen)
    heads.requires_grad_(options.weight > 0)

    def writes(folder: Path) -> None:
        write_directory(decoder, trainee.fields, trainee.source, save, folder)
        write_ahead(heads, folder / FILE)

    return replace(trainee, module=WithHeads(decoder, heads), publish=partial(publish_by, writes))


def losses(trainee: Trainee, options: Options, token_bytes: Tensor, batch: Tensors) -> Outcome:
    """In units of weight of the next token, the heads' too, so that the sum is one loss."""
    module, decoder = trainee.module, trainee.decoder
    assert isinstance(module, WithHeads)
    if not options.weight:
        return next_token(trainee, token_bytes, batch)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not options.frozen):
        hidden = decoder(batch.ids, batch.positions, batch.memory)
        loss = cross_entropy(decoder, hidden, batch.targets, batch.weights)
    stats: dict[str, tuple[Tensor | float, float]] = {"cross_entropy": (loss.detach(), batch.units)}
    for number in range(options.heads):
        targets, weights = ahead(batch, number + 1)
        said, units = module.heads.hidden(hidden, number), float(weights.sum())
        missed = cross_entropy(decoder, said, targets, weights)
        stats[f"ahead_{number + 1}"] = (missed.detach(), units)
        loss = loss + options.weight * options.decay ** (number + 1) * missed
        if not torch.is_grad_enabled():
            stats[f"right_{number + 1}"] = (_right(decoder, said, targets, weights), units)
    if not torch.is_grad_enabled():
        wanted = batch.targets[batch.targets != IGNORED]
        stats["bytes_per_token"] = (token_bytes[wanted].sum(), batch.units)
    return Outcome(loss, batch.units, stats)


def ahead(batch: Tensors, by: int) -> tuple[Tensor, Tensor]:
    """Targets and weights [B, T] of the tokens so many after the next, of the same sequence."""
    targets, weights = torch.full_like(batch.targets, IGNORED), torch.zeros_like(batch.weights)
    same = batch.docs[:, by:] == batch.docs[:, :-by]
    targets[:, :-by] = torch.where(same, batch.targets[:, by:], IGNORED)
    weights[:, :-by] = torch.where(same, batch.weights[:, by:], 0.0)
    return targets, weights


def figures(means: dict[str, float]) -> dict[str, float]:
    """Bits per byte of the next token alone; the heads cost nothing in it."""
    return {"bits_per_byte": bits_per_byte(means.get("cross_entropy", means["loss"]), means["bytes_per_token"])}


def _right(decoder: Decoder, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """How much of the weight is on places where the likeliest token is the target."""

    def some(h: Tensor, t: Tensor, w: Tensor) -> Tensor:
        return ((decoder.logits(h).argmax(-1) == t) * w).sum()

    return summed(decoder, some, *counted(targets, hidden, targets, weights))
