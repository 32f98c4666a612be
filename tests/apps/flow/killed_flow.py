"""A flow of six steps, three of which write, in a process that is killed -9 at one point after the other.

Run as `killed_flow.py FOLDER`. The points: before and after every commit of the journal, in the middle of each transaction, before and
after every side effect. Each run is a process of its own (fork), killed by the system; then resumed, each time in a new process, until it
is done or asks. What it asks is answered by looking at the file of side effects, as a person would. One JSON line for each point.
"""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from myna.apps.flow import Happened, Journal, answer, flow, gather, here, open_questions, resume, run, step

FOLDER = Path()
POINT = {"now": 0, "kill": 0}


@dataclass(frozen=True)
class Note:
    text: str
    n: int


def point() -> None:
    """The process may die here."""
    POINT["now"] += 1
    if POINT["now"] == POINT["kill"]:
        os.kill(os.getpid(), signal.SIGKILL)


class Dying(Journal):
    """A journal whose process dies around its commits, or with half of a transaction made."""

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        point()
        with super().write() as db:
            yield db
            point()
        point()


def wrote(name: str, text: str) -> None:
    point()
    with (FOLDER / name).open("a", encoding="utf-8") as out:
        out.write(text + "\n")
        out.flush()
    point()


@step
async def plan(question: str) -> Note:
    wrote("reads", "plan")
    return Note(question, 3)


@step(effect="write")
async def order(note: Note) -> str:
    wrote("writes", f"order {note.text} {here().key}")
    return f"ordered {note.text}"


@step
async def look(ordered: str, n: int) -> str:
    wrote("reads", f"look {n}")
    return f"{ordered}, looked at {n}"


async def is_booked(seen: list[str]) -> Happened | Literal[False] | None:
    return Happened(len(seen)) if any(line.startswith("book ") for line in lines("writes")) else False


@step(effect="write", probe=is_booked)
async def book(seen: list[str]) -> int:
    wrote("writes", f"book {here().key}")
    return len(seen)


@step(effect="write")
async def mail(n: int, to: str) -> str:
    wrote("writes", f"mail {to} {here().key}")
    return f"{n} mails to {to}"


@step
async def close(mails: list[str]) -> str:
    wrote("reads", "close")
    return "; ".join(mails)


@flow
async def errand(question: str) -> str:
    note = await plan(question)
    ordered = await order(note)
    seen = [await look(ordered, n) for n in range(2)]
    booked = await book(seen)
    return await close(await gather(*(mail(booked, to) for to in ("王", "Li"))))


def lines(name: str) -> list[str]:
    path = FOLDER / name
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def forked(kill: int, number: int | None) -> tuple[bool, int]:
    """Run or resume in a process that dies at point `kill`: whether it was killed, and how many points it came past."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        POINT.update(now=0, kill=kill)
        journal = Dying(FOLDER / "flows.sqlite")
        ended = run(errand, journal, {"question": "问"}) if number is None else resume(errand, journal, number)
        outcome = asyncio.run(ended).outcome
        os.write(write, f"{POINT['now']} {outcome}".encode())
        os._exit(0)
    os.close(write)
    _, status = os.waitpid(child, 0)
    said = os.read(read, 100).decode().split()
    os.close(read)
    assert os.WIFSIGNALED(status) or said, "the child failed"
    return os.WIFSIGNALED(status), int(said[0]) if said else 0


def to_the_end(kills: list[int]) -> dict[str, Any]:
    """A run that is killed at each of these points, one process after the other, and then resumed until it is done."""
    asked = []
    for kill in [*kills, *[0] * 9]:
        journal = Journal(FOLDER / "flows.sqlite")
        runs = journal.runs()
        for row in open_questions(journal, runs[0].id) if runs else []:
            if row.name == "book":
                continue  # killed before its probe was asked; the next resume asks it
            asked.append(row.path)
            name, value = answer_of(row.name, json.loads(row.inputs))
            answer(journal, runs[0].id, row.path, name in " ".join(lines("writes")), value)
        if runs and runs[0].outcome == "done":
            break
        journal.close()
        forked(kill, runs[0].id if runs else None)
    steps = Counter(row.path for row in journal.steps(1) if row.state == "done")
    found = {"kills": kills, "asked": asked, "outcome": runs[0].outcome, "value": json.loads(runs[0].output or b"null"),
             "writes": lines("writes"), "reads": lines("reads"), "twice": [path for path, n in steps.items() if n > 1]}  # fmt: skip
    journal.close()
    for path in FOLDER.iterdir():
        path.unlink()
    return found


def answer_of(name: str, inputs: dict[str, Any]) -> tuple[str, bytes]:
    """What stands in the file of side effects if it happened, and what the step would have given."""
    if name == "order":
        return "order", json.dumps(f"ordered {inputs['note']['text']}").encode()
    return f"mail {inputs['to']}", json.dumps(f"{inputs['n']} mails to {inputs['to']}").encode()


def main(folder: str, every: int, pairs: bool) -> None:
    global FOLDER
    FOLDER = Path(folder)
    _, points = forked(0, None)
    for path in FOLDER.iterdir():
        path.unlink()
    print(json.dumps({"points": points}))
    for kill in range(1, points + 1):
        if kill % every == 0:
            print(json.dumps(to_the_end([kill])))
        for again in range(1, points, 5) if pairs and kill % 5 == 1 else ():
            print(json.dumps(to_the_end([kill, again])))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["pairs"])
