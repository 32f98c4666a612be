import math
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from myna.apps.hallucination.curve import aurc, auroc, curve
from myna.records import DataError

ROWS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30)


def split(rows: list[tuple[int, bool]]) -> tuple[list[float], list[bool]]:
    return [float(c) for c, _ in rows], [good for _, good in rows]


# sklearn 1.9.1's roc_auc_score of numbers drawn by numpy's default_rng(7).
@pytest.mark.parametrize(
    ("confidence", "right", "area"),
    [
        ([2, 1, 2, 2, 1, 2], [1, 1, 0, 1, 0, 0], 0.5),
        (
            [0, 2, 4, 1, 1, 1, 3, 1, 4, 2, 2, 2, 2, 2, 2, 4, 4, 3, 3, 3],
            [0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0],
            0.5808080808080808,
        ),
        (
            [
                663,
                154,
                533,
                267,
                964,
                880,
                186,
                509,
                939,
                847,
                707,
                639,
                42,
                741,
                473,
                91,
                244,
                541,
                726,
                507,
                612,
                871,
                686,
                361,
                643,
                598,
                108,
                59,
                660,
                387,
                598,
                323,
                225,
                150,
                381,
                816,
                400,
                379,
                575,
                978,
            ],
            [
                0,
                0,
                0,
                0,
                1,
                1,
                1,
                1,
                1,
                0,
                1,
                0,
                1,
                0,
                0,
                1,
                0,
                0,
                0,
                0,
                1,
                1,
                0,
                0,
                1,
                0,
                0,
                0,
                1,
                1,
                1,
                1,
                0,
                0,
                0,
                1,
                0,
                1,
                1,
                1,
            ],
            0.650375939849624,
        ),
    ],
)
def test_auroc_is_sklearns(confidence: list[float], right: list[int], area: float) -> None:
    assert auroc(confidence, [bool(one) for one in right]) == pytest.approx(area, abs=1e-12)


@given(ROWS)
def test_auroc_is_the_chance_that_a_right_answer_is_surer(rows: list[tuple[int, bool]]) -> None:
    good, bad = [c for c, ok in rows if ok], [c for c, ok in rows if not ok]
    pairs = [(a > b) + (a == b) / 2 for a in good for b in bad]
    assert auroc(*split(rows)) == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_a_curve_by_hand() -> None:
    points = curve([0.9, 0.8, 0.8, 0.1], [True, True, False, False])
    assert [(p.confidence, p.coverage, p.risk) for p in points] == [
        (0.9, 0.25, 0.0),
        (0.8, 0.75, pytest.approx(1 / 3)),
        (0.1, 1.0, 0.5),
    ]
    # risks of the 1, 2, 3, 4 surest: 0, (0 + 1/2) / 2 on average over the tie, 1/3, 1/2
    assert aurc([0.9, 0.8, 0.8, 0.1], [True, True, False, False]) == pytest.approx((0 + 1 / 4 + 1 / 3 + 1 / 2) / 4)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_the_area_is_the_mean_over_every_order_of_ties(rows: list[tuple[int, bool]]) -> None:
    orders = [order for order in permutations(rows) if all(a[0] >= b[0] for a, b in pairwise(order))]
    areas = [
        sum(sum(not good for _, good in order[:k]) / k for k in range(1, len(order) + 1)) / len(order)
        for order in orders
    ]
    assert aurc(*split(rows)) == pytest.approx(sum(areas) / len(areas))


@given(ROWS)
def test_the_last_point_is_to_answer_always(rows: list[tuple[int, bool]]) -> None:
    points = curve(*split(rows))
    assert points[-1].coverage == 1.0
    assert points[-1].risk == pytest.approx(sum(not good for _, good in rows) / len(rows))
    assert [p.coverage for p in points] == sorted(p.coverage for p in points)


def test_a_confidence_that_says_nothing_has_the_area_of_all_answers() -> None:
    assert aurc([1.0] * 8, [True, False] * 4) == pytest.approx(0.5)


def test_what_is_not_a_number_is_refused() -> None:
    for of in (curve, aurc, auroc):
        with pytest.raises(DataError, match="1 of 2 confidences"):
            of([math.nan, 1.0], [True, False])
        with pytest.raises(DataError, match="needs answers"):
            of([], [])
