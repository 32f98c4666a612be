"""Files of ours that somebody keeps are read by every later version: each kind, each version of it, as it was written then.

A kind that gets a new version gets a file of it, too: `python tests/test_stored_formats.py` writes those that are missing into
tests/golden, with the code as it is. A file that is there is never written again. (The index's own: tests/apps/index/golden.)
"""

import asyncio
import gzip
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from myna.apps.agent import memory, runs
from myna.apps.agent.memory import Memory
from myna.apps.agent.runs import Runs
from myna.apps.agent.session import Session
from myna.apps.flow import journal
from myna.apps.flow.journal import End, Journal
from myna.apps.tools import tool
from myna.apps.tools.approvals import Approvals
from myna.checks import Verdict, reviews
from myna.checks.reviews import Answered, Reviews
from myna.checks.reviews import Asked as AskedReview
from myna.provider import Scripted, complete
from myna.provider.recorded import Recorded
from myna.provider.traced import Traced
from myna.records import Candidate, Conversation, Message, ToolCall
from myna.trace import Trace
from myna.trace import store as trace_store
from myna.trace.read import tree

GOLDEN = Path(__file__).with_name("golden")
QUESTION, ANSWER = Conversation.ask("谁建的桥？ Who built it?"), "李春 built it."
SESSION = Session([Message("user", "Count 顾客"), Message("assistant", "5")], run="r1", facts=["five"])


@tool(effect="write")
def note(text: str) -> str:
    """Write a note."""
    return text


NOTE = replace(note, source="a test")  # what was approved is this definition, wherever it is imported from


def write_trace(path: Path) -> None:
    with closing(Trace(path)) as trace:
        with trace.span("flow", "问答", given="桥") as span:
            asyncio.run(complete(Traced(Scripted([ANSWER]), trace), QUESTION))
            span.check("length", True, 1.0, "short")
        trace.feedback(span.id, "thumb", 1, consent=True)


def read_trace(path: Path) -> Any:
    with closing(Trace(path)) as trace:
        root = tree(trace.store, 1)
        again = asyncio.run(complete(Recorded(trace, 1), QUESTION))
        return (
            root.name,
            root.facts["given"],
            [one.kind for one in root.below],
            len(root.checks),
            root.feedback[0].consent,
            again.text,
        )


def write_journal(path: Path) -> None:
    with closing(Journal(path)) as kept:
        run = kept.begin_run("desk", "desk.py", b'{"question":"?"}', "m", 3)
        row = journal.StepRow(
            0, run, "answer", 1, 1, "answer", "write", "c0de", "hash", b"{}", "intent", None, None, None, False, 1.0, None, None, None
        )  # fmt: skip
        step = kept.begin(row)
        kept.end(step.id, End("done", '"五"'.encode(), verdicts={"number": Verdict.of(True)}, calls=1, tokens=7))
        kept.end_run(run, "done", b'"5"', "", [])


def read_journal(path: Path) -> Any:
    with closing(Journal(path)) as kept:
        (run,) = kept.runs()
        (step,) = kept.steps(run.id)
        return (
            run.flow,
            run.outcome,
            run.output,
            step.state,
            step.output,
            step.tokens,
            [name for name, _ in step.verdicts],
        )


def write_memory(path: Path) -> None:
    with closing(Memory(path)) as kept:
        asyncio.run(kept.remember("住在里昂 lives in Lyon", about="city", source="run r0"))
        asyncio.run(kept.remember("住在杭州 lives in Hangzhou", about="city", source="run r1", tainted=True))


def read_memory(path: Path) -> Any:
    with closing(Memory(path)) as kept:
        (now,) = asyncio.run(kept.recall("杭州"))
        return now.text, now.source, now.tainted, [one.text for one in kept.history(now.id)]


def write_runs(path: Path) -> None:
    with closing(Runs(path)) as kept:
        kept.begin(SESSION, "clerk.md", "v1", {"task": "Count 顾客"})
        kept.save(SESSION, "done")


def read_runs(path: Path) -> Any:
    with closing(Runs(path)) as kept:
        found = kept.find("r1")
        return found.file, found.state, dict(found.given), found.session == SESSION


def write_reviews(path: Path) -> None:
    with closing(Reviews(path)) as kept:
        said = Candidate((Message("assistant", ANSWER),), finish_reason="stop")
        kept.answer(kept.put(AskedReview("好吗？", QUESTION, said)), Answered("edit", "李春。"))


def read_reviews(path: Path) -> Any:
    with closing(Reviews(path)) as kept:
        found = kept.review(1)
        return found.question.question, found.question.candidate.text, found.answered


def write_approvals(path: Path) -> None:
    with closing(Approvals(path, now=lambda: 1000.0)) as kept:
        for number in range(2):
            kept.ask("r1", ToolCall(f"c{number}", "note", "{}"), NOTE, '{"text":"备注"}', "it writes")
        kept.decide(kept.waiting()[0].id, True)


def read_approvals(path: Path) -> Any:
    with closing(Approvals(path, now=lambda: 1001.0)) as kept:
        first = ToolCall("c0", "note", "{}")
        granted = [kept.use("r1", first, NOTE, '{"text":"备注"}') is not None for _ in range(2)]
        return granted, [(one.call, one.arguments) for one in kept.waiting()]


Kind = tuple[int, Callable[[Path], None], Callable[[Path], Any], Any]
KINDS: dict[str, Kind] = {
    "trace": (trace_store.LAYOUT.version, write_trace, read_trace, ("问答", "桥", ["call"], 1, True, ANSWER)),
    "journal": (
        journal.LAYOUT.version, write_journal, read_journal, ("desk", "done", b'"5"', "done", '"五"'.encode(), 7, ["number"])
    ),
    "memory": (
        memory.LAYOUT.version, write_memory, read_memory,
        ("住在杭州 lives in Hangzhou", "run r1", True, ["住在杭州 lives in Hangzhou", "住在里昂 lives in Lyon"]),
    ),
    "runs": (runs.LAYOUT.version, write_runs, read_runs, ("clerk.md", "done", {"task": "Count 顾客"}, True)),
    "reviews": (reviews.LAYOUT.version, write_reviews, read_reviews, ("好吗？", ANSWER, Answered("edit", "李春。"))),
    "approvals": (1, write_approvals, read_approvals, ([True, False], [("c1", '{"text":"备注"}')])),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_version_of_a_file_is_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    version, _, read, expected = KINDS[kind]
    for number in range(1, version + 1):
        path = tmp_path / f"{kind}-{number}.sqlite"
        with gzip.open(GOLDEN / f"{path.name}.gz") as kept, path.open("wb") as file:
            shutil.copyfileobj(kept, file)
        assert read(path) == expected


def make() -> None:
    import tempfile

    for kind, (version, write, *_) in KINDS.items():
        kept = GOLDEN / f"{kind}-{version}.sqlite.gz"
        if not kept.exists():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / kept.stem
                write(path)
                assert [one.name for one in Path(folder).iterdir()] == [path.name], (
                    "the write-ahead log is not in the file"
                )
                kept.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
            print(kept, file=sys.stderr)


if __name__ == "__main__":
    make()
