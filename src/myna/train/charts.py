"""Curves as SVG: text in a page, no library, no picture file. Axes have round numbers; hovering is report.js's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, Literal

MOST = 700  # points drawn of a line; a screen has no more
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 30  # of the plot, in the SVG's units
Kind = Literal["faint", "line", "points"]


@dataclass(frozen=True, slots=True)
class Series:
    """One curve; `colour` is one of four."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: Kind = "line"
    colour: int = 0

    def finite(self) -> "Series":
        return self.at([i for i, y in enumerate(self.ys) if math.isfinite(y)])

    def at(self, places: Sequence[int]) -> "Series":
        """Only these points."""
        return replace(self, xs=[self.xs[i] for i in places], ys=[self.ys[i] for i in places])


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves over the same steps, under one title. `about` is a line that says what is drawn. `late`: the frame is as high as
    the values are after the first twentieth of the steps; what comes before may begin above it."""

    title: str
    series: Sequence[Series]
    about: str = ""
    wide: bool = False
    late: bool = False

    def curves(self) -> list[Series]:
        """What there is to draw: nothing, if no value is a number."""
        return [one for one in (series.finite() for series in self.series) if one.xs]

    def svg(self) -> str:
        plot = self._plot()
        drawn = "".join(plot.curve(one) for one in self.curves())
        return (
            f'<svg viewBox="0 0 {plot.width} {plot.height}" role="img" aria-label="{escape(self.title)}">'
            f"{plot.axes()}{plot.clipped(drawn)}"
            f'<line class="at" y1="{TOP}" y2="{plot.height - BOTTOM}" hidden/></svg>'
        )

    def readout(self) -> dict[str, Any]:
        """What report.js needs to say the values under the pointer."""
        plot = self._plot()
        return {
            "left": LEFT,
            "right": plot.width - RIGHT,
            "first": plot.first,
            "last": plot.last,
            "series": [
                {"name": one.name, "x": [*one.xs], "y": [float(f"{y:.5g}") for y in one.ys]}
                for one in map(thinned, self.curves())
            ],
        }

    def _plot(self) -> "_Plot":
        curves = self.curves()
        end = max(one.xs[-1] for one in curves)
        seen = [one.at([i for i, x in enumerate(one.xs) if x > end / 20]) for one in curves] if self.late else curves
        return _Plot.around(
            curves, [y for one in seen for y in one.ys] or [*curves[0].ys], *((1120, 300) if self.wide else (540, 220))
        )


def smoothed(ys: Sequence[float], share: float = 0.02) -> list[float]:
    """The running mean in which a value `share` of all steps ago counts 1/e; without a start's bias (Kingma and Ba 2015). What
    is no number leaves it as it was."""
    keep = math.exp(-1 / max(1.0, share * len(ys)))
    mean, weight, found = 0.0, 0.0, []
    for y in ys:
        if math.isfinite(y):
            mean, weight = keep * mean + (1 - keep) * y, keep * weight + (1 - keep)
        found.append(mean / weight if weight else math.nan)
    return found


def thinned(series: Series, most: int = MOST) -> Series:
    """At most about `most` points: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(series.xs) <= most:
        return series
    stretch = math.ceil(2 * len(series.xs) / most)
    kept: list[int] = []
    for start in range(0, len(series.xs), stretch):
        places = range(start, min(start + stretch, len(series.xs)))
        kept += sorted({min(places, key=series.ys.__getitem__), max(places, key=series.ys.__getitem__)})
    return series.at(kept)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from low to high: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A number as an axis says it: 0.0003 as 3e-4, 1200000 as 1.2M."""
    size = abs(value)
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= unit:
            return f"{value / (1e3 if name == 'k' else unit):g}{name}"
    if value and size < 1e-3:
        mantissa, _, power = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where a value is drawn. `log`: the vertical axis is, because values span orders of magnitude."""

    width: int
    height: int
    first: float
    last: float
    low: float
    high: float
    log: bool
    marks: list[float] = field(default_factory=list)

    @classmethod
    def around(cls, curves: Sequence[Series], seen: Sequence[float], width: int, height: int) -> "_Plot":
        xs, ys = [x for one in curves for x in one.xs], sorted(seen)
        low, high = ys[0], ys[-1]
        log = low > 0 and high / low > 100 and high / ys[len(ys) // 2] > 10
        if log:
            marks = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
            return cls(width, height, min(xs), max(xs), marks[0], marks[-1], log, marks)
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        low, high = (0.0 if low >= 0 and low < 0.35 * high else low - room), high + room
        return cls(width, height, min(xs), max(xs), low, high, log, ticks(low, high))

    def x(self, value: float) -> float:
        span = self.last - self.first
        share = (value - self.first) / span if span else 0.5
        return LEFT + share * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        at, low, high = (math.log(v) if self.log else v for v in (value, self.low, self.high))
        return self.height - BOTTOM - (at - low) / ((high - low) or 1) * (self.height - TOP - BOTTOM)

    def axes(self) -> str:
        end, foot = self.width - RIGHT, self.height - BOTTOM
        drawn = [
            f'<line class="grid" x1="{LEFT}" x2="{end}" y1="{self.y(mark):.1f}" y2="{self.y(mark):.1f}"/>'
            f'<text class="tick" x="{LEFT - 8}" y="{self.y(mark) + 4:.1f}" text-anchor="end">{short(mark)}</text>'
            for mark in self.marks
        ]
        for mark in ticks(self.first, self.last, 8 if self.width > 800 else 5):
            if mark == int(mark):
                drawn.append(
                    f'<line class="axis" x1="{self.x(mark):.1f}" x2="{self.x(mark):.1f}" y1="{foot}" y2="{foot + 4}"/>'
                    f'<text class="tick" x="{self.x(mark):.1f}" y="{foot + 18}" text-anchor="middle">{short(mark)}</text>'
                )
        return "".join([*drawn, f'<line class="axis" x1="{LEFT}" x2="{end}" y1="{foot}" y2="{foot}"/>'])

    def clipped(self, drawn: str) -> str:
        """What is above the frame is not seen: an SVG in an SVG hides what leaves it."""
        box = (0, TOP - 6, self.width, self.height - TOP - BOTTOM + 12)
        return '<svg x="{0}" y="{1}" width="{2}" height="{3}" viewBox="{0} {1} {2} {3}">{4}</svg>'.format(*box, drawn)

    def curve(self, series: Series) -> str:
        few, colour = thinned(series), f"c{series.colour}"
        points = [(self.x(x), self.y(y)) for x, y in zip(few.xs, few.ys, strict=True)]
        if series.kind == "points" or len(points) == 1:
            return "".join(f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in points)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        return f'<polyline class="{colour} {series.kind}" points="{path}"/>'
