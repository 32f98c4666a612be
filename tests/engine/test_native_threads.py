"""How many threads compute changes nothing but the speed."""

import pytest
import torch
from test_native import CONFIGS, packed_decoder, random_sequence, slice_of

from myna.engine.native import NativeStep
from myna.engine.pages import Pages
from myna.engine.request import Plan, Slice
from myna.kernels import build, library

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels here: nothing runs as a program")


@torch.inference_mode()
@pytest.mark.parametrize("config", ["llama", "qwen2, bias", "gemma2, caps and windows"])
def test_logits_are_bit_for_bit_those_of_one_thread(config: str) -> None:
    """A prefill of 300 tokens, then a step that mixes two decodes, one long, with a prefill."""
    # Large enough that every operation has something to share: small ones are done by one thread anyway.
    decoder = packed_decoder(CONFIGS[config] | {"intermediate_size": 2048, "vocab_size": 3001})

    def logits(threads: int) -> torch.Tensor:
        native = library()
        assert native is not None
        native.myna_threads(threads)
        step = NativeStep(decoder, Pages(decoder.spec, 64, decoder.kv_format))
        for buffer in (value for value in vars(step.buffers).values() if isinstance(value, torch.Tensor)):
            buffer.view(torch.uint8).fill_(77)  # memory given back and taken again may hold the right answer
        long, short, new = (
            random_sequence(299, [*range(30)], 1),
            random_sequence(40, [*range(30, 40)], 2),
            random_sequence(50, [*range(40, 50)], 3),
        )
        first = step.run(Plan((slice_of(long, 0, 298), Slice(short, 0, 39)))).clone()
        mixed = Plan((slice_of(long, 298, 299), slice_of(short, 39, 40), slice_of(new, 0, 50)))
        return torch.cat((first, step.run(mixed)))

    try:
        alone = logits(1)
        assert all(torch.equal(logits(threads), alone) for threads in (2, 3, 7))
    finally:
        native = library()
        assert native is not None
        native.myna_threads(build.threads())
