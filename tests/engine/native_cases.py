"""What a native program must say, and when it said it."""

import torch
from torch import Tensor, nn

from myna.engine.request import Request, Sequence, Slice
from myna.model import Causal, Decoder
from myna.model.moe import Experts
from myna.records import Sampling


def sequence(tokens: list[int], blocks: list[int], seed: int = 0) -> Sequence:
    made = Sequence(Request(seed, tuple(tokens), Sampling()), 0, tokens)
    made.blocks = blocks
    return made


def slice_of(whole: Sequence, start: int, stop: int) -> Slice:
    """A slice that samples: the sequence as it was when `stop` was its end."""
    part = Sequence(whole.request, 0, whole.tokens[:stop])
    part.blocks = whole.blocks
    return Slice(part, start, stop)


@torch.inference_mode()
def wanted(decoder: Decoder, tokens: list[int]) -> tuple[Tensor, Tensor]:
    """The decoder's logits [T, V] of every position, and whether it is decided there [T]: that no router finds the last
    expert it takes and the first it leaves alike within 0.1. There the smallest difference takes the other one."""
    decided = torch.ones(len(tokens), dtype=torch.bool)

    def look(experts: Experts, scores: Tensor) -> None:
        if experts.top_k < scores.shape[1]:
            best = scores.sort(dim=-1, descending=True)[0]
            decided.logical_and_(best[:, experts.top_k - 1] - best[:, experts.top_k] > 0.1)

    def watch(experts: Experts) -> None:
        experts.router.register_forward_hook(lambda _router, _x, scores: look(experts, scores))

    for module in decoder.modules():
        if isinstance(module, Experts):
            watch(module)
    logits = decoder.logits(decoder(torch.tensor([tokens]), torch.arange(len(tokens))[None], Causal()))[0]
    unwatch(decoder)
    return logits, decided


def unwatch(model: nn.Module) -> None:
    for module in model.modules():
        module._forward_hooks.clear()


def assert_alike(got: Tensor, exact: Tensor, within: float = 0.08) -> None:
    """Rounding a step's numbers to 8 bits turns the smallest difference (keys and values in bfloat16, another order of
    sums) into one of up to half a step now and then: 3 % of the logits' spread, 6 % of a mixture's. A wrong operation costs 50 % and
    more."""
    assert ((got - exact).std(-1) < within * exact.std(-1)).all(), ((got - exact).std(-1) / exact.std(-1)).max()
