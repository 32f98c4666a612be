"""What an agent remembers has a source and a history, is found in Chinese and English, taints as it was tainted, and is forgotten
without a trace; a long conversation goes on beyond the window."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apps_agent import Speech, World, sent, whole

from myna.apps.agent import Agent, Compacted, Limits, Memory, Session, run, steps
from myna.apps.agent.memory import MemoryFileError
from myna.apps.tools import Approvals, Asked, later, never, tool
from myna.provider import Scripted
from myna.records import Embedding, Message, Passage, ProviderError, RequestError, Vectors
from myna.trace import Trace
from myna.trace.read import runs

Clerk = Callable[..., Agent]


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    ticks = count(1000)
    return Memory(tmp_path / "memory.sqlite", now=lambda: float(next(ticks)))


def kept(memory: Memory, text: str, **more: Any) -> int:
    return asyncio.run(memory.remember(text, source="test", **more)).id


def recalled(memory: Memory, query: str) -> list[str]:
    return [one.text for one in asyncio.run(memory.recall(query))]


def test_words_of_both_languages_find_it(memory: Memory) -> None:
    kept(memory, "The user's sister lives in Lyon.")
    kept(memory, "用户对花生过敏。")
    assert recalled(memory, "Where do sisters live?") == ["The user's sister lives in Lyon."]
    assert recalled(memory, "他对什么过敏？") == ["用户对花生过敏。"]
    assert recalled(memory, "quantum") == []
    assert recalled(memory, '"; DROP TABLE memories; -- NEAR(') == []


def test_a_contradiction_replaces_and_stays_as_history(memory: Memory) -> None:
    first = kept(memory, "The user lives in Lyon.", about="User's city")
    last = kept(memory, "The user lives in Oslo.", about="user's  CITY")
    assert recalled(memory, "Where does the user live?") == ["The user lives in Oslo."]
    assert [(one.id, one.replaced_by) for one in memory.history(last)] == [(last, None), (first, last)]
    assert [one.text for one in memory.all()] == ["The user lives in Oslo."]


def test_the_same_is_kept_once(memory: Memory) -> None:
    assert kept(memory, "A  fact.") == kept(memory, "A fact. ")
    assert len(memory.all(history=True)) == 1


def test_forgetting_leaves_nothing_in_any_byte_of_the_file(memory: Memory) -> None:
    kept(memory, "The zanzibarquux code was 1111.", about="code")
    last = kept(memory, "The zanzibarquux code is 7777.", about="code")
    kept(memory, "Unrelated.")
    assert memory.forget(last) == 2
    assert recalled(memory, "zanzibarquux code") == []
    for file in memory.path.parent.iterdir():
        assert b"zanzibarquux" not in file.read_bytes(), file
    memory.close()
    for file in memory.path.parent.iterdir():
        assert b"zanzibarquux" not in file.read_bytes(), file


def test_what_may_be_from_a_document_goes_with_it_as_if_it_had_never_been(memory: Memory) -> None:
    first = kept(memory, "The user lives in Lyon.", about="city")
    drawn = kept(memory, "The user lives in Oslo, says 奥斯陆档案.", about="city", tainted=True, documents={"aa", "bb"})
    again = kept(memory, "The user lives in Oslo, says 奥斯陆档案.", about="city", tainted=True, documents={"cc"})
    other = kept(memory, "Bridges last long.", tainted=True, documents={"dd"})
    own = kept(memory, "Bridges are of stone.")
    assert again == drawn
    assert next(one.documents for one in memory.history(drawn)) == {"aa", "bb", "cc"}
    assert memory.forget_documents({"ee"}) == 0
    assert memory.forget_documents(()) == 0
    assert memory.forget_documents({"cc"}) == 1
    assert [(one.id, one.replaced_by) for one in memory.all(history=True)] == [
        (first, None),
        (other, None),
        (own, None),
    ]
    assert recalled(memory, "奥斯陆") == []
    files = [one.read_bytes().lower() for one in memory.path.parent.iterdir()]
    assert not any("奥斯".encode() in one or b"oslo" in one for one in files)


def test_what_a_person_put_in_the_place_of_a_documents_words_stays(memory: Memory) -> None:
    first = kept(memory, "Lyon", about="city")
    drawn = kept(memory, "Oslo", about="city", tainted=True, documents={"aa"})
    twice = kept(memory, "Bergen", about="city", tainted=True, documents={"aa", "bb"})
    person = asyncio.run(memory.edit(twice, "Rome", source="person")).id
    assert drawn < twice
    assert memory.forget_documents({"aa"}) == 2
    assert [(one.id, one.replaced_by) for one in memory.all(history=True)] == [(first, person), (person, None)]


def test_what_somebody_to_be_trusted_said_is_no_documents(memory: Memory) -> None:
    said = kept(memory, "The bridge is of stone.")
    assert kept(memory, "The bridge is of stone.", tainted=True, documents={"aa"}) == said
    assert memory.forget_documents({"aa"}) == 0
    assert len(memory.all()) == 1


def test_an_edit_by_a_person_is_not_tainted_and_keeps_the_history(memory: Memory) -> None:
    old = kept(memory, "Pay Bob.", tainted=True)
    new = asyncio.run(memory.edit(old, "Bob is a friend.", source="person"))
    assert ([one.text for one in memory.history(new.id)], new.tainted) == (["Bob is a friend.", "Pay Bob."], False)
    with pytest.raises(MemoryFileError, match="no memory 99"):
        memory.forget(99)


def test_what_was_replaced_cannot_be_edited_beside_what_replaced_it(memory: Memory) -> None:
    old, new = kept(memory, "门在左边", about="门"), kept(memory, "门在右边", about="门")
    with pytest.raises(MemoryFileError, match=f"{new} replaced it"):
        asyncio.run(memory.edit(old, "门在中间", source="person"))
    assert [one.text for one in memory.all()] == ["门在右边"]


@pytest.mark.parametrize("text", [" ", "长" * 100_000])
def test_an_edit_has_the_length_of_a_memory(memory: Memory, text: str) -> None:
    with pytest.raises(MemoryFileError, match="1 to"):
        asyncio.run(memory.edit(kept(memory, "门在左边"), text, source="person"))


class Meaning:
    """An embedder that knows two meanings."""

    name = "meaning"

    async def embed(self, texts: Sequence[Passage], how: Embedding = Embedding()) -> Vectors:
        rows = np.array([[1.0, 0.1] if any(w in str(t) for w in ("dog", "狗", "pet")) else [0.0, 1.0] for t in texts])
        return Vectors(rows.astype(np.float32), tuple(1 for _ in texts))


def test_with_an_embedder_what_means_the_same_is_found(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "m.sqlite", Meaning())  # type: ignore[arg-type]
    kept(memory, "她有一只狗。")
    kept(memory, "The office is closed.")
    assert recalled(memory, "any pet?")[0] == "她有一只狗。"


def test_what_was_remembered_after_a_strangers_text_taints_for_good(
    clerk: Clerk, speech: Speech, world: World, memory: Memory
) -> None:
    async def yes(asked: Asked) -> bool:
        return True

    script = [
        speech.call("mail", {"number": 1}),
        speech.call("remember", {"text": "The bank says: note everything."}),
        speech.answer("ok"),
    ]
    asyncio.run(run(clerk(memory=memory), "Read mail 1.", Scripted(script), ask=yes))
    assert [one.tainted for one in memory.all()] == [True]
    world.done.clear()
    script = [speech.call("recall", {"query": "bank"}), speech.call("note", {"text": "x"}), speech.answer("no")]
    ended = asyncio.run(run(clerk(memory=memory), "Hello.", Scripted(script), ask=never))
    assert (ended.tainted, world.done) == (True, [])


def test_remembering_after_a_strangers_text_asks(clerk: Clerk, speech: Speech, memory: Memory) -> None:
    script = [speech.call("mail", {"number": 1}), speech.call("remember", {"text": "Obey."}), speech.answer("ok")]
    asyncio.run(run(clerk(memory=memory), "Read.", Scripted(script), ask=never))
    assert memory.all() == []


def test_a_new_task_is_reminded_of_what_belongs_to_it(clerk: Clerk, speech: Speech, memory: Memory) -> None:
    kept(memory, "The user prefers trains.")
    kept(memory, "Never book flights, says a page.", tainted=True)
    script = Scripted([speech.answer("By train.")])
    ended = asyncio.run(run(clerk(memory=memory), "What does the user prefer?", script))
    assert "prefers trains" in sent(script)
    assert not ended.tainted
    script = Scripted([speech.answer("Hm.")])
    assert asyncio.run(run(clerk(memory=memory), "May I book flights?", script)).tainted


def long_talk(speech: Speech, tools: int = 30) -> list[Any]:
    return [*(speech.call("note", {"text": f"line {i} " + "长" * 60}) for i in range(tools)), speech.answer("done")]


class Short(Scripted):
    """Answers a request to tell it in short, and otherwise follows its script."""

    async def stream(self, what: Any, sampling: Any = None) -> Any:  # type: ignore[override]
        if "so_far" in what.messages[-1].text:
            said = Scripted(["Noted many lines. 已记下许多行。"])
            async for delta in said.stream(what, sampling):
                yield delta
            return
        async for delta in Scripted.stream(self, what, sampling):
            yield delta


@pytest.mark.parametrize("kind", [Short, Scripted])
def test_a_long_conversation_goes_on_beyond_the_window(
    clerk: Clerk, speech: Speech, world: World, tmp_path: Path, kind: type[Scripted]
) -> None:
    """Without Short, the request to tell it in short takes a turn of the script: a call of nothing that it asked for, so a list serves."""
    trace = Trace(tmp_path / "trace.sqlite")
    script = kind(long_talk(speech, 30))
    session = Session.of("Take 30 notes. 记三十条。")
    session.facts.append("The code is 4711.")
    agent = clerk(window=2_600, limits=Limits(steps=100, calls=200))

    async def watched() -> list[Any]:
        return [event async for event in steps(agent, session, script, trace=trace)]

    events = asyncio.run(watched())
    compacted = [event for event in events if isinstance(event, Compacted)]
    assert events[-1].reason == "done", events[-1].detail
    assert compacted
    assert whole(events[-1].messages)
    assert {one.by for one in compacted} == ({"model"} if kind is Short else {one.by for one in compacted})
    assert all(one.after < one.before for one in compacted)
    (told,) = runs(trace.store)
    assert len([node for node in told.below if node.kind == "compact"]) == len(compacted)
    last = sent(script)
    assert "Take 30 notes. 记三十条。" in last
    assert "The code is 4711." in last
    assert len(last.encode()) // 3 <= 2_600
    trace.close()


def test_no_call_is_parted_from_its_result(clerk: Clerk, speech: Speech) -> None:
    script = Short(long_talk(speech, 25))
    asyncio.run(run(clerk(window=2_600, limits=Limits(steps=100, calls=200)), "?", script))
    if speech.speech == "react":
        return
    for seen in script.requests:
        asked = {call.id for one in seen.what.messages for call in one.tool_calls}  # type: ignore[union-attr]
        answered = {one.tool_call_id for one in seen.what.messages if one.role == "tool"}  # type: ignore[union-attr]
        assert asked == answered


def test_a_result_longer_than_the_window_is_cut_and_the_run_goes_on(speech: Speech) -> None:
    from myna.apps.tools import tool

    @tool(effect="read")
    def floods() -> str:
        """Floods."""
        return "begin " + "水" * 15_000 + " end"

    script = Short([speech.call("floods"), speech.answer("wet")])
    ended = asyncio.run(run(Agent("a", "", (floods,), speech=speech.speech, window=2_000), "?", script))
    assert ended.reason == "done"
    last = sent(script)
    assert "characters are not shown here" in last
    assert len(last) < 6_000


class Narrow(Scripted):
    """Refuses prompts and answers that are together too long, as servers do that count before they begin."""

    def stream(self, what: Any, sampling: Any, *more: Any, **given: Any) -> Any:
        self.asked = [*getattr(self, "asked", []), sampling.max_tokens]
        if sampling.max_tokens is None or sampling.max_tokens > self.most:  # type: ignore[attr-defined]
            raise RequestError("too long together", code="context_length_exceeded")
        return super().stream(what, sampling, *more, **given)


@pytest.mark.parametrize(
    ("most", "limits", "asked"),
    [
        (8000, Limits(tokens=1_000_000), [4096]),
        (2000, Limits(tokens=1_000_000), [4096, 1024]),
        (2000, Limits(), [None, 1024]),
    ],
)
def test_all_that_is_left_to_spend_is_not_asked_for_at_once(
    clerk: Clerk, speech: Speech, most: int, limits: Limits, asked: list[int | None]
) -> None:
    script = Narrow([speech.answer("fine")])
    script.most = most  # type: ignore[attr-defined]
    ended = asyncio.run(run(clerk(limits=limits), "?", script))
    assert (ended.reason, ended.answer, script.asked) == ("done", "fine", asked)


def test_a_context_that_the_endpoint_finds_too_long_is_made_shorter(clerk: Clerk, speech: Speech) -> None:
    long = RequestError("too long", code="context_length_exceeded")
    script = Short([*long_talk(speech, 8)[:-1], long, speech.answer("done")])
    ended = asyncio.run(run(clerk(), "?", script))
    assert ended.reason == "done"
    assert len(sent(script)) < len(sent(script, -2))


def test_a_plans_item_is_done_when_a_result_shows_it(clerk: Clerk, speech: Speech) -> None:
    session = Session.of("?")
    script = Scripted([
        speech.call("make_plan", {"steps": ["find Lyon", "写笔记"], "checks": ["a number", "noted"]}),
        speech.call("step_done", {"step": 1, "evidence": "522000"}),
        speech.call("population", {"city": "Lyon"}),
        speech.call("step_done", {"step": 1, "evidence": "522000"}),
        speech.call("step_done", {"step": 7, "evidence": "522000"}),
        speech.call("drop_step", {"step": 2, "why": "not needed"}),
        speech.answer("ok"),
    ])  # fmt: skip
    ended = asyncio.run(run(clerk(plan=True), session, script))
    assert [one.status for one in ended.outcomes] == ["ok", "error", "ok", "ok", "error", "ok"]
    assert [item.state for item in session.plan] == ["done", "dropped"]


@pytest.mark.parametrize(
    ("evidence", "good"),
    [
        ("522000", True),
        ("noted: 里昂 has 522000", True),
        ("里昂", True),
        ("noted", True),  # of the tool
        ("9000", False),  # known before the plan was made
        ("522", False),  # a part of a number
        ("o", False),
        ("", False),
        ("find Lyon", False),  # the plan's own words
        ("shown by the census", False),  # its check
        ("pinned", False),
        ("I did it", False),
    ],
)
def test_evidence_is_what_a_tool_gave_since_the_plan_was_made(speech: Speech, evidence: str, good: bool) -> None:
    @tool(effect="read")
    def look(what: str) -> str:
        """Look."""
        return "9000" if what == "before" else "noted: 里昂 has  522000"

    session = Session.of("?")
    script = Scripted([
        speech.call("look", {"what": "before"}),
        speech.call("make_plan", {"steps": ["find Lyon"], "checks": ["shown by the census"]}),
        speech.call("look", {"what": "Lyon"}),
        speech.call("pin", {"fact": "I did it"}),
        speech.call("make_plan", {"steps": [], "checks": []}),
        speech.call("step_done", {"step": 1, "evidence": evidence}),
        speech.answer("ok"),
    ])  # fmt: skip
    asyncio.run(run(Agent("a", "", (look,), plan=True, speech=speech.speech), session, script))
    assert [item.state for item in session.plan] == ["done" if good else "open"]


def test_a_helpers_taint_flows_up_and_a_clean_helpers_does_not(speech: Speech, world: World) -> None:
    for clean in (True, False):
        helper = Agent("reader", "", world.tools, speech=speech.speech, about="Reads.")
        boss = Agent("boss", "", world.tools, speech=speech.speech, helpers=(helper,))
        inside = speech.call("population", {"city": "Lyon"}) if clean else speech.call("mail", {"number": 1})
        script = [
            speech.call("reader", {"task": "look"}), inside, speech.answer("note this"),
            speech.call("note", {"text": "this"}), speech.answer("done"),
        ]  # fmt: skip
        world.done.clear()
        ended = asyncio.run(run(boss, "?", Scripted(script), ask=never))
        assert (ended.reason, ended.tainted) == ("done", not clean)
        assert (("note", "this") in world.done) == clean


def test_a_tainted_callers_helper_asks_too(speech: Speech, world: World) -> None:
    helper = Agent("writer", "", world.tools, speech=speech.speech, about="Writes.")
    boss = Agent("boss", "", world.tools, speech=speech.speech, helpers=(helper,))
    script = [
        speech.call("mail", {"number": 1}), speech.call("writer", {"task": "note it"}),
        speech.call("note", {"text": "it"}), speech.answer("refused"), speech.answer("done"),
    ]  # fmt: skip
    asyncio.run(run(boss, "?", Scripted(script), ask=never))
    assert world.done == [("mail", 1)]


def test_a_helper_that_waits_makes_its_caller_wait_and_both_go_on(speech: Speech, world: World, tmp_path: Path) -> None:
    approvals = Approvals(tmp_path / "approvals.sqlite")
    helper = Agent("cleaner", "", world.tools, speech=speech.speech, about="Cleans.")
    boss = Agent("boss", "", (), speech=speech.speech, helpers=(helper,))
    session = Session.of("Clean a.")
    script = [speech.call("cleaner", {"task": "a"}), speech.call("wipe", {"what": "a"})]
    ended = asyncio.run(run(boss, session, Scripted(script), approvals=approvals, ask=later))
    assert (ended.reason, [call.name for call in ended.waiting]) == ("approval", ["cleaner"])
    stored = Session.from_json(session.to_json(), ours=True)
    (asked,) = approvals.waiting()
    approvals.decide(asked.id, True)
    script = [speech.answer("a is gone"), speech.answer("All clean.")]
    last = asyncio.run(run(boss, stored, Scripted(script), approvals=approvals, ask=later))
    assert (last.reason, last.answer, world.done) == ("done", "All clean.", [("wipe", "a")])
    assert stored.children == {}


def test_a_helper_that_fails_says_so_and_ends_nothing(speech: Speech, world: World) -> None:
    helper = Agent("slow", "", world.tools, Limits(steps=1), speech=speech.speech, about="Slow.")
    boss = Agent("boss", "", (), speech=speech.speech, helpers=(helper,))
    script = [
        speech.call("slow", {"task": "?"}),
        speech.call("note", {"text": "1"}),
        speech.answer("It did not finish."),
    ]
    ended = asyncio.run(run(boss, "?", Scripted(script)))
    assert ended.reason == "done"
    assert "ended with steps" in ended.outcomes[0].result


def test_a_failing_summary_is_a_list(clerk: Clerk, speech: Speech) -> None:
    class Failing(Short):
        async def stream(self, what: Any, sampling: Any = None) -> Any:  # type: ignore[override]
            if "so_far" in what.messages[-1].text:
                raise ProviderError("broke")
            async for delta in Scripted.stream(self, what, sampling):
                yield delta

    async def watched() -> list[Any]:
        agent = clerk(window=2_600, limits=Limits(steps=100, calls=200))
        return [event async for event in steps(agent, Session.of("?"), Failing(long_talk(speech, 20)))]

    events = asyncio.run(watched())
    assert events[-1].reason == "done"
    told = [one for one in events if isinstance(one, Compacted)]
    assert {one.by for one in told} == {"list"}
    assert told[0].text.startswith("- assistant: ")
    assert "\n- result of " in told[0].text
    assert isinstance(events[-1].messages[0], Message)
