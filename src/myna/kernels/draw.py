"""Choosing tokens natively. Draw mirrors the struct in native/sample.h; engine/sample.py says in torch what it means."""

import ctypes
from ctypes import c_double, c_float, c_int32, c_int64, c_void_p

from torch import Tensor, float32

from myna.kernels.build import library


class Draw(ctypes.Structure):
    """A row of logits, how to choose from it, and what was chosen: `token`, -1 where the row holds NaN or infinity or
    nothing possible; `logprob`, where `wants_logprob`; the `found` likeliest, at most `tops`.

    tokens    address of int32 [count]: the prompt's `prompt` tokens and the answer so far; for the penalties alone
    mask      address of uint32 words: bit t % 32 of word t // 32 says whether token t may be chosen; 0 allows all
    uniform   the noise, in [0, 1)
    """

    _fields_ = (
        ("logits", c_void_p), ("tokens", c_void_p), ("bias_ids", c_void_p), ("biases", c_void_p),
        ("top_ids", c_void_p), ("top_logprobs", c_void_p), ("mask", c_void_p),
        ("count", c_int64), ("prompt", c_int64), ("biased", c_int64), ("top_k", c_int64), ("tops", c_int64),
        ("found", c_int64),
        ("temperature", c_double), ("top_p", c_double), ("min_p", c_double), ("uniform", c_double),
        ("repetition", c_float), ("presence", c_float), ("frequency", c_float), ("logprob", c_float),
        ("token", c_int32), ("wants_logprob", c_int32),
    )  # fmt: skip


def choose_rows(logits: Tensor, draws: "ctypes.Array[Draw]") -> None:
    """Fill in `token` of every draw, from contiguous float32 logits [rows, V]. They are written to and put back."""
    native = library()
    assert native is not None, "choosing natively needs the native library"
    assert logits.is_contiguous()
    assert (logits.dtype, len(logits)) == (float32, len(draws))
    first, stride = logits.data_ptr(), 4 * logits.shape[1]
    for row, draw in enumerate(draws):
        draw.logits = first + row * stride
    native.myna_choose(ctypes.addressof(draws), len(draws), logits.shape[1])
