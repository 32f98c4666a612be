"""The risk-coverage curve as a picture: a Vega-Lite specification with the values in it, drawn without a browser or a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from myna.apps.hallucination.curve import Point
from myna.apps.hallucination.threshold import Threshold
from myna.apps.sql.chart import render
from myna.records import Json

POINTS = 1_000  # of one curve; more cannot be seen


def specification(curves: Mapping[str, Sequence[Point]], threshold: Threshold | None = None, title: str = "") -> Json:
    """One line for each curve, a dashed one for answering always, and one at a threshold's coverage with the risk it promises."""
    values = [
        {"signal": name, "coverage": point.coverage, "risk": point.risk}
        for name, points in curves.items()
        for point in [*points[:: len(points) // POINTS + 1], *points[-1:]]
    ]
    always = max((points[-1].risk for points in curves.values()), default=0.0)
    x: Json = {"field": "coverage", "type": "quantitative", "title": "coverage: share of questions answered"}
    y: Json = {"field": "risk", "type": "quantitative", "title": "risk: share of answers that are wrong"}
    x["scale"] = {"domain": [0, 1]}
    layers: list[Json] = [
        {
            "mark": {"type": "line", "clip": True, "point": len(values) < 100},
            "encoding": {"x": x, "y": y, "color": {"field": "signal", "type": "nominal"}},
        },
        _rule([{"risk": always}], {"y": y}, f"always answering: {always:.2f}", [4, 4]),
    ]
    if threshold is not None and threshold.rows:
        at = {"coverage": threshold.covered / threshold.rows, "risk": threshold.bound}
        layers.append(_rule([at], {"x": x}, "", [2, 2]))
        text = f"risk ≤ {threshold.bound:.2f} with probability {1 - threshold.delta:g}"
        layers.append(
            {
                "data": {"values": [at | {"text": text}]},
                "mark": {"type": "text", "align": "right", "dx": -6, "dy": -8},
                "encoding": {"x": x, "y": y, "text": {"field": "text"}},
            }
        )
        layers.append(
            {
                "data": {"values": [at]},
                "mark": {"type": "point", "filled": True, "size": 60, "color": "black"},
                "encoding": {"x": x, "y": y},
            }
        )
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {"text": title or "Risk and coverage"},
        "data": {"values": values},
        "width": 480,
        "height": 320,
        "layer": layers,
    }


def draw(spec: Json, out: Path) -> None:
    """To a .png, .svg or .json file. Needs `pip install "myna[charts]"` but for .json, and says so."""
    render(spec, out)


def _rule(values: list[Json], where: Json, text: str, dash: list[int]) -> Json:
    rule: Json = {"mark": {"type": "rule", "strokeDash": dash, "color": "gray"}, "encoding": where}
    if not text:
        return {"data": {"values": values}, **rule}
    said = {
        "mark": {"type": "text", "align": "left", "dx": 4, "dy": -6, "color": "gray"},
        "encoding": {**where, "x": {"value": 0}, "text": {"value": text}},
    }
    return {"data": {"values": values}, "layer": [rule, said]}
