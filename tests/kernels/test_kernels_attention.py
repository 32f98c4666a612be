"""Keys and values in pages, and attention over them: against float64, and a row against itself however it is computed."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from kernel_cases import LEVELS, native, needs_compiler
from torch import Tensor

from myna.kernels import PageFormat, Program, Step
from myna.kernels.pages import BLOCK

pytestmark = [needs_compiler, pytest.mark.parametrize("level", LEVELS)]
KEPT = ["bfloat16", "int8"]
PART = 256  # as in native/attention.h
HEADS = [(6, 2, 64), (4, 4, 16), (8, 1, 48), (2, 1, 128), (40, 1, 16), (3, 3, 24), (14, 2, 80)]  # H, K, D


def pages(slots: int, kv: int, format: PageFormat) -> tuple[Tensor, Tensor]:
    """Random, of so many slots."""
    keys, values = torch.zeros(slots // BLOCK, 3, 2, kv, format.nbytes, dtype=torch.uint8)[:, 1].unbind(1)
    format.write(
        keys, values, torch.arange(slots), torch.randn(slots, kv, format.dim), torch.randn(slots, kv, format.dim)
    )
    return keys, values


def read(keys: Tensor, values: Tensor, format: PageFormat, blocks: np.ndarray) -> tuple[Tensor, Tensor]:
    """k and v [slots, K, D] of these blocks."""
    found = format.read(keys, values, torch.from_numpy(blocks.astype(np.int64)))
    return found[0].transpose(1, 2).flatten(0, 1), found[1].transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize("half", [0, 8, 20, 24])
@pytest.mark.parametrize("norms", [True, False])
def test_place_turns_a_row(level: str, norms: bool, half: int) -> None:
    format = PageFormat("bfloat16", 48)
    qkv, (keys, values) = torch.randn(3, 8 * 48), pages(64, 2, format)
    weights = (torch.rand(48) + 0.5, torch.rand(48) + 0.5)
    cos, sin = (f(torch.arange(40.0)[:, None] * torch.rand(half)) for f in (torch.cos, torch.sin))
    positions, slots = np.array([5, 39, 0]), np.array([63, 0, 17])
    q, k, v = qkv.clone().double().unflatten(1, (8, 48)).split((4, 2, 2), dim=1)
    if norms:
        q, k = (torch.nn.functional.rms_norm(x, (48,), w.double(), 0.3) for x, w in zip((q, k), weights, strict=True))

    def turned(x: Tensor) -> Tensor:
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        c, s = cos[positions].double().unsqueeze(1), sin[positions].double().unsqueeze(1)
        return torch.cat((a * c - b * s, b * c + a * s, rest), -1)

    step, program = Step(3), Program()
    step.set([0] * 3, positions, slots, [], [], [])
    angles = (cos, sin) if half else None
    program.place(step, qkv, keys, values, format, (4, 2), angles, weights if norms else None, 0.3)
    with native(level):
        program.run()
    torch.testing.assert_close(qkv.unflatten(1, (8, 48))[:, :4].double(), turned(q), rtol=1e-5, atol=1e-5)
    stored_k, stored_v = read(keys, values, format, np.arange(4))
    torch.testing.assert_close(stored_k[slots].double(), turned(k), rtol=2**-8, atol=1e-5)
    assert torch.equal(stored_v[slots], v.bfloat16())


@pytest.mark.parametrize("dim", [16, 24, 64, 80])
@pytest.mark.parametrize("kept", KEPT)
def test_what_place_stores_is_what_torch_stores_bit_for_bit(level: str, kept: str, dim: int) -> None:
    format, rows = PageFormat(kept, dim), 40
    k, v = (torch.randn(rows, 3, dim) * torch.logspace(-6, 6, rows)[:, None, None] for _ in range(2))
    k[3], v[3], k[4, 0, 0], v[5, 1, -1], v[6] = 0, 1e-37, torch.inf, torch.nan, 3e38
    qkv = torch.cat((torch.randn(rows, 6, dim), k, v), 1).flatten(1)
    slots = np.random.default_rng(0).permutation(80)[:rows]
    keys, values = pages(80, 3, format)
    expected = keys.clone(), values.clone()
    format.write(*expected, torch.from_numpy(slots), k, v)
    step, program = Step(rows), Program()
    step.set([0] * rows, [0] * rows, slots, [], [], [])
    program.place(step, qkv, keys, values, format, (6, 3), None)
    with native(level, threads=3):
        program.run()
    for got, exact in zip((keys, values), expected, strict=True):
        differs = got != exact
        if kept == "bfloat16":  # which NaN it is does not matter
            differs &= ~(got.view(torch.bfloat16).isnan() & exact.view(torch.bfloat16).isnan()).repeat_interleave(2, -1)
        assert not differs.any()


@pytest.mark.parametrize("kept", KEPT)
def test_int8_pages_take_half_the_memory_and_a_step_of_a_127th(level: str, kept: str) -> None:
    format, k, v = PageFormat(kept, 64), torch.randn(32, 2, 64), torch.randn(32, 2, 64)
    keys, values = pages(32, 2, format)
    format.write(keys, values, torch.arange(32), k, v)
    got_k, got_v = (x.float() for x in read(keys, values, format, np.arange(2)))
    assert format.nbytes == BLOCK * (2 * 64 if kept == "bfloat16" else 64 + 4)
    bound = 2**-8 if kept == "bfloat16" else 1.01 / 127 / 2
    assert ((got_v - v).abs() <= bound * v.abs().amax(-1, keepdim=True)).all()
    # Mixed keys are off by as much in the mean square, not number by number.
    assert (got_k - k).square().mean().sqrt() <= bound * k.abs().amax(-1).mean()


def attention(
    q: Tensor, k: Tensor, v: Tensor, start: int, scale: float, window: int | None, cap: float | None
) -> Tensor:
    """q [T, H, D] at positions from `start` over k, v [S, K, D]: float64 [T, H, D], q rounded to bfloat16."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.double().repeat_interleave(group, 1) for x in (k, v))
    scores = torch.einsum("thd,shd->hts", q.double(), k) * scale
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    far = (torch.arange(len(q)) + start)[:, None] - torch.arange(len(k))
    seen = (far >= 0) & (far < (window or len(k)))
    return torch.einsum("hts,shd->thd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


class Case:
    """Sequences over pages of one layer, their blocks scattered; attention of any of their rows."""

    def __init__(self, heads: tuple[int, int, int], kept: str, lengths: list[int], rule: tuple = (None, None)):
        torch.manual_seed(sum(heads))
        self.heads, self.format, self.rule = heads[:2], PageFormat(kept, heads[2]), rule
        self.q = [torch.randn(length, heads[0] * heads[2]) for length in lengths]
        count = sum(-(-length // BLOCK) for length in lengths)
        self.keys, self.values = pages(BLOCK * count, heads[1], self.format)
        blocks = np.random.default_rng(0).permutation(count).astype(np.int32)
        ends = np.cumsum([0] + [-(-length // BLOCK) for length in lengths])
        self.blocks = [blocks[a:b] for a, b in pairwise(ends)]

    def attend(self, spans: list[tuple[int, int, int]]) -> list[Tensor]:
        """For each (sequence, start, stop): float32 [stop - start, H * D], all computed in one step."""
        rows = sum(stop - start for _, start, stop in spans)
        qkv = torch.full((rows, (self.heads[0] + 2 * self.heads[1]) * self.format.dim), torch.nan)
        out = torch.full((rows + 1, self.heads[0] * self.format.dim), 7.0)
        row, used, sequences, tables, positions = 0, 0, [], [], []
        for which, start, stop in spans:
            sequences.append((row, stop - start, start, used))
            qkv[row : row + stop - start, : out.shape[1]] = self.q[which][start:stop]
            tables.append(self.blocks[which][: -(-stop // BLOCK)])
            positions += range(start, stop)
            row, used = row + stop - start, used + len(tables[-1])
        step, program = Step(max(rows, 1)), Program()
        # On the heap by itself, so that the sanitizer sees a read of a block that is not there.
        step.set([0] * rows, positions, [0] * rows, [], sequences, np.concatenate([np.empty(0, np.int32), *tables]))
        scale = self.format.dim**-0.5
        program.attend(step, qkv, self.keys, self.values, self.format, out, self.heads, scale, *self.rule)
        program.run()
        assert (out[-1] == 7).all(), "written outside"
        return list(out[:-1].split([stop - start for _, start, stop in spans]))

    def exact(self, which: int, start: int, stop: int) -> Tensor:
        k, v = (x[:stop] for x in read(self.keys, self.values, self.format, self.blocks[which]))
        q = self.q[which][start:stop].unflatten(1, (self.heads[0], -1))
        q = q.bfloat16() if self.format.kept == "bfloat16" else q
        return attention(q, k, v, start, self.format.dim**-0.5, *self.rule).flatten(1)


RULES = [(None, None), (1, None), (50, 5.0), (300, None)]  # window, softcap


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("kept", KEPT)
def test_attention_over_pages_is_float64s(level: str, kept: str, heads: tuple[int, int, int], rule: tuple) -> None:
    """Decodes short and long, prefills whole and in the middle. Weights are rounded to bfloat16 beside bfloat16 values; of
    int8 pages the queries are rounded to 8 bits, which is by far the larger error."""
    lengths = [1, 131, PART * 3, 70, 100, PART]
    spans = [(0, 0, 1), (1, 130, 131), (2, PART * 3 - 1, PART * 3), (3, 0, 70), (4, 61, 100), (5, PART - 1, PART)]
    case = Case(heads, kept, lengths, rule)
    with native(level, threads=3):
        got = case.attend(spans)
    for rows, span in zip(got, spans, strict=True):
        bound = 2**-8 if kept == "bfloat16" else 0.06
        torch.testing.assert_close(rows.double(), case.exact(*span), rtol=bound, atol=bound)
        assert (rows.double() - case.exact(*span)).square().mean().sqrt() < bound / 4


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("heads", [(6, 2, 64), (4, 4, 24), (14, 2, 48)])
@pytest.mark.parametrize("kept", KEPT)
def test_a_row_is_bit_for_bit_the_same_however_it_is_computed(
    level: str, kept: str, heads: tuple[int, int, int], rule: tuple
) -> None:
    """Alone, in a prefill, in chunks cut anywhere, beside other sequences, on any number of threads."""
    length = 2 * PART + 90
    case = Case(heads, kept, [length, 300, 40], rule)
    with native(level, threads=1):
        (whole,) = case.attend([(0, 0, length)])
        some = [*range(0, length, 23), 63, 64, 65, PART - 1, PART, PART + 1, 2 * PART, length - 1]
        alone = torch.cat([case.attend([(0, at, at + 1)])[0] for at in some])
    assert torch.equal(whole[some], alone)
    for threads, cuts in (
        (1, (0, 1, 63, 64, 65, 255, 256, 257, 540, length)),
        (2, (0, 300, 301, length)),
        (3, (0, 7, length)),
    ):
        with native(level, threads):
            chunks = [case.attend([(2, 3, 40), (0, a, b), (1, 299, 300)])[1] for a, b in pairwise(cuts)]
        assert torch.equal(torch.cat(chunks), whole)


@pytest.mark.parametrize("rule", [(None, None), (20, None), (300, 5.0)])
@pytest.mark.parametrize(("broken", "at"), [(torch.nan, 290), (torch.inf, 291)])  # either of a pair of positions
@pytest.mark.parametrize("kept", KEPT)
def test_a_broken_key_or_value_reaches_those_that_see_it_and_nobody_else(
    level: str, kept: str, broken: float, at: int, rule: tuple
) -> None:
    case = Case((4, 2, 32), kept, [400, 30], rule)
    with native(level):
        expected = case.attend([(0, 0, 400), (1, 29, 30)])
        seers = slice(at, at + (rule[0] or 400))
        slot = torch.tensor([case.blocks[0][at // BLOCK] * BLOCK + at % BLOCK])
        numbers = torch.randn(1, 2, 32)
        numbers[0, 1, 5] = broken
        case.format.write(case.keys, case.values, slot, torch.randn(1, 2, 32), numbers)
        got = case.attend([(0, 0, 400), (1, 29, 30)])
        alone = torch.cat([case.attend([(0, at, at + 1)])[0] for at in range(400)])
        decoded = case.attend([(0, at - 1, at)])[0]
    assert torch.equal(got[0].nan_to_num(7), alone.nan_to_num(7))
    heads = got[0].unflatten(1, (4, 32))
    assert not heads[seers, 2:, 5].isfinite().any()
    hidden = torch.ones(400, dtype=torch.bool)
    hidden[seers] = False
    assert torch.equal(got[0][hidden], expected[0][hidden])
    assert torch.equal(got[1], expected[1])
    assert torch.equal(decoded, expected[0][at - 1 : at])


@pytest.mark.parametrize("kept", KEPT)
def test_a_broken_query_stays_in_its_row(level: str, kept: str) -> None:
    case = Case((4, 2, 32), kept, [100])
    with native(level):
        (expected,) = case.attend([(0, 0, 100)])
        case.q[0][50, 3] = torch.nan
        (got,) = case.attend([(0, 0, 100)])
    assert got[50, :32].isnan().all()
    assert torch.equal(got[50, 32:], expected[50, 32:])
    assert torch.equal(got[torch.arange(100) != 50], expected[torch.arange(100) != 50])


@pytest.mark.parametrize("kept", KEPT)
def test_extreme_scores_are_float64s(level: str, kept: str) -> None:
    """One key takes all the weight, or scores lie hundreds apart."""
    case = Case((2, 1, 32), kept, [300])
    case.q[0] *= 300
    with native(level):
        (got,) = case.attend([(0, 0, 300)])
    exact = case.exact(0, 0, 300)
    assert got.isfinite().all()
    # With scores this far apart rounding decides between near ties; most rows have none.
    assert ((got - exact).abs().amax(-1) < 0.02).double().mean() > (0.9 if kept == "bfloat16" else 0.3)


@pytest.mark.parametrize("kept", KEPT)
def test_a_step_without_rows_attends_nothing(level: str, kept: str) -> None:
    with native(level):
        assert Case((4, 2, 32), kept, [16]).attend([]) == []
