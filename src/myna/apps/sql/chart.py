"""A chart of rows: which of four kinds, and of which columns, is data that is looked at; the rest of the Vega-Lite is ours.

No model writes Vega-Lite here: a specification can load URLs and hold expressions. What is drawn is inline values in fields named
x, y and colour, so no column's name is read as a path either. https://vega.github.io/vega-lite/docs/
"""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from myna.apps.sql.database import Cell, Rows
from myna.records import Json, SqlError

Kind = Literal["bar", "line", "scatter", "histogram"]
KINDS: tuple[str, ...] = get_args(Kind)
BARS = 40  # categories; more are unreadable
POINTS = 5_000
LABEL = 60  # characters of a title or category
NOBODYS = "\U000f0000"  # a character that no font has
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"  # a name: nothing is fetched
DATE = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?)?\Z")
PERIOD = re.compile(r"year|month|date|day|week|quarter|年|月|日|季", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Chart:
    """A histogram has no y."""

    kind: Kind
    x: str
    y: str = ""
    title: str = ""


def choose(rows: Rows) -> Chart | None:
    """The chart that suits the columns' values: time and number a line, text and number bars, two numbers points, one number of
    many rows a histogram; None where none does."""
    kinds = {name: _column_kind(name, [row[i] for row in rows.rows]) for i, name in enumerate(rows.columns)}
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    times = [name for name, kind in kinds.items() if kind == "time"]
    texts = [name for name, kind in kinds.items() if kind == "text"]
    if len(rows.rows) < 2 or len(kinds) < len(rows.columns) or not numbers:
        return None
    if times:
        return Chart("line", times[0], numbers[0])
    if texts:
        return Chart("bar", texts[0], numbers[0]) if len(rows.rows) <= BARS else None
    if len(numbers) > 1:
        return Chart("scatter", numbers[0], numbers[1])
    return Chart("histogram", numbers[0])


def read(choice: Mapping[str, Any], rows: Rows) -> Chart:
    """A chart that somebody asked for: {"kind", "x", "y", "title"}, and nothing else. Raises SqlError, refused, saying what is
    wrong with it."""
    if unknown := set(choice) - {"kind", "x", "y", "title"}:
        raise _refused(f"it has {', '.join(sorted(map(repr, unknown)))}; a chart is kind, x, y and title")
    if any(not isinstance(value, str) for value in choice.values()):
        raise _refused("kind, x, y and title are texts")
    kind, x, y = choice.get("kind"), choice.get("x", ""), choice.get("y", "")
    if kind not in KINDS:
        raise _refused(f"its kind is {kind!r}; these are: {', '.join(KINDS)}")
    columns = ", ".join(rows.columns)
    if x not in rows.columns or (y not in rows.columns if kind != "histogram" else y != ""):
        raise _refused(f"its columns are {x!r} and {y!r}; these are: {columns}; a histogram has x alone")
    return Chart(kind, x, y, choice.get("title", ""))


def specification(chart: Chart, rows: Rows) -> Json:
    """Vega-Lite with the values in it. Raises SqlError where there are too many or none."""
    values = _values(chart, rows)
    if not values:
        raise _refused("there is nothing to draw: no row has a number where one is needed")
    most = BARS if chart.kind == "bar" else POINTS
    if len(values) > most:
        raise _refused(f"{len(values)} values are too many for a {chart.kind}; at most {most} can be read")
    x: Json = {"field": "x", "title": _label(chart.x)}
    y: Json = {"field": "y", "type": "quantitative", "title": _label(chart.y)}
    match chart.kind:
        case "bar":
            mark, x = "bar", x | {"type": "nominal", "sort": None}
        case "line":
            times = all(isinstance(one["x"], str) and DATE.match(one["x"]) for one in values)
            mark, x = "line", x | {"type": "temporal" if times else "ordinal"}
        case "scatter":
            mark, x = "point", x | {"type": "quantitative"}
        case "histogram":
            mark, x = "bar", x | {"type": "quantitative", "bin": {"maxbins": 30}}
            y = {"aggregate": "count", "type": "quantitative", "title": "count"}
    spec: Json = {
        "$schema": SCHEMA,
        "data": {"values": values},
        "mark": mark,
        "encoding": {"x": x, "y": y},
        "width": 480,
        "height": 300,
    }
    return spec | ({"title": {"text": _label(chart.title)}} if chart.title else {})


def check_out(out: Path) -> None:
    """Whether a chart can be drawn to this file, before anything is spent on its rows. Raises SqlError."""
    if out.suffix not in (".png", ".svg", ".json"):
        raise _refused(f"{out.name} is no .png, .svg or .json")
    if not out.parent.is_dir():
        raise _refused(f"there is no folder {out.parent}")
    if out.is_dir():
        raise _refused(f"{out} is a folder")
    if out.suffix != ".json" and importlib.util.find_spec("vl_convert") is None:
        raise SqlError('Drawing charts needs a package: pip install "myna[charts]"', kind="unavailable")


def render(spec: Json, out: Path) -> None:
    """Draws to a .png, .svg or .json (the specification). Needs no browser and no network. Raises SqlError."""
    check_out(out)
    try:
        _write(spec, out)
    except OSError as e:
        raise SqlError(f"{out} cannot be written: {e.strerror}", kind="unavailable") from None


def unread(spec: Json) -> str:
    """The characters of a chart that a .png shows as empty boxes, since no font of this machine has them. They are found by drawing each:
    one that looks as a character does that is none (of a private plane) is a box."""
    import json

    import vl_convert

    def drawn(character: str) -> bytes:
        at = '<text x="5" y="30" font-size="24" font-family="sans-serif">'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40">{at}{character}</text></svg>'
        return bytes(vl_convert.svg_to_png(svg))

    strange = [one for one in dict.fromkeys(json.dumps(spec, ensure_ascii=False)) if one > "~"]
    box = drawn(NOBODYS) if strange else b""
    return "".join(one for one in strange if drawn(one) == box)


def _write(spec: Json, out: Path) -> None:
    import json

    if out.suffix == ".json":
        out.write_text(json.dumps(spec, ensure_ascii=False, indent=1), encoding="utf-8")
        return
    import vl_convert

    # No URL is allowed as a base, so that not even a mistake of ours fetches one.
    if out.suffix == ".png":
        out.write_bytes(vl_convert.vegalite_to_png(spec, scale=2, allowed_base_urls=[]))
    else:
        out.write_text(vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]), encoding="utf-8")


