"""A trace file may be damaged, or a stranger's who means ill: it is said, and nothing else happens."""

import sqlite3
from pathlib import Path

import pytest

from myna.records import Candidate, Conversation, Message, Reply, RequestError, Sampling, Usage
from myna.trace import Trace, TraceError
from myna.trace.read import DEEPEST, tree
from myna.trace.request import read_reply, read_request
from myna.trace.store import canonical, digest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Run 1 with call 2, which has a check and a note."""
    trace = Trace(tmp_path / "t.sqlite")
    with trace.span("flow", "f") as flow:
        call = trace.begin("call", "m")
        call.ask("m", Conversation.ask("Hi"), Sampling(stop=("x",)))
        call.reply("m", Reply((Candidate((Message("assistant", "Hello."),), finish_reason="stop"),)), Usage(1, 2, 0))
        call.check("short", True, 1.0)
        call.end()
    trace.feedback(call.id, "note", "好", consent=False)
    assert flow.id == 1
    trace.close()
    return tmp_path / "t.sqlite"


def changed(path: Path, *statements: str) -> Trace:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            db.execute(statement)
    db.close()
    return Trace(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE spans SET facts = '{'",
        "UPDATE spans SET facts = '[1]'",
        "UPDATE spans SET facts = 7",
        "UPDATE spans SET began = 'long ago'",
        "UPDATE spans SET ended = 'soon'",
        "UPDATE spans SET parent = id",
        "UPDATE spans SET parent = 3 - id",
        "UPDATE calls SET prompt_tokens = 'many'",
        "UPDATE calls SET cost = 'dear'",
        "UPDATE checks SET score = 'high'",
        "UPDATE feedback SET value = '{'",
        "UPDATE feedback SET at = 'now'",
    ],
)
def test_rows_that_are_none_of_ours_are_named(path: Path, statement: str) -> None:
    trace = changed(path, statement)
    with pytest.raises(TraceError, match=r"t\.sqlite: run 1 is damaged: "):
        tree(trace.store, 1)


def test_spans_without_end_below_each_other_are_damage(path: Path) -> None:
    rows = [f"INSERT INTO spans (id, run, parent, kind, name, began) VALUES ({n}, 1, {n - 1}, 's', 's', 0)" for n in range(3, 2000)]  # fmt: skip
    deep = changed(path, *rows[: DEEPEST - 1])
    assert len(tree(deep.store, 1).spans) == DEEPEST + 1
    with pytest.raises(TraceError, match="below each other"):
        tree(changed(path, *rows[DEEPEST - 1 :]).store, 1)


def kept(value: object) -> str:
    data = canonical(value) if not isinstance(value, bytes) else value
    return f"INSERT INTO contents VALUES ('{digest(data)}', x'{data.hex()}')"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("request", b"{"),
        ("request", 5),
        ("request", {"sampling": {}}),
        ("request", {"sampling": {"evil": 1}, "messages": []}),
        ("request", {"sampling": {}, "messages": [7]}),
        ("reply", []),
        ("reply", {"candidates": []}),
        ("reply", {"candidates": [{"messages": [], "finish_reason": "stop"}]}),
    ],
)
def test_contents_of_another_shape_are_named(path: Path, column: str, value: object) -> None:
    hash = digest(value if isinstance(value, bytes) else canonical(value))
    trace = changed(path, kept(value), f"UPDATE calls SET {column} = '{hash}'")
    with pytest.raises(TraceError, match=r"t\.sqlite: the content"):
        read_request(trace.store, hash) if column == "request" else read_reply(trace.store, hash, Usage())


def test_a_number_that_no_span_can_have_is_no_span(path: Path) -> None:
    with pytest.raises(RequestError, match="there is no span 1000"):
        tree(Trace(path).store, 10**30)


def test_a_database_that_happens_to_have_spans_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "bridge.sqlite") as db:
        db.execute("CREATE TABLE spans (metres REAL)")
    db.close()
    before = (tmp_path / "bridge.sqlite").read_bytes()
    with pytest.raises(TraceError, match="is a database, and no trace file"):
        Trace(tmp_path / "bridge.sqlite")
    assert (tmp_path / "bridge.sqlite").read_bytes() == before
