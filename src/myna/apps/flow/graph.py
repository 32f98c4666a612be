"""The graph of a run, drawn from its journal alone.

An arrow says what can be seen: the output of one step, or a part of it of SEEN bytes or more, stands in the input of another that began
when it had ended. A step for which nothing of the kind is found has dotted arrows, from what had ended just before it in the same place.
A number, a yes or a short word that is passed on as part of something else leaves no such mark.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from myna.apps.flow.journal import StepRow

SEEN = 8  # bytes: three Chinese characters, or a word that is not among the shortest
MOST = 400  # steps whose values are compared, each with each; the others have their order only
PARTS = 2000  # parts of one value that are looked at


@dataclass(frozen=True, slots=True)
class Edge:
    """`value`: the output of one is in the input of the other; `order`: one came after the other."""

    source: str
    to: str
    kind: Literal["value", "order"]


@dataclass(frozen=True, slots=True)
class Graph:
    """The latest attempt of each step, in the order in which they were first called, what lies between them, and of each the step in
    which it was called, if any."""

    steps: tuple[StepRow, ...]
    edges: tuple[Edge, ...]
    around: Mapping[str, str]

    def before(self, path: str) -> list[Edge]:
        return [edge for edge in self.edges if edge.to == path]


def graph(rows: list[StepRow]) -> Graph:
    """Of the attempts of one run, in their order."""
    latest = {row.path: row for row in rows}
    steps = tuple(latest.values())
    around = {path: _around(path, latest) for path in latest}
    values = {row.path: _parts(row.output) for row in steps[:MOST] if row.output is not None}
    edges: list[Edge] = []
    for row in steps:
        inputs = _parts(row.inputs)
        texts = [part for part in inputs if isinstance(part, str)]
        earlier = [one for one in steps if _ended_before(one, row)]
        found = [one for one in earlier if one.path in values and _stands_in(values[one.path], inputs, texts)]
        edges += [Edge(one.path, row.path, "value") for one in found]
        if not found:
            here = [one for one in earlier if around[one.path] == around[row.path]]
            edges += [Edge(one.path, row.path, "order") for one in _last(here)]
    return Graph(steps, tuple(edges), around)


def as_text(drawn: Graph) -> Iterator[str]:
    """A line for each step: its path, how it stands, and where its input comes from."""
    width = max((len(row.path) for row in drawn.steps), default=0)
    for row in drawn.steps:
        edges = drawn.before(row.path)
        told = [
            ("takes ", [e.source for e in edges if e.kind == "value"]),
            ("after ", [e.source for e in edges if e.kind == "order"]),
        ]
        said = "; ".join(verb + ", ".join(sources) for verb, sources in told if sources)
        yield f"{row.path:{width}}  {_state(row)}{f'  {said}' if said else ''}"


def as_mermaid(drawn: Graph) -> Iterator[str]:
    """A flowchart in Mermaid's language. A step that writes has a double frame."""
    number = {row.path: f"s{n}" for n, row in enumerate(drawn.steps)}
    yield "flowchart TD"
    for row in drawn.steps:
        state = "" if row.state == "done" else f"<br>{row.state}"
        label = '"' + row.path.replace('"', "#quot;") + state + '"'
        yield f"    {number[row.path]}[[{label}]]" if row.effect == "write" else f"    {number[row.path]}[{label}]"
    for edge in drawn.edges:
        yield f"    {number[edge.source]} {'-->' if edge.kind == 'value' else '-.->'} {number[edge.to]}"
    for path, outer in drawn.around.items():
        if outer:
            yield f"    {number[outer]} -. inside .- {number[path]}"


def _state(row: StepRow) -> str:
    times = f", attempt {row.attempt}" if row.attempt > 1 else ""
    return f"{row.state}{f' ({row.failure})' if row.failure else ''}{times}"


def _ended_before(one: StepRow, row: StepRow) -> bool:
    return one.id < row.id and one.ended is not None and one.ended <= row.began


def _last(rows: list[StepRow]) -> list[StepRow]:
    """Those that no other came after."""
    return [one for one in rows if not any(_ended_before(one, other) for other in rows)]


def _around(path: str, steps: Container[str]) -> str:
    """The step in which a step is called; nothing for those of the flow itself. Branches and inner flows are no steps."""
    parts = path.split("/")
    places = ("/".join([*parts[: n - 1], parts[n - 1].partition("@")[0]]) for n in range(len(parts) - 1, 0, -1))
    return next((place for place in places if place in steps), "")


def _stands_in(values: list[Any], inputs: list[Any], texts: list[str]) -> bool:
    """Whether a value, or a part of it that is large enough to tell, is among the inputs or a piece of one of their texts."""
    if isinstance(values[0], str | list | dict) and values[0] and values[0] in inputs:
        return True
    telling = [part for part in values if len(orjson.dumps(part)) >= SEEN + 2 * isinstance(part, str)]
    return any(part in inputs if not isinstance(part, str) else any(part in text for text in texts) for part in telling)


def _parts(data: bytes | None) -> list[Any]:
    """A JSON value and everything in it, the whole first."""
    left: list[Any] = [orjson.loads(data or b"null")]
    found: list[Any] = []
    while left and len(found) < PARTS:
        one = left.pop(0)
        found.append(one)
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
    return found
