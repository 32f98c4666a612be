"""Reading a trace: runs, the tree of a run, and what it took in all."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson

from myna.records import Json, RequestError, Usage
from myna.trace.store import Store


@dataclass(frozen=True, slots=True)
class Call:
    """A call's hashes, and what it took: None where nobody said."""

    model: str
    prompt: str | None
    request: str
    reply: str | None
    usage: Usage | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class Checked:
    name: str
    ok: bool
    score: float
    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """Feedback of a person."""

    id: int
    kind: str
    value: Any
    consent: bool
    at: float


@dataclass(slots=True)
class Node:
    """A span with all that is below it. `outcome` is None while it is open, or where it was killed."""

    id: int
    run: int
    parent: int | None
    kind: str
    name: str
    began: float
    ended: float | None
    outcome: str | None
    error: str | None
    facts: Json
    call: Call | None = None
    checks: list[Checked] = field(default_factory=list)
    feedback: list[Said] = field(default_factory=list)
    below: "list[Node]" = field(default_factory=list)

    @property
    def spans(self) -> "list[Node]":
        """This one and all below it, in order."""
        return [self, *(one for node in self.below for one in node.spans)]


@dataclass(frozen=True, slots=True)
class Total:
    """What calls took together. Calls of which it is not known are counted, not guessed."""

    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost: float = 0.0
    unknown_usage: int = 0
    unknown_cost: int = 0


def total(nodes: list[Node]) -> Total:
    """The sum over the calls among some spans; a tree's is that of all its calls, each once."""
    calls = [node.call for node in nodes if node.call is not None]
    sums = [sum(getattr(call.usage, name) for call in calls if call.usage) for name in COUNTS]
    return Total(
        len(calls),
        Usage(*sums),
        sum(call.cost for call in calls if call.cost is not None),
        sum(call.usage is None for call in calls),
        sum(call.cost is None for call in calls),
    )


COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens")
COLUMNS = ("id", "run", "parent", "kind", "name", "began", "ended", "outcome", "error")
_SPAN = f"SELECT facts, {', '.join(COLUMNS)} FROM spans"


def runs(store: Store, limit: int = 50) -> list[Node]:
    """The latest runs, newest first, each with all that is below it."""
    ids = store.rows("SELECT id FROM spans WHERE parent IS NULL ORDER BY id DESC LIMIT ?", limit)
    return [tree(store, id) for (id,) in ids]


def tree(store: Store, id: int) -> Node:
    """A span with all that is below it. Raises RequestError where there is none."""
    found = store.rows("SELECT run FROM spans WHERE id = ?", id)
    if not found:
        raise RequestError(f"there is no span {id} in {store.path}; see `myna trace list`.", param="span")
    (run,) = found[0]
    rows = store.rows(f"{_SPAN} WHERE run = ? ORDER BY id", run)
    spans = (Node(facts=orjson.loads(facts), **dict(zip(COLUMNS, row, strict=True))) for facts, *row in rows)
    nodes = {node.id: node for node in spans}
    for node in nodes.values():
        if node.parent in nodes and node.parent is not None:
            nodes[node.parent].below.append(node)
    _add_what_hangs_on(store, run, nodes)
    return nodes[id]


def _add_what_hangs_on(store: Store, run: int, nodes: dict[int, Node]) -> None:
    of_run = "JOIN spans ON spans.id = span WHERE run = ? ORDER BY"
    names = "span, model, prompt, request, reply, prompt_tokens, completion_tokens, cached_tokens, cost"
    for span, model, prompt, request, reply, *counts, cost in store.rows(
        f"SELECT {names} FROM calls {of_run} span", run
    ):
        usage = None if None in counts else Usage(*counts)
        nodes[span].call = Call(model, prompt, request, reply, usage, cost)
    query = f"SELECT span, checks.name, ok, score, reason FROM checks {of_run} checks.rowid"
    for span, name, ok, score, reason in store.rows(query, run):
        nodes[span].checks.append(Checked(name, bool(ok), score, reason))
    query = f"SELECT span, feedback.id, feedback.kind, value, consent, at FROM feedback {of_run} feedback.id"
    for span, id, kind, value, consent, at in store.rows(query, run):
        nodes[span].feedback.append(Said(id, kind, orjson.loads(value), bool(consent), at))


def pass_rates(node: Node) -> dict[str, tuple[int, int]]:
    """Of each step's name below a span: how often all its own checks passed and it did not fail, of how often it ran."""
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for one in node.spans:
        if one.kind == "step":
            found[one.name].append(one.outcome == "ok" and all(check.ok for check in one.checks))
    return {name: (sum(passed), len(passed)) for name, passed in found.items()}
