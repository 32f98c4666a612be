"""A whole step on ARM: NEON bit for bit what portable C++ says there, and both what the decoder says."""

from functools import partialmethod

import pytest
import torch
from native_cases import assert_alike, slice_of, wanted
from test_native import CONFIGS, NEWER, packed_decoder, random_sequence

import emulated
from myna.engine.native import NativeStep
from myna.engine.pages import Pages
from myna.engine.request import Plan
from myna.kernels import Program

pytestmark = [pytest.mark.slow, emulated.needs_emulator]


def run_at(program: Program, level: str, step: NativeStep) -> None:
    emulated.run(level, program, step.step)


@torch.inference_mode()
@pytest.mark.parametrize("kept", ["bfloat16", "int8"])
@pytest.mark.parametrize("config", ["gemma2, caps and windows", "phi3, part of a head turned", *NEWER])
def test_a_step_on_neon_is_the_portable_one(config: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt in two chunks beside another, then a token each, one of them after long enough to be attended in parts."""
    decoder, found = packed_decoder(CONFIGS[config], kept), {}
    one, two = random_sequence(40, [3, 0, 5], 1), random_sequence(300, list(range(6, 25)), 2)
    expected = [wanted(decoder, whole.tokens) for whole in (one, two)]
    for level in emulated.LEVELS:
        step = NativeStep(decoder, Pages(decoder.spec, 25, decoder.kv_format))
        for buffer in vars(step.buffers).values():
            if isinstance(buffer, torch.Tensor):
                buffer.zero_()
        monkeypatch.setattr("myna.kernels.Program.run", partialmethod(run_at, level, step))
        plans = [[(one, 0, 20), (two, 0, 299)], [(one, 20, 39)], [(one, 39, 40), (two, 299, 300)]]
        for plan in plans:
            logits = step.run(Plan(tuple(slice_of(*piece) for piece in plan)))
        found[level] = logits.clone(), step.pages.keys, step.pages.values
    for neon, portable in zip(*found.values(), strict=True):
        assert torch.equal(neon, portable)
    for row, (exact, decided) in enumerate(expected):
        if decided[-1]:
            assert_alike(found["neon"][0][row], exact[-1])
