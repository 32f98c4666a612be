from pathlib import Path

import pytest

from myna.apps.hallucination.curve import curve
from myna.apps.hallucination.draw import POINTS, draw, specification
from myna.apps.hallucination.threshold import fit

SURE = [i / 3_000 for i in range(3_000)]
RIGHT = [i % 7 > 0 or i > 2_000 for i in range(3_000)]


def test_a_picture_has_bounded_points_the_last_one_and_the_promise() -> None:
    found = fit(SURE, RIGHT, risk=0.1)
    spec = specification({"agreement": curve(SURE, RIGHT)}, found)
    values = spec["data"]["values"]
    assert len(values) <= POINTS + 1
    assert values[-1]["coverage"] == 1.0
    shown = [value for layer in spec["layer"] for value in layer.get("data", {}).get("values", [])]
    assert {"coverage": found.covered / 3_000, "risk": found.bound} in shown


@pytest.mark.parametrize("suffix", [".svg", ".png", ".json"])
def test_it_is_drawn_in_both_languages(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("vl_convert")
    out = tmp_path / f"curve{suffix}"
    draw(specification({"一致 <b>": curve(SURE[:50], RIGHT[:50])}, title="风险 & coverage"), out)
    assert out.stat().st_size > 1_000
    if suffix == ".svg":
        assert "风险 &amp; coverage" in out.read_text()
