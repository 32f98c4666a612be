"""Numbers rounded to a packed format, with the scales that lose least of a few that are tried.

A group is rounded with each, the scale (and base) nearest to the rounded numbers is found by least squares, and the best of
them is refined twice in the same way. No text is needed for it. docs/log.md says what it gains.
"""

import ctypes
import math
from ctypes import c_float, c_int64, c_void_p
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from myna.kernels import reference
from myna.kernels.build import library
from myna.kernels.formats import GROUP, Format, Grouped
from myna.records import ModelDirError

LARGEST = 65504.0  # of float16, in which scales and bases are kept


class Fit(ctypes.Structure):
    """Mirrors the struct in native/fit.h."""

    _fields_ = (
        ("x", c_void_p), ("scale", c_void_p), ("base", c_void_p), ("tries", c_void_p),
        ("groups", c_int64), ("columns", c_int64), ("count", c_int64),
        ("low", c_float), ("high", c_float), ("most", c_float),
    )  # fmt: skip


@cache
def tries(format: Format) -> Tensor:
    """What is tried, float32 [n, 2]: into how many steps a group's range is cut, and what is added before rounding. Where
    there is no base the range reaches from 0 to the number of largest size, which becomes minus so many steps."""
    if not format.zero:
        return torch.tensor([(15 + more, at - more / 2) for more in (-1.0, 0.5, 2.0) for at in (-0.33, 0.0, 0.33)])
    if format.bits == 4:  # 7 steps the other way round: the numbers reach from -8 to 7
        return torch.tensor([(-steps, 0.0) for steps in (6.6, 7.0, 7.3, 7.6, 8.0, 8.4, -7.0, -7.4)])
    return torch.tensor([(-format.zero * (1 - less / 128), 0.0) for less in range(12)])


def quantize(rows: Tensor, format: Format) -> Grouped:
    """float32 [n, K] -> the numbers of a format that are nearest. Sizes below 3e-8 become 0, as do those below half a step
    of their group. ModelDirError where a weight is no number or beyond float16."""
    least, most = torch.aminmax(rows)
    if not (least >= -LARGEST and most <= LARGEST):  # so that NaN is refused too
        raise ModelDirError("a weight is infinite, not a number, or too large to be quantized; load it as float32.")
    groups = -(-rows.shape[1] // GROUP)
    columns = -(-groups // format.span) * format.span * GROUP
    x = F.pad(rows, (0, columns - rows.shape[1])).view(-1, format.shared).contiguous()
    ends, whole = fit(x, format), None
    if format.inner:
        scales, whole, ends = _in_whole_numbers(ends.view(-1, GROUP * format.span // format.shared, 2), format)
        whole = whole.reshape(len(rows), -1, 2)[:, :groups]
    else:
        scales = torch.cat((_halves(ends[:, :1]), ends[:, 1:].half()), dim=1)
        ends = scales.float()
    scale, base = ends.reshape(-1, 2, 1).unbind(1)
    q = (x - base).mul_(torch.where(scale == 0, 0, 1 / scale)).round_().add_(format.zero)
    q = q.clamp_(0, (1 << format.bits) - 1).to(torch.uint8).view(len(rows), -1, GROUP)[:, :groups]
    return Grouped(q, scales.reshape(len(rows), -1, 2)[..., : 1 if format.zero else 2], whole)


def fit(x: Tensor, format: Format) -> Tensor:
    """Groups [m, C], C 16, 32, 64 or 128, -> their scales and bases, float32 [m, 2], bases 0 where the format has none."""
    most = 0.0 if format.inner else math.inf  # q4k subtracts its base, which is not negative
    low, high = -format.zero, (1 << format.bits) - 1 - format.zero
    native = library()
    if native is None:
        return reference.fit(x, tries(format), low, high, None if format.zero else most)
    ends = torch.zeros(2, len(x))
    scale, base = ends.unbind()
    given = tries(format)
    native.myna_fit(
        ctypes.byref(
            Fit(
                x.data_ptr(), scale.data_ptr(), 0 if format.zero else base.data_ptr(), given.data_ptr(),
                *x.shape, len(given), low, high, most,
            )
        )
    )  # fmt: skip
    return ends.T


def _in_whole_numbers(ends: Tensor, format: Format) -> tuple[Tensor, Tensor, Tensor]:
    """Scales and bases [s, n, 2] -> d and m float16 [s, 2], whole numbers uint8 [s, n, 1 or 2], what they stand for."""
    sign = ends.new_tensor((1, -1))
    zero, least, most = (128, -127, 127) if format.zero else (0, 0, 255)
    sizes = (ends * sign).clamp_min_(-math.inf if format.zero else 0)
    outer = _halves(sizes.abs().amax(1, keepdim=True) / most)
    step = outer.float()
    whole = torch.where(step == 0, 0, sizes / step).round_().clamp_(least, most)
    stored = (whole + zero).to(torch.uint8)
    return outer.squeeze(1), stored[..., :1] if format.zero else stored, whole * step * sign


def _halves(x: Tensor) -> Tensor:
    """Nearest float16; away from 0 below 2^-14, where its steps are coarse and too small a scale would cut numbers off."""
    up = torch.copysign((x.abs() * 2.0**24).ceil() * 2.0**-24, x)
    return torch.where(x.abs() < 2.0**-14, up, x).half()
