"""What transformers saves, of every family: packed to 8 bits, it runs as a native program and says what the decoder says."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from native_cases import assert_alike, sequence, slice_of, wanted

from family_cases import CASES, LENGTH, oracle
from myna.engine.native import why_not
from myna.engine.request import Plan
from myna.engine.runner import PagedRunner
from myna.kernels import library
from myna.model import load_model
from myna.modeldir import ModelDir

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels here: nothing runs as a program")


@torch.inference_mode()
@pytest.mark.parametrize("case", CASES)
def test_the_program_says_what_the_decoder_says(case: str, tmp_path: Path) -> None:
    """The same rounded weights on both sides."""
    oracle(case, tmp_path)
    decoder = load_model(ModelDir.open(tmp_path), "int8", LENGTH)
    assert why_not(decoder) is None
    runner, whole = PagedRunner(decoder, 4), sequence(torch.randint(0, 97, (LENGTH,)).tolist(), [3, 1])
    exact, decided = wanted(decoder, whole.tokens)
    cuts = (0, 9, 10, 11, 16, 17, LENGTH)
    assert decided[[stop - 1 for stop in cuts[1:]]].any()
    for start, stop in pairwise(cuts):
        got = runner.run(Plan((slice_of(whole, start, stop),)))
        if decided[stop - 1]:
            assert_alike(got, exact[stop - 1 : stop])
