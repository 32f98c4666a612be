import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from myna.apps.hallucination.threshold import Threshold, fit, rows_needed, upper
from myna.records import DataError


# scipy 1.17.1: beta.ppf(1 - delta, wrong + 1, n - wrong).
@pytest.mark.parametrize(
    ("wrong", "n", "delta", "bound"),
    [
        (0, 10, 0.05, 0.2588655508930522),
        (1, 10, 0.05, 0.39416330243650466),
        (3, 50, 0.05, 0.14783717636418123),
        (10, 100, 0.005, 0.20195352078134415),
        (99, 100, 0.05, 0.9994871985837377),
        (0, 1000, 0.001, 0.006883951579066227),
        (137, 2000, 0.01, 0.0827660178131108),
        (5, 5, 0.05, 1.0),
        (0, 0, 0.05, 1.0),
    ],
)
def test_the_bound_is_clopper_and_pearsons(wrong: int, n: int, delta: float, bound: float) -> None:
    assert upper(wrong, n, delta) == pytest.approx(bound, abs=1e-9)


def drawn(chance: random.Random, m: int, risk: Callable[[float], float]) -> tuple[list[float], list[bool]]:
    confidence = [chance.random() for _ in range(m)]
    return confidence, [chance.random() >= risk(c) for c in confidence]


@pytest.mark.parametrize(
    ("risk", "above"),  # the true risk of an answer of confidence c, and of those above a threshold
    [
        (
            lambda c: 0.21,
            lambda t: 0.21,
        ),  # every threshold breaks the promise: the share of draws that find one is what delta bounds
        (lambda c: 0.5 - 0.4 * c, lambda t: 0.5 - 0.2 * (1 + t)),
    ],
)
def test_the_promise_is_kept_in_nearly_all_draws(
    risk: Callable[[float], float], above: Callable[[float], float]
) -> None:
    chance, delta, draws, broken = random.Random(5), 0.1, 150, 0
    for _ in range(draws):
        try:
            found = fit(*drawn(chance, 150, risk), risk=0.2, delta=delta)
        except DataError:
            continue
        broken += above(found.above or 0.0) > 0.2
    assert broken <= delta * draws + 3 * math.sqrt(draws * delta * (1 - delta))


def test_what_is_fitted_answers_as_much_as_it_can() -> None:
    confidence = [i / 1000 for i in range(1000)]
    found = fit(confidence, [c >= 0.3 for c in confidence], risk=0.05)
    assert found.above == pytest.approx(0.299, abs=2e-3)
    assert (found.rows, found.wrong) == (1000, 0)
    assert not found.answers(0.25)
    assert found.answers(0.5)


def test_where_nearly_all_is_right_everything_is_answered_but_what_is_unknown() -> None:
    found = fit([0.5, None] * 100, [True, False] * 100, risk=0.1, signal="agreement")
    assert (found.above, found.covered, found.rows) == (None, 100, 200)
    assert found.answers(-1e300)
    assert not found.answers(None)
    assert not found.answers(math.nan)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=60, max_size=120))
def test_what_is_said_of_the_rows_is_what_the_threshold_does(rows: list[tuple[int, bool]]) -> None:
    confidence, right = [float(c) for c, _ in rows], [good for _, good in rows]
    try:
        found = fit(confidence, right, risk=0.5, delta=0.2)
    except DataError:
        return
    answered = [good for c, good in zip(confidence, right, strict=True) if found.answers(c)]
    assert (found.covered, found.wrong) == (len(answered), len(answered) - sum(answered))
    assert found.wrong / found.covered < found.bound <= 0.5


@pytest.mark.parametrize("risk", [0.01, 0.1, 0.3])
def test_too_few_rows_are_refused_and_how_many_it_takes_is_right(risk: float) -> None:
    needed = rows_needed(risk)
    with pytest.raises(DataError, match=f"at least {needed} "):
        fit([1.0] * (needed - 1), [True] * (needed - 1), risk=risk)
    assert fit([1.0] * needed, [True] * needed, risk=risk).bound <= risk
    assert upper(0, needed - 1, 0.005) > risk


def test_a_risk_that_cannot_be_kept_is_refused_with_what_can() -> None:
    with pytest.raises(DataError, match=r"at 200 answers with 100 wrong"):
        fit([0.5] * 200, [True, False] * 100, risk=0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_confidences_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(DataError, match="1 of 100 confidences"):
        fit([1.0] * 99 + [bad], [True] * 100, risk=0.1)


def test_a_saved_threshold_comes_back_as_it_was(tmp_path: Path) -> None:
    for confidence in ([0.5] * 100, [i / 100 for i in range(100)]):
        found = fit(confidence, [True] * 100, risk=0.1, signal="语义")
        found.save(tmp_path / "t.json")
        assert Threshold.load(tmp_path / "t.json") == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"kind": "myna abstain 1"}',
        '{"kind": "myna abstain 1", "signal": 3}',
        "\x00",
        '{"kind": "other"}',
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=r"t\.json"):
        Threshold.load(tmp_path / "t.json")
    with pytest.raises(DataError, match=r"none\.json"):
        Threshold.load(tmp_path / "none.json")
