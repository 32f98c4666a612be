"""Charts are data: what is drawn is chosen from four kinds, and nothing of it is code."""

import json
from pathlib import Path
from typing import Any

import pytest

from myna.apps.sql.chart import Chart, choose, read, render, specification, unread
from myna.apps.sql.database import Rows
from myna.records import SqlError

TIMES = Rows(("day", "n"), (("2024-01-01", 1), ("2024-02-01", 5), ("2024-03-01", 2)))
TEXTS = Rows(("country", "n"), (("中国", 2), ("France", 3)))


@pytest.mark.parametrize(
    ("rows", "chart"),
    [
        (TIMES, Chart("line", "day", "n")),
        (TEXTS, Chart("bar", "country", "n")),
        (Rows(("a", "b"), ((1.5, 2), (2, 3))), Chart("scatter", "a", "b")),
        (Rows(("age",), ((1,), (2,), (2,))), Chart("histogram", "age")),
        (Rows(("Year", "n"), ((2001, 5), (2002, 6))), Chart("line", "Year", "n")),
        (Rows(("name",), (("a",), ("b",))), None),
        (Rows(("n",), ((1,),)), None),
        (Rows(("name", "n"), tuple((f"{i}号", i) for i in range(40))), Chart("bar", "name", "n")),
        (Rows(("name", "n"), tuple((f"{i}号", i) for i in range(41))), None),
        (Rows(("name", "paid"), (("a", True), ("b", False))), None),
        (Rows(("a", "a"), ((1, 2), (3, 4))), None),
    ],
)
def test_the_chart_suits_the_columns(rows: Rows, chart: Chart | None) -> None:
    assert choose(rows) == chart


@pytest.mark.parametrize(
    "choice",
    [
        {"kind": "pie", "x": "country", "y": "n"},
        {"kind": "bar", "x": "other", "y": "n"},
        {"kind": "bar", "x": "country"},
        {"kind": "histogram", "x": "n", "y": "n"},
        {"kind": "bar", "x": "country", "y": "n", "data": {"url": "http://127.0.0.1/x"}},
        {"kind": "bar", "x": "country", "y": "n", "transform": [{"calculate": "1"}]},
        {"kind": "bar", "x": {"expr": "1"}, "y": "n"},
        {},
    ],
)
def test_a_choice_that_is_no_plain_chart_is_refused(choice: dict[str, Any]) -> None:
    with pytest.raises(SqlError, match="No chart"):
        read(choice, TEXTS)


def test_a_choice_becomes_a_chart() -> None:
    assert read({"kind": "bar", "x": "country", "y": "n", "title": "歌手"}, TEXTS) == Chart(
        "bar", "country", "n", "歌手"
    )


def test_names_and_values_are_never_read_as_anything_else() -> None:
    evil = "a.b[0]\\'\"};{'url': 'http://127.0.0.1'}"
    rows = Rows((evil, "n"), (("http://127.0.0.1/x", 1), ("{expr: 1}", 2)))
    spec = specification(Chart("bar", evil, "n", title=evil), rows)
    assert {spec["encoding"][axis]["field"] for axis in "xy"} == {"x", "y"}
    keys = {
        key
        for key in json.dumps(spec).replace(json.dumps(evil), "").split('"')
        if key in ("url", "expr", "signal", "transform", "href")
    }
    assert keys == set()


def test_too_many_bars_and_no_numbers_are_refused() -> None:
    with pytest.raises(SqlError, match="too many"):
        specification(Chart("bar", "a", "n"), Rows(("a", "n"), tuple((str(i), i) for i in range(50))))
    with pytest.raises(SqlError, match="nothing to draw"):
        specification(Chart("bar", "a", "n"), Rows(("a", "n"), (("x", None),)))


@pytest.mark.parametrize("chart", [Chart("line", "day", "n"), Chart("bar", "day", "n"), Chart("histogram", "n")])
def test_charts_are_drawn_without_a_browser(chart: Chart, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    render(specification(chart, TIMES), tmp_path / "c.svg")
    svg = (tmp_path / "c.svg").read_text()
    assert svg.startswith("<svg")
    assert "mark-line" in svg if chart.kind == "line" else "mark-rect" in svg
    render(specification(chart, TIMES), tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_characters_that_no_font_has_are_found() -> None:
    pytest.importorskip("vl_convert")
    assert unread({"title": "Zoé → A \U000f0001", "n": 1}) == "\U000f0001"  # of a private plane
    assert unread(specification(Chart("line", "day", "n"), TIMES)) == ""


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SqlError, match=r"no \.png"):
        render(specification(Chart("line", "day", "n"), TIMES), tmp_path / "c.html")
