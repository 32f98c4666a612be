"""Reading a trace: runs, the tree of a run, and what it took in all."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson

from myna.records import Json, RequestError, Usage
from myna.trace.store import Store, TraceError


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
DEEPEST = 200  # spans below each other: a file that somebody made up would end in a recursion without end
COLUMNS = ("id", "run", "parent", "kind", "name", "began", "ended", "outcome", "error")
_SPAN = f"SELECT facts, {', '.join(COLUMNS)} FROM spans"


def runs(store: Store, limit: int = 50) -> list[Node]:
    """The latest runs, newest first, each with all that is below it. Raises TraceError where one is damaged."""
    return [tree(store, id) for id in latest(store, limit)]


def latest(store: Store, limit: int = 50) -> list[int]:
    """The numbers of the latest runs, newest first."""
    return [id for (id,) in store.rows("SELECT id FROM spans WHERE parent IS NULL ORDER BY id DESC LIMIT ?", limit)]


def tree(store: Store, id: int) -> Node:
    """A span with all that is below it. Raises RequestError where there is none, TraceError where the file is damaged."""
    found = store.rows("SELECT run FROM spans WHERE id = ?", id) if id < 2**63 else []
    if not found:
        raise RequestError(f"there is no span {id} in {store.path}; see `myna trace list`.", param="span")
    (run,) = found[0]
    try:
        nodes = {row[1]: _node(*row) for row in store.rows(f"{_SPAN} WHERE run = ? ORDER BY id", run)}
        depths = dict.fromkeys(nodes, 0)
        for node in nodes.values():
            if node.parent in nodes and node.parent is not None:
                if node.parent >= node.id:  # what is below begins later
                    raise ValueError(f"span {node.id} is below span {node.parent}")
                if (depth := depths[node.parent] + 1) > DEEPEST:
                    raise ValueError(f"more than {DEEPEST} spans below each other")
                depths[node.id] = depth
                nodes[node.parent].below.append(node)
        _add_what_hangs_on(store, run, nodes)
    except (KeyError, TypeError, ValueError) as e:
        raise TraceError(f"{store.path}: run {run} is damaged: {e}.") from None
    return nodes[id]


def _node(facts: str, id: int, run: int, parent: int | None, kind: str, name: str, began: float, *ended: Any) -> Node:
    """A row as a span. Raises TypeError and ValueError where SQLite, which holds nothing to its types, has others."""
    noted = orjson.loads(facts)
    if not isinstance(noted, dict):
        raise TypeError(f"the facts of span {id} are no object")
    end, outcome, error = ended
    at = None if end is None else float(end)
    return Node(
        id, run, parent, str(kind), str(name), float(began), at, outcome and str(outcome), error and str(error), noted
    )


def _add_what_hangs_on(store: Store, run: int, nodes: dict[int, Node]) -> None:
    of_run = "JOIN spans ON spans.id = span WHERE run = ? ORDER BY"
    names = "span, model, prompt, request, reply, prompt_tokens, completion_tokens, cached_tokens, cost"
    for span, model, prompt, request, reply, *counts, cost in store.rows(
        f"SELECT {names} FROM calls {of_run} span", run
    ):
        usage = None if None in counts else Usage(*map(int, counts))
        nodes[span].call = Call(str(model), prompt, request, reply, usage, None if cost is None else float(cost))
    query = f"SELECT span, checks.name, ok, score, reason FROM checks {of_run} checks.rowid"
    for span, name, ok, score, reason in store.rows(query, run):
        nodes[span].checks.append(Checked(str(name), bool(ok), float(score), str(reason)))
    query = f"SELECT span, feedback.id, feedback.kind, value, consent, at FROM feedback {of_run} feedback.id"
    for span, id, kind, value, consent, at in store.rows(query, run):
        nodes[span].feedback.append(Said(id, str(kind), orjson.loads(value), bool(consent), float(at)))


def pass_rates(node: Node) -> dict[str, tuple[int, int]]:
    """Of each step's name below a span: how often all its own checks passed and it did not fail, of how often it ran."""
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for one in node.spans:
        if one.kind == "step":
            found[one.name].append(one.outcome == "ok" and all(check.ok for check in one.checks))
    return {name: (sum(passed), len(passed)) for name, passed in found.items()}
