"""A session that is kept knows of each write before it begins: one that a kill cut off is in doubt, and is never made again."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from apps_agent import Speech

from myna.apps.agent import Agent, Ended, Session, run
from myna.apps.agent.runs import AgentFileError, Runs
from myna.apps.tools import Approvals, Asked, Effect, Tool, later, tool
from myna.provider import Scripted


async def yes(asked: Asked) -> bool:
    return True


class Process:
    """Keeps sessions as a file would, and dies in the middle of a write: what was kept by then is what the next one finds."""

    def __init__(self, effect: Effect) -> None:
        self.kept: list[str] = []
        self.left = ""
        self.done: list[str] = []

        @tool(effect=effect)
        async def send(text: str) -> str:
            """Send something for good."""
            self.done.append(text)
            self.left = self.kept[-1] if self.kept else ""
            return "sent"

        self.send: Tool = send

    def keep(self, session: Session) -> None:
        self.kept.append(json.dumps(session.to_json()))

    @property
    def found(self) -> Session:
        return Session.from_json(json.loads(self.left), ours=True)


def ran(agent: Agent, session: Session, process: Process, script: list[Any], ask: Any = yes) -> Ended:
    given: dict[str, Any] = {"ask": ask, "approvals": Approvals(), "keep": process.keep}  # approvals that no file holds
    return asyncio.run(run(agent, session, Scripted(script), **given))


@pytest.mark.parametrize("helped", [False, True])
def test_a_write_that_waited_and_was_cut_off_is_in_doubt(speech: Speech, helped: bool) -> None:
    process = Process("danger")
    agent = Agent("clerk", "", (process.send,), speech=speech.speech)
    asks = [speech.call("send", {"text": "好"})]
    if helped:
        agent, asks = (
            Agent("boss", "", helpers=(agent,), speech=speech.speech),
            [speech.call("clerk", {"task": "send"}), *asks],
        )
    session = Session.of("Send it.")
    assert ran(agent, session, process, asks, ask=later).reason == "approval"
    ran(agent, Session.from_json(json.loads(process.kept[-1]), ours=True), process, [speech.answer("ok")] * 2)
    assert process.done == ["好"]
    again = ran(agent, process.found, process, [speech.answer("in doubt")] * 2)
    assert (again.reason, process.done) == ("done", ["好"])
    told = json.dumps(again.session.to_json()) if helped else str([m.text for m in again.messages])
    assert helped or "interrupted" in told


def test_a_write_that_asked_nobody_is_in_doubt_too(speech: Speech) -> None:
    process = Process("write")
    agent = Agent("clerk", "", (process.send,), speech=speech.speech)
    ran(agent, Session.of("Send it."), process, [speech.call("send", {"text": "a"}), speech.answer("ok")])
    assert process.found.spent["steps"] == process.found.spent["calls"] == 1  # a kill gives nothing back
    ran(agent, process.found, process, [speech.answer("?")])
    assert process.done == ["a"]


def test_what_cannot_be_kept_is_not_begun(speech: Speech) -> None:
    process = Process("write")
    agent = Agent("clerk", "", (process.send,), speech=speech.speech)

    def full(session: Session) -> None:
        if session.open:
            raise OSError(28, "No space left on device")

    script = Scripted([speech.call("send", {"text": "a"}), speech.answer("ok")])
    with pytest.raises(OSError, match="No space"):
        asyncio.run(run(agent, Session.of("Send it."), script, keep=full))
    assert process.done == []


def test_every_event_is_kept_before_it_is_told(speech: Speech) -> None:
    process = Process("write")
    agent = Agent("clerk", "", (process.send,), speech=speech.speech)
    ended = ran(agent, Session.of("Send it."), process, [speech.call("send", {"text": "a"}), speech.answer("ok")])
    assert json.loads(process.kept[-1]) == ended.session.to_json()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("answer", {"text": "\ud83d"}),
        ("pin", {"fact": "\ud83d"}),
        ("make_plan", {"steps": ["\ud83d"], "checks": ["seen"]}),
    ],
)
def test_half_of_a_character_is_kept_as_a_question_mark(name: str, arguments: Any, tmp_path: Path) -> None:
    speech, runs, session = Speech("bound"), Runs(tmp_path / "runs.sqlite"), Session.of("?")
    runs.begin(session, "agent.md", "v", {})
    script = [speech.call(name, json.dumps(arguments)), speech.answer("end")]
    ended = asyncio.run(run(Agent("a", "", plan=True, speech="bound"), session, Scripted(script), keep=runs.save))
    assert ended.reason == "done"
    found = runs.find(session.run).session
    assert "?" in (found.messages[-1].text if name == "answer" else str(found.facts) + str(found.plan))


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    runs, session = Runs(tmp_path / "runs.sqlite"), Session.of("?")
    runs.begin(session, "agent.md", "v", {})
    for text in ("{", "{}", "[]"):
        with sqlite3.connect(runs.path) as db:
            db.execute("UPDATE agent_runs SET session = ?", (text,))
        with pytest.raises(AgentFileError, match=f"run {session.run[:12]} in .* is damaged"):
            runs.find(session.run)
