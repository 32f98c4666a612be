"""What transformers saves, of every family: packed to 8 bits, it runs as a native program and says what the decoder says."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from family_cases import CASES, LENGTH, oracle
from myna.engine.native import why_not
from myna.engine.request import Plan, Request, Sequence, Slice
from myna.engine.runner import PagedRunner
from myna.kernels import library
from myna.model import Causal, load_model
from myna.modeldir import ModelDir
from myna.records import Sampling

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels here: nothing runs as a program")


@torch.inference_mode()
@pytest.mark.parametrize("case", CASES)
def test_the_program_says_what_the_decoder_says(case: str, tmp_path: Path) -> None:
    """The same rounded weights on both sides. Keys and values in bfloat16 turn a rounding of an input to 8 bits now and
    then: a few per cent of the logits' spread, where a wrong operation costs half of it."""
    oracle(case, tmp_path)
    decoder = load_model(ModelDir.open(tmp_path), "int8", LENGTH)
    assert why_not(decoder) is None
    runner, tokens = PagedRunner(decoder, 4), torch.randint(0, 97, (LENGTH,))
    exact = decoder.logits(decoder(tokens[None], torch.arange(LENGTH)[None], Causal()))[0]
    for start, stop in pairwise((0, 9, 10, 11, 16, 17, LENGTH)):
        part = Sequence(Request(0, tuple(tokens.tolist()), Sampling()), 0, tokens[:stop].tolist())
        part.blocks = [3, 1]
        got = runner.run(Plan((Slice(part, start, stop),)))[0]
        assert (got - exact[stop - 1]).std() < 0.06 * exact[stop - 1].std(), stop
