"""The clerk's tasks by an agent and by a fixed flow, side by side: how many come out right, and what they take.

    gunzip -k Chinook_Sqlite.sqlite.gz
    python bench/agent.py http://127.0.0.1:8000/v1#MODEL --database Chinook_Sqlite.sqlite [--arms native bound react flow] [--out rows.jsonl]

A task is right by what is there in the end: the answer holds the number or the name, or the note holds the text. The flow asks the
database once (apps.sql.ask) and writes the note itself where the task wants one; it was told which kind of task it has, the agent was not.
Rates come with a 95 % interval (Wilson).
"""

import argparse
import asyncio
import os
import re
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from myna.apps.agent import run
from myna.apps.agent.file import AgentFile
from myna.apps.redteam.report import Rate
from myna.apps.tools import Tool, never
from myna.checks import contains, number
from myna.provider import Provider
from myna.provider.budget import Budget, Budgeted, Limits
from myna.provider.connect import connected
from myna.records import Candidate, Conversation, Message, MynaError
from myna.records.jsonl import read_rows

HERE = Path(__file__).parents[1] / "examples" / "clerk"
FILES = {"en": "clerk.md", "zh": "clerk_zh.md"}


@dataclass(frozen=True)
class Row:
    """A task by one arm. `calls` and `tokens` are the model's."""

    arm: str
    language: str
    task: str
    right: bool
    ended: str
    answer: str
    calls: float
    tokens: float
    seconds: float


def right(task: dict[str, Any], answer: str, notes: Path) -> bool:
    if name := task.get("note"):
        file = notes / f"{name}.txt"
        return file.is_file() and task["target"] in file.read_text(encoding="utf-8")
    rounded = re.sub(
        r"\d+\.\d{3,}", lambda found: f"{round(float(found[0]), 2):g}", answer
    )  # a sum of cents is no exact float
    talk, said = Conversation((), target=task["target"]), Candidate((Message("assistant", rounded),))
    check = {"number": number, "contains": contains}[task["check"]]
    return check(talk, said).ok


async def by_agent(
    task: dict[str, Any], provider: Provider, speech: Any, known: dict[str, Tool]
) -> tuple[str, str, Any]:
    agent, session = AgentFile.read(HERE / FILES[task["language"]]).begin({"task": task["task"]}, known)
    ended = await run(replace(agent, speech=speech), session, provider, ask=never)
    return ended.answer, ended.reason, ended.spent


async def by_flow(task: dict[str, Any], provider: Provider, notes: Path) -> tuple[str, str, Any]:
    from myna.apps.sql import ask, connect

    budget = Budget(Limits())
    try:
        answer = (await ask(Budgeted(provider, budget), connect(os.environ["CHINOOK"]), task["task"])).text
    except MynaError as e:
        return str(e), "error", budget.spent
    if name := task.get("note"):
        (notes / f"{name}.txt").write_text(answer, encoding="utf-8")
    return answer, "done", budget.spent


async def measured(arm: str, task: dict[str, Any], provider: Provider, notes: Path, known: dict[str, Tool]) -> Row:
    for old in notes.glob("*.txt"):
        old.unlink()
    began = time.monotonic()
    work = by_flow(task, provider, notes) if arm == "flow" else by_agent(task, provider, arm, known)
    answer, ended, spent = await work
    seconds = time.monotonic() - began
    return Row(
        arm,
        task["language"],
        task["task"],
        right(task, answer, notes),
        ended,
        answer,
        spent["calls"],
        spent["tokens"],
        seconds,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--database", required=True)
    parser.add_argument("--arms", nargs="+", default=["native", "bound", "react", "flow"])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    notes = Path(tempfile.mkdtemp())
    os.environ |= {"CHINOOK": given.database, "NOTES": str(notes)}
    from myna.commands.tools import tools_of  # the clerk's tools look at the environment when they are read

    known = {tool.name: tool for tool in tools_of(HERE / "tools.py")}
    tasks: list[Any] = [row for _, row in read_rows(HERE / "tasks.jsonl")]
    rows: list[Row] = []
    with connected(given.model) as provider:
        for arm in given.arms:
            for task in tasks:
                rows.append(asyncio.run(measured(arm, task, provider, notes, known)))
                print("right" if rows[-1].right else "wrong", arm, rows[-1].ended, rows[-1].task[:50], flush=True)
                if given.out:
                    given.out.write_bytes(b"".join(orjson.dumps(asdict(row)) + b"\n" for row in rows))
    for arm in given.arms:
        for language in ("en", "zh"):
            mine = [row for row in rows if (row.arm, row.language) == (arm, language)]
            means = [sum(getattr(row, name) for row in mine) / len(mine) for name in ("calls", "tokens", "seconds")]
            print(
                f"{arm} {language}: {Rate(sum(row.right for row in mine), len(mine))}; a task {means[0]:.1f} calls, {means[1]:.0f} tokens, {means[2]:.1f} s"
            )


if __name__ == "__main__":
    main()