def _values(chart: Chart, rows: Rows) -> list[Json]:
    """Rows that have what is drawn."""
    at_x = rows.columns.index(chart.x)
    if chart.kind == "histogram":
        return [{"x": _number(row[at_x])} for row in rows.rows if _is_number(row[at_x])]
    at_y = rows.columns.index(chart.y)
    drawn = [row for row in rows.rows if _is_number(row[at_y]) and row[at_x] is not None]
    if chart.kind == "scatter":
        return [{"x": _number(row[at_x]), "y": _number(row[at_y])} for row in drawn if _is_number(row[at_x])]
    return [{"x": _label(str(row[at_x])), "y": _number(row[at_y])} for row in drawn]


def _column_kind(name: str, cells: list[Cell]) -> str:
    said = [cell for cell in cells if cell is not None]
    if said and all(_is_number(cell) for cell in said):
        return "time" if PERIOD.search(name) and all(isinstance(cell, int) for cell in said) else "number"
    if said and all(isinstance(cell, str) and DATE.match(cell) for cell in said):
        return "time"
    return "text" if said else ""


def _is_number(cell: Cell) -> bool:
    return (
        isinstance(cell, int | float | Decimal)
        and not isinstance(cell, bool)
        and (not isinstance(cell, Decimal) or cell.is_finite())
    )


def _number(cell: Any) -> int | float:
    return cell if isinstance(cell, int) and abs(cell) < 2**53 else float(cell)


def _label(text: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def _refused(what: str) -> SqlError:
    return SqlError(f"No chart: {what}.", kind="refused")
